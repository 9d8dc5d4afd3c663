"""Adam, sign descent and Muon on aligned heads: speeds in closed form, and reduced maps against training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from optax.contrib import scale_by_muon

import icl_theory as icl
from icl_theory.errors import InputError
from icl_theory.tasks.features import find_group_features
from icl_theory.theory import aligned_muon
from icl_theory.theory.adaptive_speeds import (
    batch_speed,
    group_speed,
    sign_learning_time,
    signal_speed,
    stationary_speed,
    upsampling_exponent,
)
from icl_theory.theory.aligned_adam import AlignedAdam, adam_direction, example_moments
from icl_theory.theory.aligned_dynamics import Ascent
from icl_theory.theory.aligned_muon import AlignedMuon, held_counts, orthogonalised
from icl_theory.training.muon import muon
from icl_theory.training.sam import sam

RATE, START = 1e-3, np.full(2, 0.05)
TIME = np.arange(1501) * RATE


def two_groups(late=0.02, factor=1.0):
    """λ = 2 known to the early group, λ = 1 to the late one, whose share is `late` before upsampling."""
    parts = [icl.TaskDistribution.create(np.array(spectrum), num_context=31) for spectrum in ([2.0, 0.0], [0.0, 1.0])]
    shares = np.array([1.0 - late, late * factor])
    return icl.TaskMixture.create(parts, shares / shares.sum())


def times(trajectory, optimum):
    return icl.learning_times(trajectory.time, trajectory.strength / optimum)


def ratio_of(groups, duration, **settings):
    """t_2/t_1 of the reduced map."""
    time = np.arange(0, round(duration / RATE) + 1, 2) * RATE
    late = times(AlignedAdam(groups, START, RATE, **settings).predict(time), groups.upsampled().optimum)
    return late[1] / late[0]


def trained(optimizer, **extra):
    mixture = two_groups()
    features = icl.find_features(mixture)
    loss, _ = icl.make_loss(icl.SeparateAttention(2, 2, rngs=nnx.Rngs(0)), mixture)
    run = icl.train(
        loss,
        icl.aligned_parameters(START, features.directions),
        optimizer=optimizer,
        hyperparameters={"learning_rate": RATE, **extra},
        num_steps=1500,
        num_snapshots=1501,
        track=icl.EffectiveMatrix(loss.graphdef),
    )
    return run.trajectory(features), features


def simulated(share, batch, runs, steps, rate=RATE, start=0.05, noise=0.0, seed=0, b2=0.999):
    """Adam, written out, on u̇ of two features whose groups are drawn: median t_2/t_1."""
    draw, rates = np.random.default_rng(seed), np.array([2.0, 1.0])
    drive, curvature = rates**2, rates**3 * (1 + 2 / 31)
    u, m, v = np.full((runs, 2), start), np.zeros((runs, 2)), np.zeros((runs, 2))
    found = np.full((runs, 2), np.nan)
    for step in range(1, steps + 1):
        late = draw.binomial(batch, share, runs) / batch if batch else np.full(runs, share)
        g = np.stack([1 - late, late], axis=1) * 2 * u**2 * (drive - curvature * u**3)
        g = g + noise * draw.normal(size=g.shape)
        m, v = 0.9 * m + 0.1 * g, b2 * v + (1 - b2) * g * g
        u = u + rate * m / (1 - 0.9**step) / (np.sqrt(v / (1 - b2**step)) + 1e-8)
        found = np.where(np.isnan(found) & (u**3 >= 0.5 * drive / curvature), step, found)
    assert np.isfinite(found).all()
    return np.median(found[:, 1] / found[:, 0])


def test_adam_in_training_is_the_reduced_map():
    measured, features = trained(optax.adam)
    predicted = AlignedAdam(find_group_features(two_groups()), START, RATE).predict(TIME)
    np.testing.assert_allclose(predicted.strength, measured.strength, rtol=1e-12)
    np.testing.assert_allclose(predicted.loss, measured.loss, rtol=1e-12)
    assert times(measured, features.optimum)[1] < 0.5


def test_sam_before_adam_in_training_is_the_reduced_map():
    measured, features = trained(partial(sam, base=optax.adam), rho=0.06)
    predicted = AlignedAdam(find_group_features(two_groups()), START, RATE, ascent=Ascent(0.06)).predict(TIME)
    plain = AlignedAdam(find_group_features(two_groups()), START, RATE).predict(TIME)
    learned = slice(0, round(times(measured, features.optimum).max() / RATE))
    np.testing.assert_allclose(predicted.strength[learned], measured.strength[learned], rtol=1e-9)
    assert np.abs(plain.strength - measured.strength)[learned].max() > 0.01


def test_muon_in_training_is_the_reduced_map_until_both_are_learned():
    """Beyond, at the optimum, the iteration is chaotic and rounding grows."""
    for momentum in (0.0, 0.95):
        measured, features = trained(muon, momentum=momentum)
        predicted = AlignedMuon(find_group_features(two_groups()), START, RATE, momentum).predict(TIME)
        learned = slice(0, round(times(measured, features.optimum).max() / RATE))
        np.testing.assert_allclose(predicted.strength[learned], measured.strength[learned], rtol=1e-9)


def test_sign_descent_learns_at_the_closed_form_whatever_rho():
    for optimizer, extra in ((optax.sign_sgd, {}), (partial(sam, base=optax.sign_sgd), {"rho": 0.2})):
        measured, features = trained(optimizer, **extra)
        predicted = sign_learning_time(0.5, optimum=features.optimum, start=START)
        np.testing.assert_allclose(times(measured, features.optimum), predicted, atol=2 * RATE)


def test_orthogonalised_singular_values_are_those_of_the_matrix_iteration():
    values = np.array([3.0, 1.0, 0.02, 1e-5])
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    plain, matrix = scale_by_muon(beta=0.0, nesterov=False), jnp.asarray(turn * values)
    found, _ = plain.update(matrix, plain.init(matrix))
    np.testing.assert_allclose(turn.T @ found, np.diag(orthogonalised(values)), atol=1e-9)


@pytest.mark.parametrize(("share", "batch"), [(0.02, 32), (0.1, 4), (0.05, 8)])
def test_adam_in_batches_of_groups_agrees_with_simulation(share, batch):
    assert share * batch > 0.3
    found = simulated(share, batch, runs=32, steps=1800)
    predicted = ratio_of(find_group_features(two_groups(share)), 1.8, batch_size=batch)
    assert abs(np.log(found / predicted)) < 0.05
    assert found > 1.1 * ratio_of(find_group_features(two_groups(share)), 1.8)  # full batch


def simulated_muon(share, batch, runs, steps, momentum=0.95, seed=0):
    """Muon on diagonal keys, written out with singular values by optax's iteration: median t_2/t_1."""
    draw, drive, curvature = np.random.default_rng(seed), np.array([4.0, 1.0]), np.array([8.0, 1.0]) * (1 + 2 / 31)
    plain = scale_by_muon(beta=0.0, nesterov=False)
    turned = jax.jit(jax.vmap(lambda row: jnp.diag(plain.update(jnp.diag(row), plain.init(jnp.diag(row)))[0])))
    k = np.full((runs, 2), 0.05)
    value, trace, m, v = k.copy(), 0 * k, 0 * k, 0 * k
    found = np.full((runs, 2), np.nan)
    for step in range(1, steps + 1):
        late = draw.binomial(batch, share, runs) / batch
        share_now = np.stack([1 - late, late], axis=1)
        residual = drive - curvature * value * k * k
        g, slope = (share_now * 2 * each * k * residual for each in (value, k))
        trace = momentum * trace + (1 - momentum) * g
        ahead = momentum * trace / (1 - momentum ** (step + 1)) + (1 - momentum) * g / (1 - momentum**step)
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope * slope
        k = k + RATE * np.asarray(turned(jnp.asarray(ahead)))
        value = value + RATE * m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        found = np.where(np.isnan(found) & (value * k * k >= 0.5 * drive / curvature), step, found)
    assert np.isfinite(found).all()
    return np.median(found[:, 1] / found[:, 0])


