"""Runs of ZSLS25's public code, repeated from its weights.

`goldens/zsls25.npz` was made by running `train.py` of yedizhang/linattn-icl (commit 9a481d5, torch 2.13.0) from its
default seed, D = 2, four tokens, twelve sequences, with model and data cast to float64 before training. It holds the
tokens (the query's label with them), for every run the weights before and after 300 steps, and the loss every 50 steps.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close

from icl_theory import (
    InputError,
    MergedAttention,
    Prompts,
    SeparateAttention,
    TaskMixture,
    concatenate_prompts,
    from_zsls25,
    make_loss,
    population_loss,
    population_moments,
    split_model,
    train,
)

STORED = np.load(Path(__file__).parents[1] / "goldens" / "zsls25.npz")
TOKENS = STORED["tokens"]
PLAIN = Prompts.from_arrays(TOKENS[:, :3, :2], TOKENS[:, :3, 2], TOKENS[:, 3, :2], TOKENS[:, 3, 2])
DIVIDED = {"separate": 3, "merged": 3, "mlp": 3, "lengths": None, "softmax": None}  # by run, N to be divided by


def at_all_lengths(count_query):
    """Each token after the first as the query of those before it, as `--vary_len` has it."""
    parts = []
    for length in (1, 2, 3):
        context = np.where(np.arange(3)[:, None] < length, TOKENS[:, :3], 0.0)
        query, lengths = TOKENS[:, length], np.full(len(TOKENS), length)
        settings = {"num_context": lengths, "count_query": count_query}
        parts.append(Prompts.from_arrays(context[..., :2], context[..., 2], query[:, :2], query[:, 2], **settings))
    return concatenate_prompts(parts)


def weights(run, when):
    start = f"{run}/{when}/"
    return {name.removeprefix(start): STORED[name] for name in STORED.files if name.startswith(start)}


def converted(run, when="start"):
    scores = "softmax" if run == "softmax" else "linear"
    return from_zsls25(
        weights(run, when), float(STORED[f"{run}/learning_rate"]), num_context=DIVIDED[run], scores=scores
    )


def losses(model, rate, prompts, params=None):
    loss, own = make_loss(model, prompts)
    settings = {"hyperparameters": {"learning_rate": rate}, "num_steps": 300, "num_snapshots": 7}
    return train(loss, own if params is None else params, **settings)


@pytest.mark.parametrize("run", DIVIDED)
def test_training_from_its_weights_is_its_training(run):
    model, rate = converted(run)
    ours = losses(model, rate, at_all_lengths(True) if run == "lengths" else PLAIN)
    assert ours.step.tolist() == list(range(0, 301, 50))
    bound = 1e-7 if run == "mlp" else 1e-13  # its cubic features are made in float32
    assert np.abs(ours.loss - STORED[f"{run}/losses"]).max() < bound
    _, end = split_model(converted(run, "end")[0])
    for name, leaf in ours.params.items():
        assert_close(leaf, end[name], rtol=10 * bound)


def test_contexts_of_all_lengths_need_its_normalisation():
    model, rate = converted("lengths")
    assert np.abs(losses(model, rate, at_all_lengths(False)).loss - STORED["lengths/losses"]).max() > 0.05


def test_all_its_blocks_are_trained():
    model, rate = converted("merged")
    _, full = split_model(model)
    reduced = {"value": full["value"][:, 2], "merged": full["merged"][:, :2, :2]}
    ours = losses(MergedAttention(2, 2, rngs=nnx.Rngs(0)), rate, PLAIN, reduced)
    difference = np.abs(ours.loss - STORED["merged/losses"])
    assert difference[0] < 1e-13
    assert difference.max() > 0.05


@pytest.mark.parametrize("run", ["separate", "merged", "lengths", "softmax"])
def test_it_starts_on_the_reduced_blocks_alone(run):
    _, start = split_model(converted(run)[0])
    assert not np.any(start["value"][:, :2])
    assert not np.any(start["key"][..., 2] if "key" in start else start["merged"][:, 2, :2])
    assert np.all(start["value"][:, 2] != 0)


SEPARATE = weights("separate", "start")
MERGED = weights("merged", "start")


@pytest.mark.parametrize(
    ("field", "given", "settings"),
    [
        ("weights", {"key.weight": np.ones((2, 3))}, {}),
        ("weights", {}, {}),
        ("value.weight", SEPARATE | {"value.weight": np.ones((5, 3))}, {}),
        ("value.weight", SEPARATE | {"value.weight": np.ones(3)}, {}),
        ("value.weight", SEPARATE | {"value.weight": np.full((6, 3), np.nan)}, {}),
        ("value.weight", SEPARATE | {"value.weight": [["a"]]}, {}),
        ("kq.weight", MERGED | {"kq.weight": np.ones((9, 3))}, {}),
        ("key.weight", SEPARATE | {"key.weight": np.ones((3, 3)), "query.weight": np.ones((3, 3))}, {}),
        ("query.weight", SEPARATE | {"query.weight": np.ones((2, 3))}, {}),
        ("rank", SEPARATE | {"key.weight": np.ones((6, 3)), "query.weight": np.ones((6, 3))}, {}),
        ("fc1.weight", {"fc1.weight": np.ones((2, 5)), "fc2.weight": np.ones((1, 2))}, {}),
        ("fc2.weight", {"fc1.weight": np.ones((2, 4)), "fc2.weight": np.ones((2, 2))}, {}),
        ("num_context", MERGED, {"num_context": 0}),
        ("num_context", SEPARATE, {"scores": "softmax"}),
        ("scores", SEPARATE, {"scores": "relu"}),
        ("learning_rate", SEPARATE, {"learning_rate": -1.0}),
    ],
)
def test_other_weights_are_refused(field, given, settings):
    with pytest.raises(InputError) as error:
        from_zsls25(given, **({"learning_rate": 0.1, "num_context": 3} | settings))
    assert error.value.field == field


def test_one_output_is_assumed_of_attention():
    """Tokens of three inputs and two labels have the width of four inputs and one."""
    weights = {"kq.weight": np.ones((10, 5)), "value.weight": np.ones((10, 5))}
    assert from_zsls25(weights, 0.1, num_context=3)[0].effective_matrix().shape == (4, 4)
    with pytest.raises(InputError, match="one output"):
        from_zsls25({"fc1.weight": np.ones((2, 9)), "fc2.weight": np.ones((2, 2))}, 0.1, num_context=3)


def test_single_precision_weights_take_the_precision_of_the_session():
    single = {name: np.asarray(matrix, np.float32) for name, matrix in MERGED.items()}
    with jax.enable_x64(False):
        _, params = split_model(from_zsls25(single, 0.1, num_context=3)[0])
        assert params["merged"].dtype == jnp.float32


@pytest.mark.parametrize(("factors", "value", "side", "rate"), [(2, 1 / 4, -1 / 4, -1 / 2), (3, 1 / 3, -1 / 6, -1 / 3)])
def test_several_outputs_with_values_of_one_number_are_one_output(factors, value, side, rate):
    """The guide's scales, on infinite data. For O outputs with independent tasks and `M_op = Σ_h V_h,op U_h` the loss
    is the mean over o of `L(M_oo) + Σ_{p≠o} tr(M_op Λ M_opᵀ B)`, since β_o and β_p are uncorrelated."""
    outputs, moments = 3, population_moments(TaskMixture.single([0.7, 0.3], num_context=5))

    def several(params):
        sides = jnp.einsum("hrd,hre->hde", params["key"], params["query"]) if factors == 3 else params["merged"]
        matrices = jnp.einsum("hop,hde->opde", params["value"], sides)
        apart = jnp.einsum("opij,jk,oplk,li->op", matrices, moments.covariances[0], matrices, moments.beta_moments[0])
        own = sum(population_loss(matrices[o, o], moments) for o in range(outputs))
        return (own + jnp.sum(apart) - jnp.trace(apart)) / outputs

    model = (
        MergedAttention(2, 2, init_scale=0.3, rngs=nnx.Rngs(0))
        if factors == 2
        else SeparateAttention(2, 2, init_scale=0.5, rngs=nnx.Rngs(0))
    )
    _, params = split_model(model)
    one = {name: leaf * outputs ** (value if name == "value" else side) for name, leaf in params.items()}
    tied = params | {"value": params["value"][:, None, None] * jnp.eye(outputs)}
    settings = {"num_steps": 200, "num_snapshots": 5}
    found = train(several, tied, hyperparameters={"learning_rate": 0.2}, **settings)
    loss, _ = make_loss(model, TaskMixture.single([0.7, 0.3], num_context=5))
    expected = train(loss, one, hyperparameters={"learning_rate": 0.2 * outputs**rate}, **settings)
    assert_close(found.loss, expected.loss, rtol=1e-12)
    assert found.loss[-1] < 0.8 * found.loss[0]
    assert_close(found.params["value"], found.params["value"][:, :1, :1] * np.eye(outputs))
