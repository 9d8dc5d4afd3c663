"""The modules against the matrix formulas of the notes (§2), and their symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close
from hypothesis import given
from hypothesis import strategies as st

from icl_theory import (
    CubicFeatureMLP,
    InputError,
    MergedAttention,
    RunConfig,
    SeparateAttention,
    TaskMixture,
    aligned_parameters,
    make_loss,
    merge_model,
    sample_prompts,
    simulate,
    split_model,
    train,
    widen_parameters,
)
from icl_theory.simulation.build import build_model

DIM = 3
MIXTURE = TaskMixture.single([0.5, 0.3, 0.2], num_context=6)
PROMPTS = sample_prompts(MIXTURE, 7, key=jax.random.key(1))


def make(kind, **settings):
    settings = {"init_scale": 1.0, "rngs": nnx.Rngs(3)} | settings
    return MergedAttention(DIM, 2, **settings) if kind == "merged" else SeparateAttention(DIM, 2, **settings)


def prompt_matrix(index):
    """`[[x_1 … x_N x_q], [y_1 … y_N 0]]` of one prompt."""
    return np.asarray(PROMPTS.tokens[index]).T


@pytest.mark.parametrize("kind", ["merged", "separate"])
@pytest.mark.parametrize("blocks", ["reduced", "full"])
def test_linear_attention_is_the_bottom_right_entry(kind, blocks):
    model = make(kind, blocks=blocks)
    value, key_query = (np.asarray(part) for part in model._full_blocks())
    expected = []
    for index in range(7):
        X = prompt_matrix(index)
        output = X.copy()
        for v, kq in zip(value, key_query, strict=True):
            value_matrix = np.zeros((DIM + 1, DIM + 1))
            value_matrix[-1] = v
            output += value_matrix @ X @ X.T @ kq @ X / 6
        expected.append(output[-1, -1])
    assert_close(model(PROMPTS), expected)


@pytest.mark.parametrize("kind", ["merged", "separate"])
@pytest.mark.parametrize("blocks", ["reduced", "full"])
def test_softmax_attention_by_hand(kind, blocks):
    model = make(kind, blocks=blocks, scores="softmax")
    value, key_query = (np.asarray(part) for part in model._full_blocks())
    for index in (0, 4):
        tokens = prompt_matrix(index).T
        total = 0.0
        for v, kq in zip(value, key_query, strict=True):
            logits = tokens @ kq @ tokens[-1]
            weights = np.exp(logits - logits.max())
            total += (weights / weights.sum()) @ (tokens @ v)
        assert_close(model(PROMPTS)[index], total)


def test_softmax_does_not_see_padding():
    """A prompt of three tokens predicts the same alone and padded beside a longer one."""
    model = make("separate", scores="softmax", blocks="full")
    short = PROMPTS._replace(x=PROMPTS.x[:, :3], y=PROMPTS.y[:, :3], num_context=jnp.full(7, 3))
    padded = short._replace(x=jnp.pad(short.x, ((0, 0), (0, 4), (0, 0))), y=jnp.pad(short.y, ((0, 0), (0, 4))))
    assert_close(model(padded), model(short))


def test_effective_matrix_and_rank():
    model = make("separate", rank=2)
    by_hand = sum(
        v * np.asarray(k).T @ np.asarray(q)
        for v, k, q in zip(model.value[...], model.key[...], model.query[...], strict=True)
    )
    assert_close(model.effective_matrix(), by_hand)
    assert_close(model(PROMPTS), np.einsum("pd,de,pe->p", PROMPTS.beta, by_hand, PROMPTS.x_query))


def test_cubic_feature_mlp_equals_merged_attention():
    attention = make("merged")
    network = CubicFeatureMLP(DIM, 2, rngs=nnx.Rngs(0))
    graphdef, _ = split_model(network)
    _, weights = split_model(attention)
    copied = {"second": weights["value"], "first": weights["merged"].reshape(2, -1)}
    assert_close(merge_model(graphdef, copied)(PROMPTS), attention(PROMPTS))
    assert_close(merge_model(graphdef, copied).effective_matrix(), attention.effective_matrix())


@given(st.integers(0, 2**30), st.sampled_from(["merged", "separate"]), st.sampled_from(["linear", "softmax"]))
def test_heads_and_context_may_be_permuted_and_space_rotated(seed, kind, scores):
    model = make(kind, scores=scores, rngs=nnx.Rngs(seed % 1000))
    graphdef, params = split_model(model)
    predictions = model(PROMPTS)
    flipped = jax.tree.map(lambda leaf: leaf[::-1], params)
    assert_close(merge_model(graphdef, flipped)(PROMPTS), predictions)
    order = np.random.default_rng(seed).permutation(6)
    assert_close(model(PROMPTS._replace(x=PROMPTS.x[:, order], y=PROMPTS.y[:, order])), predictions)
    rotation = jax.random.orthogonal(jax.random.key(seed), DIM)
    turned = PROMPTS._replace(x=PROMPTS.x @ rotation, x_query=PROMPTS.x_query @ rotation)
    if kind == "merged":
        turned_params = params | {"merged": rotation.T @ params["merged"] @ rotation}
    else:
        turned_params = params | {"key": params["key"] @ rotation, "query": params["query"] @ rotation}
    assert_close(merge_model(graphdef, turned_params)(turned), predictions, rtol=1e-12)


def test_blocks_on_the_wrong_entries_stay_zero_on_symmetric_data():
    """Notes §2: zero blocks have no gradient in population; here on prompts closed under w → −w and x → −x."""
    sign_w, sign_q = ([1, -1, 1, -1], [1, 1, -1, -1])
    parts = [
        PROMPTS._replace(y=w * PROMPTS.y, x_query=q * PROMPTS.x_query, y_query=w * q * PROMPTS.y_query)
        for w, q in zip(sign_w, sign_q, strict=True)
    ]
    data = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    model = make("merged", blocks="full", init_scale=0.5)
    loss, params = make_loss(model, data)
    value = jnp.zeros_like(params["value"]).at[:, -1].set(params["value"][:, -1])
    merged = jnp.zeros_like(params["merged"]).at[:, :DIM, :DIM].set(params["merged"][:, :DIM, :DIM])
    run = train(loss, {"value": value, "merged": merged}, hyperparameters={"learning_rate": 0.05}, num_steps=200)
    assert run.loss[-1] < 0.9 * run.loss[0]
    assert np.max(np.abs(run.params["value"][:, :-1])) < 1e-14
    outside = run.params["merged"].at[:, :DIM, :DIM].set(0.0)
    assert np.max(np.abs(outside[:, :, :DIM])) < 1e-14


def test_aligned_parameters_hold_one_feature_a_head(key):
    basis = jax.random.orthogonal(key, DIM)
    params = aligned_parameters(jnp.asarray([0.3, 0.2, 0.1]), basis)
    graphdef, _ = split_model(SeparateAttention(DIM, DIM, rngs=nnx.Rngs(0)))
    matrix = merge_model(graphdef, params).effective_matrix()
    assert_close(basis.T @ matrix @ basis, np.diag([0.3**3, 0.2**3, 0.1**3]))


@pytest.mark.parametrize(
    ("field", "build"),
    [
        ("rank", lambda: SeparateAttention(3, 2, rank=4, rngs=nnx.Rngs(0))),
        ("num_heads", lambda: MergedAttention(3, 0, rngs=nnx.Rngs(0))),
        ("dim", lambda: CubicFeatureMLP(0, 1, rngs=nnx.Rngs(0))),
        ("blocks", lambda: MergedAttention(3, 1, blocks="half", rngs=nnx.Rngs(0))),
        ("scores", lambda: MergedAttention(3, 1, scores="relu", rngs=nnx.Rngs(0))),
        ("init_scale", lambda: MergedAttention(3, 1, init_scale=-1.0, rngs=nnx.Rngs(0))),
        ("data", lambda: make_loss(MergedAttention(3, 1, scores="softmax", rngs=nnx.Rngs(0)), MIXTURE)),
        ("data", lambda: make_loss(MergedAttention(2, 1, rngs=nnx.Rngs(0)), MIXTURE)),
        ("prompts", lambda: MergedAttention(2, 1, rngs=nnx.Rngs(0))(PROMPTS)),
    ],
)
def test_impossible_models_are_refused(field, build):
    with pytest.raises(InputError) as error:
        build()
    assert error.value.field == field


@pytest.mark.parametrize("config", [{"model": "merged"}, {"rank": 2}, {"model": "merged", "scores": "softmax"}])
def test_a_start_on_the_reduced_blocks_is_that_of_reduced_blocks(config):
    settings = {"dim": 3, "data": "prompts", "num_heads": 2} | config
    narrow = build_model(RunConfig(**settings))
    wide = build_model(RunConfig(**settings, blocks="full", init="reduced"))
    assert wide.blocks == "full"
    assert_close(wide(PROMPTS), narrow(PROMPTS))
    _, params = split_model(wide)
    for refused in (params, {"value": params["value"][:, -1]}):
        with pytest.raises(InputError, match="params"):
            widen_parameters(refused)


def test_dividing_by_all_tokens_is_a_scale_of_weights_and_rate():
    """β has the factor s = N/(N + 1), so weights s^⅓ θ and the rate s^⅔ η give the run with 1/N."""
    settings = {"init": "aligned", "dim": 2, "num_context": 3, "num_steps": 600, "num_snapshots": 30}
    factor = 0.75 ** (1 / 3)
    counted = simulate(RunConfig(**settings, normalisation="tokens", learning_rate=0.1, init_scale=0.2))
    plain = simulate(RunConfig(**settings, learning_rate=0.1 * factor**2, init_scale=0.2 * factor))
    assert_close(counted.trajectory.loss, plain.trajectory.loss, rtol=1e-12)
    assert_close(counted.trajectory.strength, plain.trajectory.strength / 0.75, rtol=1e-12)
    assert max(counted.comparison.loss, counted.comparison.strength) < 1e-12
    assert counted.trajectory.loss[-1] < 0.9 * counted.trajectory.loss[0]


def test_initial_scales_are_the_stated_norms():
    model = SeparateAttention(16, 400, init_scale=0.1, rngs=nnx.Rngs(0))
    norms = np.linalg.norm(np.asarray(model.key[...]).reshape(400, -1), axis=1)
    assert abs(np.sqrt(np.mean(norms**2)) - 0.1) < 0.003
    assert abs(np.std(np.asarray(model.value[...])) - 0.1) < 0.012
    merged = MergedAttention(16, 400, init_scale=0.1, rngs=nnx.Rngs(0))
    assert abs(np.sqrt(np.mean(np.sum(np.square(merged.merged[...]), axis=(1, 2)))) - 0.1) < 0.003