def test_muon_in_batches_of_groups_agrees_with_simulation():
    groups, time = find_group_features(two_groups()), np.arange(0, 2801, 2) * RATE
    optimum = groups.upsampled().optimum
    full, small = (
        times(AlignedMuon(groups, START, RATE, batch_size=batch).predict(time), optimum) for batch in (None, 1)
    )
    found = simulated_muon(0.02, 1, runs=24, steps=2800)
    assert abs(np.log(found * small[0] / small[1])) < 0.12
    assert found > 1.3 * full[1] / full[0]


def test_upsampling_acts_under_muon_in_full_batches_by_its_iteration_alone(monkeypatch):
    def change():
        found = []
        for factor in (1.0, 16.0):
            groups = find_group_features(two_groups(0.02, factor))
            early, late = times(AlignedMuon(groups, START, RATE).predict(TIME), groups.upsampled().optimum)
            found.append(late / early)
        return abs(np.log(found[1] / found[0]))

    assert 0.1 < change() < 0.25
    step = aligned_muon._muon_step
    monkeypatch.setattr(aligned_muon, "orthogonalised", jnp.sign)
    monkeypatch.setattr(aligned_muon, "_muon_step", lambda *given: step(*given))  # compiled anew
    assert change() < 1e-5


def test_held_counts_have_the_momentums_mean_and_variance():
    shares, momentum = np.array([0.9, 0.1]), 0.8
    found = held_counts(shares, 5, momentum, histories=20_000, seed=3)
    weights = momentum * (1 - momentum) * momentum ** np.arange(100)
    weights[0] += 1 - momentum
    np.testing.assert_allclose(found.mean(axis=0), 1.0, atol=0.02)
    np.testing.assert_allclose(found.var(axis=0), np.sum(weights**2) * (1 - shares) / (5 * shares), rtol=0.05)
    np.testing.assert_allclose(held_counts(shares, 5, 0.0, histories=50) * 5 * shares % 1 % (1 - 1e-9), 0, atol=1e-9)


