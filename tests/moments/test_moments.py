"""Moments of prompts: the same losses and trajectories as going through every prompt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close
from moment_prompts import DIM, GROUPS, MODELS, PROMPTS, WEIGHTED, make

from icl_theory import (
    EffectiveTensor,
    InputError,
    MergedAttention,
    MomentsLoss,
    MomentsMixture,
    TaskMixture,
    at_context_lengths,
    compress,
    concatenate_prompts,
    cubic_features,
    example_learning_times,
    gd,
    make_loss,
    mixture_moments,
    prompt_moments,
    sam,
    sample_prompts,
    split_model,
    train,
    train_many,
)
from icl_theory.models.cubic_features import num_features

LINEAR = [(name, blocks) for name in MODELS for blocks in ("reduced", "full") if (name, blocks) != ("mlp", "full")]


@pytest.mark.parametrize(("name", "blocks"), LINEAR)
def test_predictions_are_linear_in_the_features(name, blocks):
    model = make(name, blocks)
    features = cubic_features(PROMPTS, blocks=blocks)
    assert features.shape == (60, num_features(DIM, blocks))
    assert_close(features @ model.effective_tensor(), model(PROMPTS))


def test_reduced_features_stand_first():
    assert_close(cubic_features(PROMPTS, blocks="full")[:, : DIM**2], cubic_features(PROMPTS, blocks="reduced"))


@pytest.mark.parametrize(("name", "blocks"), LINEAR)
@pytest.mark.parametrize("optimizer", [gd, sam])
@pytest.mark.parametrize("data", ["plain", "weighted, several lengths"])
def test_trajectories_on_moments_and_on_prompts_agree(name, blocks, optimizer, data):
    """To 1e-10 of the first loss over 3000 steps. η and ρ are below the onset of SAM's oscillation, beyond which any
    rounding grows (notes §6)."""
    prompts = PROMPTS if data == "plain" else at_context_lengths(WEIGHTED, [1, 2, 4])
    extra = {"rho": 0.002} if optimizer is sam else {}
    losses, weights = [], []
    for engine in ("moments", "prompts"):
        loss, params = make_loss(make(name, blocks), prompts, engine=engine)
        settings = {"learning_rate": 0.01, **extra}
        run = train(loss, params, optimizer=optimizer, hyperparameters=settings, num_steps=3000, num_snapshots=31)
        losses.append(run.loss)
        weights.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(run.params)]))
    assert losses[0][-1] < 0.9 * losses[0][0]
    assert np.abs(losses[0] - losses[1]).max() < 1e-10 * losses[0][0]
    assert np.abs(weights[0] - weights[1]).max() < 1e-10 * np.abs(weights[0]).max()


def test_moments_are_the_default_and_softmax_goes_through_prompts():
    assert isinstance(make_loss(make("merged"), PROMPTS)[0], MomentsLoss)
    softmax = MergedAttention(DIM, 2, scores="softmax", rngs=nnx.Rngs(0))
    assert not isinstance(make_loss(softmax, PROMPTS)[0], MomentsLoss)
    for data, settings in ((prompt_moments(PROMPTS), {}), (PROMPTS, {"engine": "moments"}), (GROUPS, {})):
        with pytest.raises(InputError, match="softmax on prompts"):
            make_loss(softmax, data, **settings)


def test_bad_input_is_named():
    broken = PROMPTS._replace(x=PROMPTS.x.at[41, 0, 0].set(jnp.inf))
    pieces = [jax.tree.map(lambda leaf, s=s: leaf[s], broken) for s in (slice(0, 30), slice(30, 60))]
    other = sample_prompts(TaskMixture.single([1.0, 0.5], num_context=4), 5, key=jax.random.key(0))
    model = make("merged", "full")
    for words, call in (
        (r"prompts\.x\[41\]", lambda: prompt_moments(broken)),
        (r"prompts\.x\[41\]", lambda: prompt_moments(iter(pieces))),
        (r"prompts\.x\[0\].*padding", lambda: prompt_moments(PROMPTS._replace(num_context=jnp.full(60, 3)))),
        ("0 prompts", lambda: prompt_moments(iter([]))),
        ("0 prompts", lambda: prompt_moments(jax.tree.map(lambda leaf: leaf[:0], PROMPTS))),
        (r"weight\[2\]", lambda: prompt_moments(PROMPTS._replace(weight=jnp.ones(60).at[2].set(-1.0)))),
        (r"weight\[2\]", lambda: make_loss(model, PROMPTS._replace(weight=jnp.ones(60).at[2].set(jnp.nan)))),
        (r"moments\.weight", lambda: make_loss(model, PROMPTS._replace(weight=jnp.zeros(60)))),
        ("all zero", lambda: make_loss(model, PROMPTS._replace(weight=jnp.zeros(60)), engine="prompts")),
        ("chunk_size", lambda: compress(PROMPTS).moments(chunk_size=-1)),
        ("blocks", lambda: cubic_features(PROMPTS, blocks="redcued")),
        (r"prompts\.weight = 'shape", lambda: prompt_moments(PROMPTS._replace(weight=jnp.ones(3)))),
        ("dimension 2", lambda: prompt_moments(iter([PROMPTS, other]))),
        ("dimension 2", lambda: make_loss(model, prompt_moments(other))),
        (r"moments\.dim", lambda: prompt_moments(PROMPTS) + prompt_moments(other)),
        (r"moments\.blocks", lambda: prompt_moments(PROMPTS) + prompt_moments(PROMPTS, blocks="reduced")),
        (r"moments\.blocks", lambda: make_loss(model, prompt_moments(PROMPTS, blocks="reduced"))),
        (r"moments\.weight", lambda: make_loss(model, 0.0 * prompt_moments(PROMPTS))),
        ("factor", lambda: -1.0 * prompt_moments(PROMPTS)),
        ("holds no prompts", lambda: make_loss(model, prompt_moments(PROMPTS), engine="prompts")),
        ("engine", lambda: make_loss(model, PROMPTS, engine="fast")),
        ("lengths", lambda: at_context_lengths(PROMPTS, [5])),
        ("lengths", lambda: at_context_lengths(PROMPTS, [])),
        ("parts", lambda: concatenate_prompts([])),
        ("parts", lambda: concatenate_prompts([PROMPTS, other])),
        ("weight = 'shape", lambda: compress(PROMPTS).moments(np.ones(3))),
        ("tensors", lambda: compress(PROMPTS).losses(np.ones(4))),
        ("shares", lambda: mixture_moments([prompt_moments(PROMPTS)] * 2, [0.5, 0.6])),
        ("shares", lambda: mixture_moments([prompt_moments(PROMPTS)] * 2, [1.0])),
        ("losses", lambda: example_learning_times(np.arange(2.0), np.asarray([[1.0], [np.nan]]))),
        ("remaining", lambda: example_learning_times(np.arange(2.0), np.ones((2, 1)), remaining=1.0)),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_examples_give_every_loss_without_the_prompts():
    model = make("rank 1", "full", scale=0.5)
    examples = compress(WEIGHTED, chunk_size=7)
    loss, params = make_loss(model, examples)
    run = train(
        loss,
        params,
        hyperparameters={"learning_rate": 0.05},
        num_steps=800,
        num_snapshots=9,
        track=EffectiveTensor(loss.graphdef),
    )
    losses = examples.losses(run.tracked)
    assert losses.shape == (9, 60)
    assert_close(losses[0], jnp.square(PROMPTS.y_query - model(PROMPTS)), rtol=1e-12)
    weights = np.asarray(WEIGHTED.weight)
    assert_close(losses @ (weights / weights.sum()), run.loss, rtol=1e-12)
    again = examples.moments(np.arange(60.0))
    assert_close(again.gram, prompt_moments(PROMPTS._replace(weight=jnp.arange(60.0))).gram, rtol=1e-13)
    times = example_learning_times(run.time, losses)
    learned = np.isfinite(times)
    assert 0 < learned.sum() < 60
    for example in np.flatnonzero(learned)[:5]:
        curve = np.asarray(losses[:, example])
        crossed = np.argmax(curve <= 0.5 * curve[0])
        assert run.time[crossed - 1] < times[example] <= run.time[crossed]


def test_runs_may_differ_in_their_shares():
    parts = [prompt_moments(jax.tree.map(lambda leaf, s=s: leaf[s], PROMPTS)) for s in (slice(0, 30), slice(30, 60))]
    graphdef, params = split_model(make("merged", "full"))
    shares = np.asarray([[0.5, 0.5], [0.9, 0.1], [0.0, 1.0]])
    many = train_many(
        MomentsLoss(graphdef, mixture_moments(parts, shares)),
        jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params),
        hyperparameters={"learning_rate": 0.02},
        num_steps=300,
        num_snapshots=5,
        loss_axes=MomentsLoss(None, MomentsMixture(None, None, None, 0)),
    )
    for index, (early, late) in enumerate(shares):
        loss, _ = make_loss(make("merged", "full"), early * parts[0].mean() + late * parts[1].mean())
        one = train(loss, params, hyperparameters={"learning_rate": 0.02}, num_steps=300, num_snapshots=5)
        assert_close(many.loss[index], one.loss, rtol=1e-12)


def test_the_loss_can_be_differentiated_by_its_data_and_twice():
    loss, params = make_loss(make("merged", "full"), PROMPTS)
    slow, _ = make_loss(make("merged", "full"), PROMPTS, engine="prompts")
    for ours, theirs in zip(
        jax.tree.leaves(jax.hessian(loss)(params)), jax.tree.leaves(jax.hessian(slow)(params)), strict=True
    ):
        assert_close(ours, theirs, rtol=1e-11)
    tensor = jnp.asarray(make("merged", "full").effective_tensor())
    by_gram = jax.grad(lambda gram: loss._replace(moments=loss.moments.replace(gram=gram))(params))(loss.moments.gram)
    assert_close(by_gram, jnp.outer(tensor, tensor), rtol=1e-12)


def test_runs_that_share_moments_make_one_matrix_product_a_step():
    """In the compiled program: M (F, F) times all tensors (F, runs), once in the step and once in the snapshot."""
    from icl_theory.training.compiled_loop import Program, run_chunk, start

    runs, size = 24, num_features(DIM, "full")
    graphdef, params = split_model(make("merged", "full"))
    loss, _ = make_loss(make("merged", "full"), PROMPTS)
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * runs, axis=-1), params)
    rates = {"learning_rate": jnp.full(runs, 0.1)}
    program = Program(loss, EffectiveTensor(graphdef), gd, many=True)
    block = start(program, starts, rates)
    compiled = run_chunk.lower(program, block, np.int64(0), np.arange(4)).compile().as_text()
    products = [line for line in compiled.splitlines() if " dot(" in line]
    large = [line for line in products if f"f64[{size},{runs}]" in line.split("dot(")[0]]
    assert len(large) == 2
    batched = [line for line in products if "batch_dims={" in line and str(size) in line]
    assert not batched
