"""Training in minibatches: what is drawn, that it is fair, and that training sees it as drawn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import compilations

import icl_theory as icl
from icl_theory.errors import InputError
from icl_theory.moments.mixture_moments import MomentsMixture
from icl_theory.tasks.fresh_prompts import FreshPrompts
from icl_theory.tasks.prompts import check_prompts
from icl_theory.training.minibatches import GroupCounts, alias_table, make_minibatch_loss

P, BATCH = 40, 8
PARTS = [
    icl.TaskDistribution.create([0.6, 0.4], num_context=7, noise_std=0.1),
    icl.TaskDistribution.create([0.3, 0.7], num_context=4),
]
MIXTURE = icl.TaskMixture.create(PARTS, [0.75, 0.25])
PROMPTS = icl.sample_prompts(MIXTURE, P, key=jax.random.key(3))
WEIGHT = np.where(np.asarray(PROMPTS.group) == 1, 4.0, 0.5)
WEIGHT[3] = 0.0


def attention(blocks="reduced"):
    return icl.SeparateAttention(2, 2, init_scale=0.5, blocks=blocks, rngs=nnx.Rngs(0))


KINDS = {
    "rows": (PROMPTS, {}),
    "sampled": (PROMPTS, {"weight": WEIGHT}),
    "weighted": (PROMPTS, {"weight": WEIGHT, "weighting": "loss"}),
    "groups": (MIXTURE, {"draw": "groups"}),
    "prompts": (MIXTURE, {"draw": "prompts"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blocks", ["reduced", "full"])
def test_mean_gradient_of_batches_is_that_of_all_data(kind, blocks):
    data, options = KINDS[kind]
    loss, params = make_minibatch_loss(attention(blocks), data, batch_size=BATCH, **options)
    gradient = jax.jit(jax.vmap(lambda step: jax.grad(loss.at_step(step))(params)))(jnp.arange(4000))
    found = np.concatenate([np.asarray(leaf).reshape(4000, -1) for leaf in jax.tree.leaves(gradient)], axis=1)
    all_data = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(jax.grad(loss)(params))])
    error = found.std(axis=0) / 4000**0.5
    assert np.abs((found.mean(axis=0) - all_data) / np.maximum(error, 1e-12)).max() < 5
    assert np.abs(all_data).max() > 10 * error.max()


def test_fresh_prompts_have_their_groups_numbers():
    group = jnp.asarray([0, 1] * 2000)
    prompts = FreshPrompts.of(MIXTURE).draw(jax.random.key(1), group)
    check_prompts(prompts)  # its padding included
    assert prompts.num_context[:2].tolist() == [7, 4]
    noise = np.asarray(prompts.y - jnp.einsum("pnd,pd->pn", prompts.x, prompts.task_vector))
    assert np.abs(noise[1::2]).max() < 1e-12
    assert noise[::2].std() == pytest.approx(0.1, rel=0.03)
    for index, part in enumerate(PARTS):
        x = np.asarray(prompts.x_query[index::2])
        np.testing.assert_allclose(x.T @ x / 2000, part.covariance, atol=0.08)


def test_loss_of_all_data_is_that_of_make_loss():
    for kind, (data, options) in KINDS.items():
        loss, params = make_minibatch_loss(attention(), data, batch_size=BATCH, **options)
        weighted = data._replace(weight=jnp.asarray(WEIGHT)) if "weight" in options else data
        expected, _ = icl.make_loss(attention(), weighted)
        np.testing.assert_allclose(loss(params), expected(params), rtol=1e-12, err_msg=kind)


@partial(jax.jit, static_argnums=2)
def batch_losses(loss, params, steps):
    return jax.vmap(lambda step: loss.at_step(step)(params))(jnp.arange(steps))


def test_weights_in_the_loss_and_in_sampling_have_one_mean_and_two_variances():
    """A row of weight s: drawn s times as often, or s times as large, which has s times the second moment."""
    rows = icl.compress(PROMPTS, blocks="reduced")
    single = np.asarray(rows.losses(np.zeros(4)))
    values = {}
    for weighting in ("sampling", "loss"):
        loss, params = make_minibatch_loss(attention(), rows, batch_size=1, weight=WEIGHT, weighting=weighting)
        values[weighting] = np.asarray(batch_losses(loss, jax.tree.map(jnp.zeros_like, params), 20_000))
    mean, chance = WEIGHT.mean(), WEIGHT / WEIGHT.sum()
    for weighting, square in (("sampling", chance @ single**2), ("loss", np.mean((WEIGHT / mean * single) ** 2))):
        assert np.mean(values[weighting]) == pytest.approx(chance @ single, rel=0.05)
        assert np.mean(values[weighting] ** 2) == pytest.approx(square, rel=0.1)
    assert np.isin(values["sampling"].round(9), single.round(9)).all()
    assert not np.isin(values["sampling"].round(9), single[3].round(9)).any()  # its weight is zero


def test_alias_table_holds_the_weights():
    weights = np.random.default_rng(0).gamma(0.3, size=500)
    weights[7] = 0.0
    keep, alias = alias_table(weights)
    found = (keep + np.bincount(alias, 1.0 - keep, minlength=500)) / 500
    np.testing.assert_allclose(found, weights / weights.sum(), atol=1e-14)


@pytest.mark.parametrize("optimizer", [optax.adam, partial(icl.sam, rho=0.05)])
def test_training_takes_the_steps_of_its_batches(optimizer):
    """Against optax written out, whatever the snapshots."""
    loss, params = make_minibatch_loss(attention(), PROMPTS, batch_size=BATCH, seed=5)
    runs = [
        icl.train(
            loss, params, optimizer=optimizer, hyperparameters={"learning_rate": 0.01}, num_steps=12, snapshots=at
        )
        for at in (np.array([0, 5, 12]), np.arange(13))
    ]
    made = optax.with_extra_args_support(optimizer(learning_rate=0.01))
    state, now = made.init(params), params
    for step in range(12):
        gradient = jax.grad(loss.at_step(step))
        updates, state = made.update(gradient(now), state, now, grad_fn=gradient)
        now = optax.apply_updates(now, updates)
    for run in runs:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9), run.params, now)
        np.testing.assert_allclose(run.loss[-1], loss(now), rtol=1e-9)


def test_a_large_batch_is_no_divergence_and_a_divergence_is_found():
    """A rare example of large weight has a loss above the limit of divergence, which full batches are held to."""
    weight = np.where(np.arange(P) == 5, 1e6, 1.0)
    loss, params = make_minibatch_loss(attention(), PROMPTS, batch_size=1, weight=weight, weighting="loss")
    seen = np.asarray(batch_losses(loss, params, 200))
    settings = {"num_steps": 200, "num_snapshots": 5}
    rare = loss.replace(source=loss.source._replace(loss_weight=loss.source.loss_weight * 1e4))
    assert seen.max() * 1e4 > 2e3 * loss(params)
    assert icl.train(rare, params, hyperparameters={"learning_rate": 0.0}, **settings).diverged_at == -1
    with pytest.raises(icl.DivergenceError) as error:
        icl.train(loss, params, hyperparameters={"learning_rate": 10.0}, **settings)
    assert 0 < error.value.step < 200


def many(loss, axes, starts, **extra):
    settings = {"hyperparameters": {"learning_rate": 0.01}, "num_steps": 12, "num_snapshots": 3}
    return icl.train_many(loss, starts, optimizer=optax.adam, loss_axes=axes, **settings | extra)


@pytest.mark.parametrize("kind", ["sampled", "groups"])
def test_runs_share_batches_or_draw_their_own(kind):
    data, options = KINDS[kind]
    loss, params = make_minibatch_loss(attention(), data, batch_size=BATCH, **options)
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params)
    shared = many(loss, None, starts)
    np.testing.assert_allclose(shared.loss[1:], shared.loss[:-1])
    own, axes = loss.own_batches(3)
    found = many(own, axes, starts)
    assert np.abs(np.diff(found.loss[:, -1])).min() > 1e-6
    alone = icl.train(
        own.replace(key=own.key[1]),
        params,
        optimizer=optax.adam,
        hyperparameters={"learning_rate": 0.01},
        num_steps=12,
        num_snapshots=3,
    )
    np.testing.assert_allclose(found.loss[1], alone.loss, rtol=1e-9)


@pytest.mark.parametrize("kind", ["rows", "groups", "prompts"])
def test_own_batches_without_their_axes_are_refused(kind):
    data, options = KINDS[kind]
    loss, params = make_minibatch_loss(attention(), data, batch_size=BATCH, **options)
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), params)
    own, axes = loss.own_batches(2)
    with pytest.raises(InputError, match=r"key of shape \(2, 2\)': give train_many the loss and the loss_axes"):
        many(own, None, starts)
    with pytest.raises(InputError, match=r"key of shape \(2, 2\)"):
        icl.train(own, params, hyperparameters={"learning_rate": 0.01}, num_steps=2)
    with pytest.raises(InputError, match=r"key of shape \(\)': give train_many the loss"):
        many(loss, axes, starts)


def test_own_batch_sizes_without_their_axis_are_refused():
    loss, params = make_minibatch_loss(attention(), MIXTURE, batch_size=BATCH, draw="groups")
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), params)
    own, axes = loss.own_batches(2)
    for given, wrong in ((loss, None), (own, axes)):
        with pytest.raises(
            InputError, match=r"batch sizes of shape \(2,\)': give train_many those that with_batch_sizes"
        ):
            many(given.with_batch_sizes([2, 5]), wrong, starts)
    right = many(own.with_batch_sizes([2, 5]), loss.axes(source=GroupCounts(0), key=0), starts)
    assert right.loss.shape == (2, 3)


def test_runs_may_differ_in_shares_and_nothing_recompiles():
    loss, params = make_minibatch_loss(attention(), MIXTURE, batch_size=BATCH, draw="groups")
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), params)

    def run(shares, rate, seed):
        given = loss.loss._replace(moments=loss.loss.moments._replace(shares=jnp.asarray(shares)))
        each, _ = loss.replace(loss=given, key=jax.random.key_data(jax.random.key(seed))).own_batches(2)
        axes = loss.axes(loss=icl.MomentsLoss(None, MomentsMixture(None, None, None, shares=0)), key=0)
        return many(each, axes, starts, hyperparameters={"learning_rate": rate})

    first = run([[0.75, 0.25], [0.1, 0.9]], 0.01, 1)
    with compilations() as programs:
        second = run([[0.5, 0.5], [0.6, 0.4]], 0.02, 2)
    assert programs == []
    assert not np.allclose(first.loss[0], first.loss[1])
    assert not np.allclose(first.loss, second.loss)


def test_runs_may_differ_in_batch_size():
    """Counts of a batch are whole numbers of its own size, and the first draws are those of the largest."""
    loss, _ = make_minibatch_loss(attention(), MIXTURE, batch_size=BATCH, draw="groups")
    for size in (1, 3, BATCH):
        smaller = loss.with_batch_sizes(size)
        counts = np.array([smaller.at_step(step).moments.shares * size for step in range(20)])
        np.testing.assert_allclose(counts, counts.round(), atol=1e-12)
        np.testing.assert_allclose(counts.sum(axis=1), size)
        assert counts[:, 1].std() > 0
    for wrong in (0, BATCH + 1, 1.5):
        with pytest.raises(InputError, match="sizes"):
            loss.with_batch_sizes(wrong)
    with pytest.raises(InputError, match="groups"):
        make_minibatch_loss(attention(), PROMPTS, batch_size=BATCH)[0].with_batch_sizes(2)
    np.testing.assert_array_equal(smaller.at_step(4).moments.shares, loss.at_step(4).moments.shares)


@pytest.mark.parametrize(
    ("data", "options", "field"),
    [
        (PROMPTS, {"batch_size": P + 1}, "batch_size"),
        (PROMPTS, {"batch_size": 0}, "batch_size"),
        (PROMPTS, {"weight": np.asarray(PROMPTS.group, float)}, "weight"),
        (PROMPTS, {"weight": np.ones(P - 1)}, "weight"),
        (PROMPTS, {"weighting": "both"}, "weighting"),
        (MIXTURE, {"weight": np.ones(2)}, "weight"),
        (MIXTURE, {"draw": "rows"}, "draw"),
        (PROMPTS, {"draw": "groups"}, "draw"),
        (MIXTURE, {"weighting": "loss"}, "weighting"),
        (PROMPTS, {"seed": 2**32}, "seed"),
        (PROMPTS, {"seed": -1}, "seed"),
        (MIXTURE.upsampled([1.0, 0.0]), {}, "shares"),
        (icl.prompt_moments(PROMPTS), {}, "data"),
        (icl.TaskMixture.single([1.0, 1.0, 1.0], num_context=3), {}, "data"),
    ],
)
def test_bad_input_is_named(data, options, field):
    with pytest.raises(InputError) as error:
        make_minibatch_loss(attention(), data, **{"batch_size": 4, **options})
    assert error.value.field == field


def test_softmax_is_refused():
    model = icl.SeparateAttention(2, 2, scores="softmax", rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="cubic features"):
        make_minibatch_loss(model, PROMPTS, batch_size=4)


def test_reduced_rows_are_refused_by_full_blocks_and_full_rows_serve_reduced_ones():
    reduced, full = (icl.compress(PROMPTS, blocks=blocks) for blocks in ("reduced", "full"))
    with pytest.raises(InputError):
        make_minibatch_loss(attention("full"), reduced, batch_size=4)
    losses = [make_minibatch_loss(attention(), rows, batch_size=4)[0] for rows in (reduced, full)]
    _, params = icl.split_model(attention())
    np.testing.assert_allclose(losses[0].at_step(7)(params), losses[1].at_step(7)(params), rtol=1e-12)