def test_adam_with_noise_of_all_examples_agrees_with_simulation():
    mixture = two_groups(0.1)
    batch = 10**6  # the noise of groups is gone
    found = simulated(0.1, 0, runs=32, steps=10_000, start=0.3, noise=0.3)
    time = np.arange(0, 10_001, 2) * RATE
    groups = find_group_features(mixture)
    predicted = AlignedAdam(groups, np.full(2, 0.3), RATE, batch_size=batch, noise=0.3 * batch**0.5).predict(time)
    late = times(predicted, groups.upsampled().optimum)
    assert abs(np.log(found / (late[1] / late[0]))) < 0.1


def test_example_moments_are_those_of_gradients():
    """Against the loss of every example, differentiated with respect to u_d, one group a feature."""
    prompts = icl.sample_prompts(two_groups(0.3), 50, key=jax.random.key(2))
    weight = np.random.default_rng(0).uniform(0.5, 2.0, 50)
    rows = icl.compress(prompts, blocks="reduced").replace(weight=jnp.asarray(weight))
    groups, examples = example_moments(rows, np.eye(2))
    u = jnp.asarray([0.4, 0.7])
    third = jax.jacfwd(lambda u: rows.losses(jnp.diag(u**3).ravel()))(u) / 3  # v, k and q have a third each
    for index in range(2):
        chosen = np.asarray(rows.group) == index
        mean, square = (np.average(values[chosen, index], weights=weight[chosen]) for values in (third, third**2))
        a, c, (m0, m1, m2) = groups.drive[index, index], groups.curvature[index, index], examples[index, index]
        assert -2 * u[index] ** 2 * (a - c * u[index] ** 3) == pytest.approx(mean, rel=1e-9)
        polynomial = m0 - 2 * m1 * u[index] ** 3 + m2 * u[index] ** 6
        assert 4 * u[index] ** 4 * polynomial == pytest.approx(square, rel=1e-9)
        assert groups.shares[index] == pytest.approx(weight[chosen].sum() / weight.sum())


