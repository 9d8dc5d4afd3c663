"""The training loop: no recompilation for a number, chunks invisible, batches equal single runs, divergence located."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import assert_close

from icl_theory import (
    DivergenceError,
    EffectiveMatrix,
    InputError,
    SeparateAttention,
    TaskMixture,
    find_features,
    gd,
    linear_spectrum,
    make_loss,
    sam,
    sample_prompts,
    split_model,
    train,
    train_many,
    unnormalised_sam,
)
from icl_theory.moments.population import population_moments
from icl_theory.numerics import cpu_workers as blocks
from icl_theory.training.losses import MomentsLoss
from icl_theory.training.run import snapshot_schedule

MODEL = SeparateAttention(3, 4, init_scale=0.3, rngs=nnx.Rngs(0))


def spectrum_mixture(eigenvalues):
    return TaskMixture.single(eigenvalues, num_context=9)


class CountingLoss(MomentsLoss):
    """Counts how often jax traces it."""

    traces = 0

    def __call__(self, params):
        type(self).traces += 1
        return super().__call__(params)


jax.tree_util.register_pytree_node(
    CountingLoss, lambda loss: (tuple(loss), None), lambda _, leaves: CountingLoss(*leaves)
)


@pytest.mark.parametrize("optimizer", [gd, sam, unnormalised_sam])
def test_numbers_never_recompile(optimizer):
    graphdef, params = split_model(MODEL)

    def go(eigenvalues, rate, rho, num_steps, num_snapshots):
        loss = CountingLoss(graphdef, population_moments(spectrum_mixture(eigenvalues)))
        extra = {} if optimizer is gd else {"rho": rho}
        train(
            loss,
            params,
            optimizer=optimizer,
            hyperparameters={"learning_rate": rate, **extra},
            num_steps=num_steps,
            num_snapshots=num_snapshots,
        )

    go([0.5, 0.3, 0.2], 0.05, 0.01, 50, 20)
    before = CountingLoss.traces
    assert before > 0
    go([0.6, 0.3, 0.1], 0.02, 0.03, 170, 100)
    go([0.9, 0.05, 0.05], 0.01, 0.0, 33, 5)
    with pytest.raises(DivergenceError):
        go([0.5, 0.3, 0.2], 50.0, 0.0, 400, 4)
    assert CountingLoss.traces == before


def test_gradient_descent_step_by_step():
    loss, params = make_loss(MODEL, spectrum_mixture([0.5, 0.3, 0.2]))
    run = train(loss, params, hyperparameters={"learning_rate": 0.1}, num_steps=7, num_snapshots=8, track=lambda p: p)
    by_hand = params
    for step in range(8):
        assert_close(run.loss[step], loss(by_hand))
        for name in params:
            assert_close(run.tracked[name][step], by_hand[name])
        by_hand = jax.tree.map(lambda p, g: p - 0.1 * g, by_hand, jax.grad(loss)(by_hand))
    assert_close(run.time, 0.1 * np.arange(8))


def test_snapshots_and_chunks_do_not_change_the_run():
    loss, params = make_loss(MODEL, spectrum_mixture([0.5, 0.3, 0.2]))
    settings = {"optimizer": sam, "hyperparameters": {"learning_rate": 0.1, "rho": 0.02}, "num_steps": 300}
    every = train(loss, params, num_snapshots=301, **settings)
    few = train(loss, params, snapshots=np.asarray([0, 7, 200, 300]), **settings)
    assert np.array_equal(few.loss, every.loss[[0, 7, 200, 300]])
    for name in params:
        assert np.array_equal(few.params[name], every.params[name])
    late = train(loss, params, snapshots=np.asarray([100, 200]), **settings)
    assert late.step.tolist() == [100, 200, 300]
    assert np.array_equal(late.loss, every.loss[[100, 200, 300]])


def test_population_and_prompts_are_interchangeable(key):
    mixture = spectrum_mixture([0.5, 0.3, 0.2])
    curves = []
    for data in (mixture, sample_prompts(mixture, 3000, key=key)):
        loss, params = make_loss(MODEL, data)
        run = train(loss, params, hyperparameters={"learning_rate": 0.1}, num_steps=400, num_snapshots=5)
        curves.append(run.loss)
    assert np.allclose(curves[0], curves[1], rtol=0.08)


def test_many_runs_equal_single_runs():
    make = lambda key: SeparateAttention(3, 4, init_scale=0.3, rngs=nnx.Rngs(params=key))  # noqa: E731
    keys = jax.random.split(jax.random.key(5), 3)
    starts = jax.vmap(lambda key: split_model(make(key))[1])(keys)
    graphdef, _ = split_model(MODEL)
    spectra = jnp.asarray([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.34, 0.33, 0.33]])
    losses = MomentsLoss(graphdef, jax.vmap(lambda e: population_moments(spectrum_mixture(e)))(spectra))
    rhos, rates = np.asarray([0.0, 0.02, 0.05]), np.asarray([0.05, 0.1, 0.2])
    many = train_many(
        losses,
        starts,
        optimizer=sam,
        hyperparameters={"learning_rate": rates, "rho": rhos},
        num_steps=200,
        num_snapshots=11,
        loss_axes=0,
        track=EffectiveMatrix(graphdef),
    )
    for index in range(3):
        one = train(
            MomentsLoss(graphdef, population_moments(spectrum_mixture(spectra[index]))),
            jax.tree.map(lambda leaf, i=index: leaf[i], starts),
            optimizer=sam,
            hyperparameters={"learning_rate": rates[index], "rho": rhos[index]},
            num_steps=200,
            num_snapshots=11,
            track=EffectiveMatrix(graphdef),
        )
        assert_close(many.loss[index], one.loss, rtol=1e-12)
        assert_close(many.tracked[index], one.tracked, rtol=1e-11)
        assert_close(many.time[index], one.time)


@pytest.mark.parametrize("x64", [True, False])
def test_blocks_of_runs_change_nothing(monkeypatch, x64):
    """Seven runs as four blocks on several threads, the last block filled up, one run diverging; both precisions."""
    with jax.enable_x64(x64):
        loss, _ = make_loss(
            SeparateAttention(3, 4, init_scale=0.3, rngs=nnx.Rngs(0)), spectrum_mixture([0.5, 0.3, 0.2])
        )
        make = lambda key: SeparateAttention(3, 4, init_scale=0.3, rngs=nnx.Rngs(params=key))  # noqa: E731
        starts = jax.vmap(lambda key: split_model(make(key))[1])(jax.random.split(jax.random.key(5), 7))
        rates = np.asarray([0.05, 0.1, 0.05, 0.1, 60.0, 0.1, 0.05])
        settings = {"hyperparameters": {"learning_rate": rates}, "num_steps": 200, "num_snapshots": 40}
        runs, counts = [], []
        for size in (100, 2):
            monkeypatch.setattr(blocks, "RUNS_PER_BLOCK", size)
            monkeypatch.setattr(blocks, "cores", lambda: 2)
            counts.append(len(blocks.run_blocks(7)))
            runs.append(train_many(loss, starts, track=EffectiveMatrix(loss.graphdef), **settings))
    assert counts == [1, 4]
    together, apart = runs
    assert apart.loss.dtype == apart.tracked.dtype == (np.float64 if x64 else np.float32)
    assert apart.loss.shape == (7, 40)
    assert together.diverged_at.tolist() == apart.diverged_at.tolist()
    assert (apart.diverged_at >= 0).tolist() == [rate == 60.0 for rate in rates]
    sound = apart.diverged_at < 0
    assert_close(apart.loss[sound], together.loss[sound], rtol=1e-12 if x64 else 1e-5)
    for name in starts:
        assert_close(apart.params[name], together.params[name], rtol=1e-11 if x64 else 1e-4)
    one = train(
        loss, jax.tree.map(lambda leaf: leaf[1], starts), **(settings | {"hyperparameters": {"learning_rate": 0.1}})
    )
    assert_close(apart.loss[1], one.loss, rtol=1e-12 if x64 else 1e-5)


def test_a_loss_with_another_number_of_runs_is_refused():
    graphdef, params = split_model(MODEL)
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), params)
    spectra = jnp.asarray([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]])
    losses = MomentsLoss(graphdef, jax.vmap(lambda e: population_moments(spectrum_mixture(e)))(spectra))
    for axes, words in ((0, "4 runs"), (1, "loss_axes"), (MomentsLoss(None, {"a": 0}), "loss_axes")):
        with pytest.raises(InputError, match=words):
            train_many(losses, starts, hyperparameters={"learning_rate": 0.1}, num_steps=2, loss_axes=axes)


def test_any_optax_optimizer_trains():
    loss, params = make_loss(MODEL, spectrum_mixture([0.5, 0.3, 0.2]))
    for optimizer in (optax.adam, optax.adamw, optax.lion, optax.contrib.muon):
        run = train(loss, params, optimizer=optimizer, hyperparameters={"learning_rate": 0.01}, num_steps=300)
        assert run.loss[-1] < run.loss[0]


def test_divergence_is_located_to_the_step_with_the_last_good_state():
    loss, params = make_loss(MODEL, spectrum_mixture([0.5, 0.3, 0.2]))
    settings = {"hyperparameters": {"learning_rate": 30.0}}
    with pytest.raises(DivergenceError) as error:
        train(loss, params, num_steps=5000, num_snapshots=10, **settings)
    found = error.value
    assert found.last_step == found.step - 1
    assert "learning_rate = 30" in str(found)
    good, limit = params, 1000 * max(loss(params), 1.0)
    for _ in range(found.last_step):
        good = jax.tree.map(lambda p, g: p - 30.0 * g, good, jax.grad(loss)(good))
    assert loss(good) <= limit
    for name in params:
        assert_close(found.params[name], good[name], rtol=1e-9)
    after = jax.tree.map(lambda p, g: p - 30.0 * g, good, jax.grad(loss)(good))
    assert not loss(after) <= limit


def test_a_diverging_run_among_many_is_marked_and_the_others_go_on():
    loss, params = make_loss(MODEL, spectrum_mixture([0.5, 0.3, 0.2]))
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), params)
    run = train_many(loss, starts, hyperparameters={"learning_rate": np.asarray([30.0, 0.1])}, num_steps=2000)
    assert run.diverged_at[0] > 0
    assert run.diverged_at[1] == -1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    alone = train(loss, params, hyperparameters={"learning_rate": 0.1}, num_steps=2000)
    assert_close(run.loss[1], alone.loss, rtol=1e-12)


def test_float32_stays_float32():
    with jax.enable_x64(False):
        model = SeparateAttention(3, 2, rngs=nnx.Rngs(0))
        loss, params = make_loss(model, TaskMixture.single(linear_spectrum(3), num_context=9))
        run = train(loss, params, hyperparameters={"learning_rate": 0.1}, num_steps=20)
    assert run.loss.dtype == np.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(run.params))


def test_progress_reaches_the_end():
    seen = []
    loss, params = make_loss(MODEL, spectrum_mixture([0.5, 0.3, 0.2]))
    train(
        loss,
        params,
        hyperparameters={"learning_rate": 0.1},
        num_steps=90,
        num_snapshots=91,
        progress=lambda *a: seen.append(a),
    )
    assert seen[-1] == (90, 90)
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("learning_rate", {"hyperparameters": {"learning_rate": -0.1}}),
        ("learning_rate", {"hyperparameters": {"learning_rate": np.nan}}),
        ("rho", {"optimizer": sam, "hyperparameters": {"learning_rate": 0.1, "rho": -1.0}}),
        ("rho", {"optimizer": sam, "hyperparameters": {"learning_rate": 0.1, "rho": np.asarray([0.1, 0.2])}}),
        ("num_steps", {"num_steps": 0}),
        ("num_snapshots", {"num_snapshots": 1}),
        ("snapshots", {"snapshots": np.asarray([3, 2])}),
        ("snapshots", {"snapshots": np.asarray([0, 500])}),
        ("snapshots", {"snapshots": np.asarray([0.5, 1.5])}),
    ],
)
def test_impossible_settings_are_refused(field, settings):
    loss, params = make_loss(MODEL, spectrum_mixture([0.5, 0.3, 0.2]))
    with pytest.raises(InputError) as error:
        train(loss, params, **({"hyperparameters": {"learning_rate": 0.1}, "num_steps": 50} | settings))
    assert error.value.field == field


def test_batches_need_a_common_axis():
    loss, _ = make_loss(MODEL, spectrum_mixture([0.5, 0.3, 0.2]))
    with pytest.raises(InputError, match="leading axis"):
        train_many(loss, {"a": jnp.zeros(3), "b": jnp.zeros(2)}, hyperparameters={"learning_rate": 0.1}, num_steps=2)
    with pytest.raises(InputError, match="one for each of 3 runs"):
        train_many(loss, {"a": jnp.zeros(3)}, hyperparameters={"learning_rate": [0.1, 0.2]}, num_steps=2)
    with pytest.raises(InputError, match="params"):
        train(loss, {}, hyperparameters={"learning_rate": 0.1}, num_steps=2)


def test_a_blow_up_between_snapshots_is_seen():
    """A loss that climbs out of bounds and comes back before the next snapshot is a divergence all the same."""
    hill = lambda params: params["height"] + 1e5 * jnp.exp(-((params["place"] - 5.0) ** 2))  # noqa: E731

    def walk(learning_rate):
        ones = lambda grads: jax.tree.map(jnp.ones_like, grads)  # noqa: E731
        return optax.chain(optax.stateless(lambda grads, _: ones(grads)), optax.scale(learning_rate))

    start = {"height": jnp.asarray(0.1), "place": jnp.asarray(0.0)}
    with pytest.raises(DivergenceError) as error:
        train(hill, start, optimizer=walk, hyperparameters={"learning_rate": 1.0}, num_steps=10, num_snapshots=2)
    assert error.value.step == 3


def test_zero_loss_and_static_options_are_no_trouble():
    quadratic = lambda params: jnp.sum(params**2)  # noqa: E731
    at_rest = train(quadratic, jnp.zeros(3), hyperparameters={"learning_rate": 0.1}, num_steps=10)
    assert np.array_equal(at_rest.loss, np.zeros_like(at_rest.loss))
    nesterov = functools.partial(optax.sgd, momentum=0.5, nesterov=True)
    run = train(quadratic, jnp.ones(3), optimizer=nesterov, hyperparameters={"learning_rate": 0.1}, num_steps=50)
    assert run.loss[-1] < 1e-6
    with pytest.raises(InputError, match="not finite at the initial parameters"):
        train(quadratic, jnp.full(3, jnp.nan), hyperparameters={"learning_rate": 0.1}, num_steps=10)


def test_what_the_optimizer_cannot_take_is_named():
    loss, params = make_loss(MODEL, spectrum_mixture([0.5, 0.3, 0.2]))
    for optimizer, hyperparameters in ((gd, {"lr": 1.0}), (sam, {"learning_rate": 0.1}), (gd, {"learning_rate": "a"})):
        with pytest.raises(InputError, match="hyperparameters"):
            train(loss, params, optimizer=optimizer, hyperparameters=hyperparameters, num_steps=2)
    untracked = train(loss, params, hyperparameters={"learning_rate": 0.1}, num_steps=2)
    with pytest.raises(InputError, match="EffectiveMatrix"):
        untracked.trajectory(find_features(spectrum_mixture([0.5, 0.3, 0.2])))


def test_schedules():
    assert snapshot_schedule(10, 11).tolist() == list(range(11))
    assert snapshot_schedule(3, 50).tolist() == [0, 1, 2, 3]