def test_upsampling_changes_the_ratio_of_small_batches_only():
    def change(batch):
        plain, more = (ratio_of(find_group_features(two_groups(0.02, k)), 4.0, batch_size=batch) for k in (1.0, 4.0))
        return np.log(plain / more) / np.log(4.0)

    assert abs(change(None)) < 0.02
    assert 0.4 < change(1) < 0.6


def moved(sizes, chances, b2, steps=200_000, seed=1):
    """Mean step of Adam on independent gradients, and its standard error, from blocks longer than its memory."""
    gradients = np.random.default_rng(seed).choice(sizes, size=steps, p=chances)
    m, v, found = 0.0, np.mean(np.square(gradients)), np.empty(steps)
    for step, g in enumerate(gradients):
        m, v = 0.9 * m + 0.1 * g, b2 * v + (1 - b2) * g * g
        found[step] = m / np.sqrt(v)
    blocks = found.reshape(100, -1).mean(axis=1)[10:]
    return blocks.mean(), blocks.std() / len(blocks) ** 0.5


@pytest.mark.parametrize(
    ("sizes", "chances", "b2"),
    [([0.0, 1.0], [0.98, 0.02], 0.95), ([0.0, 1.0], [0.998, 0.002], 0.99), ([1.0, -0.5, 0.0], [0.3, 0.3, 0.4], 0.95)],
)
def test_stationary_speed_is_that_of_simulated_adam(sizes, chances, b2):
    mean, error = moved(sizes, chances, b2)
    assert abs(stationary_speed(sizes, chances, b2=b2) - mean) < 4 * error
    assert error < 0.1 * abs(mean)


def test_speeds_have_their_limits():
    """A long memory: the square root of the share; events rarer than the memory: the share itself."""
    assert batch_speed(0.02, 4, b2=0.99999) == pytest.approx(group_speed(0.02, 4), rel=1e-3)
    assert group_speed(0.02, 4) == pytest.approx(signal_speed(0.02, 0.02 * 0.98, 4))
    slope = np.log(batch_speed(2e-6, 1, b2=0.99) / batch_speed(1e-6, 1, b2=0.99)) / np.log(2)
    assert slope == pytest.approx(1.0, abs=0.01)
    assert stationary_speed([1.0], [1.0]) == pytest.approx(1.0)
    assert group_speed(0.3, np.inf) == 1.0
    assert group_speed(1.0, 3, optimizer="sign") == 1.0
    assert group_speed(0.5, 2, optimizer="sign") == pytest.approx(0.75)


@pytest.mark.parametrize("optimizer", ["gd", "sign", "adam"])
def test_exponent_is_the_slope_of_the_ratio(optimizer):
    for share, batch in ((0.02, 1), (0.02, 32), (0.3, 4), (0.9, 2)):
        odds = np.log(share / (1 - share)) + np.array([-1e-5, 1e-5])
        late = 1 / (1 + np.exp(-odds))
        speeds = [group_speed(part, batch, optimizer=optimizer) for part in (late, 1 - late)]
        slope = np.diff(np.log(speeds[0] / speeds[1]))[0] / 2e-5
        assert upsampling_exponent(share, batch, optimizer=optimizer) == pytest.approx(slope, abs=1e-6)


def test_adam_direction_is_that_of_optax():
    draw, params = np.random.default_rng(0), jnp.zeros(3)
    adam = optax.adam(1.0)
    state, moments = adam.init(params), (jnp.zeros(3), jnp.zeros(3))
    for step in range(3):
        gradient = jnp.asarray(draw.normal(size=3))
        updates, state = adam.update(gradient, state)
        direction, moments = adam_direction(step, gradient, gradient**2, moments, (0.9, 0.999, 1e-8))
        np.testing.assert_allclose(direction, -updates, rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: group_speed(0.1, 4, optimizer="lion"), "optimizer"),
        (lambda: group_speed(0.0, 4), "share"),
        (lambda: upsampling_exponent(0.1, 0), "batch_size"),
        (lambda: signal_speed(1.0, -1.0, 4), "variance"),
        (lambda: sign_learning_time(0.5, optimum=np.ones(1), start=0.0), "start"),
        (lambda: stationary_speed([1.0], [0.5]), "probabilities"),
        (lambda: stationary_speed([0.0], [1.0]), "probabilities"),
        (lambda: stationary_speed([1.0], [1.0], b2=0.8), "b2"),
        (lambda: batch_speed(0.1, 0), "batch_size"),
        (
            lambda: AlignedAdam(find_group_features(two_groups()), START, RATE, 4, ascent=Ascent(0.1)).predict(TIME),
            "ascent",
        ),
        (lambda: AlignedMuon(find_group_features(two_groups()), START, RATE, 1.0).predict(TIME), "momentum"),
        (lambda: muon(0.1, momentum=-0.1), "momentum"),
        (lambda: signal_speed(np.nan, 1.0, 8), "signal"),
        (lambda: signal_speed(1.0, np.inf, 8), "variance"),
        (lambda: stationary_speed([1.0, np.nan], [0.5, 0.5]), "sizes"),
    ],
)
def test_bad_input_is_named(call, field):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.field == field


@pytest.mark.parametrize(
    ("theory", "field", "settings"),
    [
        (AlignedAdam, "noise", {"noise": np.ones(3), "batch_size": 4}),
        (AlignedAdam, "noise", {"noise": "some", "batch_size": 4}),
        (AlignedAdam, "noise", {"noise": -1.0, "batch_size": 4}),
        (AlignedAdam, "noise", {"noise": [0.0, np.nan], "batch_size": 4}),
        (AlignedAdam, "noise", {"noise": 1.0}),
        (AlignedAdam, "examples", {"examples": np.ones((2, 2)), "batch_size": 4}),
        (AlignedAdam, "examples", {"examples": np.full((2, 2, 3), np.nan), "batch_size": 4}),
        (AlignedAdam, "b1", {"b1": 1.5}),
        (AlignedAdam, "b2", {"b2": 1.0}),
        (AlignedAdam, "eps", {"eps": -1e-8}),
        (AlignedMuon, "decays", {"decays": (0.9,)}),
        (AlignedMuon, "decays", {"decays": 0.9}),
        (AlignedMuon, "b2", {"decays": (0.9, 1.0, 1e-8)}),
    ],
)
def test_a_bad_setting_of_a_reduced_map_is_named(theory, field, settings):
    with pytest.raises(InputError) as error:
        theory(find_group_features(two_groups()), START, RATE, **settings).predict(TIME)
    assert error.value.field == field


def test_a_momentum_of_one_is_told_that_it_is_to_be_less():
    for refused in (
        lambda: muon(0.1, momentum=1.0),
        lambda: AlignedMuon(find_group_features(two_groups()), START, RATE, 1.0).predict(TIME),
    ):
        with pytest.raises(InputError, match=r"momentum = 1.0: give a finite number at least 0 and less than 1$"):
            refused()


def test_example_moments_name_what_they_cannot_take():
    rows = icl.compress(icl.sample_prompts(two_groups(0.3), 50, key=jax.random.key(2)), blocks="reduced")
    for field, given, directions in (
        ("directions", rows, np.eye(3)),
        ("directions", rows, np.full((2, 2), np.nan)),
        ("rows", rows.replace(group=None), np.eye(2)),
        ("rows", rows.replace(weight=np.where(rows.group == 1, 0.0, 1.0)), np.eye(2)),
    ):
        with pytest.raises(InputError) as error:
            example_moments(given, directions)
        assert error.value.field == field
