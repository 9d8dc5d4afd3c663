"""Predictions against one another, against automatic differentiation and against training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close
from hypothesis import given
from hypothesis import strategies as st

from icl_theory import (
    AlignedClosedForm,
    AlignedDescent,
    AlignedFlow,
    Ascent,
    InputError,
    MergedAttention,
    MergedFlow,
    MergedLogistic,
    TaskDistribution,
    TaskMixture,
    compare,
    find_features,
    gd,
    hitting_time,
    learning_times,
    linear_spectrum,
    make_loss,
    nested_plateau_losses,
    plateau_loss,
    population_force,
    population_loss,
    population_moments,
    power_law_spectrum,
    random_basis,
    sam,
    unnormalised_sam,
    white_spectrum,
)
from icl_theory.theory import aligned_dynamics as aligned
from icl_theory.theory import gradient_flow as flow
from icl_theory.theory.fixed_points import fixed_point_strengths, isotropic_task_gain, subsets
from icl_theory.theory.gradient_flow import tolerance
from icl_theory.theory.hitting_time import antiderivative
from icl_theory.theory.sam_dynamics import (
    first_learning_time,
    stable_learning_rate,
    stall_strengths,
    trap_radius,
    two_phase_ratio,
)
from icl_theory.training.run import snapshot_schedule
from icl_theory.verification.claims.dynamics import train_aligned

TWO = find_features(TaskMixture.single([2.0, 1.0], num_context=31))
START = np.full(2, 0.05)


def random_mixture(seed):
    rng = np.random.default_rng(seed)
    basis = random_basis(jax.random.key(seed), 3)
    groups = [
        TaskDistribution.create(
            rng.uniform(0.1, 2.0, 3),
            num_context=int(rng.integers(1, 40)),
            task_eigenvalues=rng.uniform(0.1, 2.0, 3),
            noise_std=rng.uniform(0.0, 1.0),
            basis=basis,
            count_query=index == 1,
        )
        for index in range(2)
    ]
    share = rng.uniform(0.1, 0.9)
    return TaskMixture.create(groups, [share, 1 - share])


@given(st.integers(0, 10_000))
def test_force_is_minus_half_the_gradient_and_vanishes_at_the_optimum(seed):
    mixture = random_mixture(seed)
    moments = population_moments(mixture)
    matrix = jax.random.normal(jax.random.key(seed), (3, 3))
    assert_close(population_force(matrix, moments), -0.5 * jax.grad(population_loss)(matrix, moments), rtol=1e-11)
    features = find_features(mixture)
    optimum = (features.directions * features.optimum) @ features.directions.T
    assert_close(np.max(np.abs(population_force(optimum, moments))) + 1.0, 1.0, rtol=1e-12)
    assert_close(population_loss(optimum, moments), nested_plateau_losses(features)[-1], rtol=1e-11)


@given(st.integers(0, 10_000))
def test_population_loss_of_a_diagonal_matrix_is_the_features_loss(seed):
    mixture = random_mixture(seed)
    features = find_features(mixture)
    strength = np.random.default_rng(seed).normal(size=3)
    matrix = (features.directions * strength) @ features.directions.T
    assert_close(population_loss(matrix, population_moments(mixture)), features.loss(strength), rtol=1e-11)
    assert_close(features.strength(matrix), strength, rtol=1e-11)
    assert np.all(np.diff(features.drive) <= 1e-12)


def test_features_of_white_inputs_follow_the_task_prior(key):
    basis = random_basis(key, 3)
    mixture = TaskMixture.single(white_spectrum(3), num_context=9, task_eigenvalues=[1.0, 3.0, 2.0], basis=basis)
    features = find_features(mixture)
    assert_close(features.drive, np.asarray([3.0, 2.0, 1.0]) / 9, rtol=1e-10)
    assert_close(np.abs(features.directions.T @ basis[:, [1, 2, 0]]), np.eye(3), rtol=1e-10)


def test_groups_without_a_common_eigenbasis_have_no_features(key):
    groups = [
        TaskDistribution.create([2.0, 1.0], num_context=9),
        TaskDistribution.create([2.0, 1.0], num_context=9, basis=random_basis(key, 2)),
    ]
    with pytest.raises(InputError, match="eigenbasis"):
        find_features(TaskMixture.create(groups, [0.5, 0.5]))


def test_plateaus(mixture):
    features = find_features(mixture)
    assert len(list(subsets(4))) == 16
    assert_close(features.gain, isotropic_task_gain(linear_spectrum(4), 31), rtol=1e-12)
    for m, level in enumerate(nested_plateau_losses(features)):
        assert_close(level, plateau_loss(features, range(m)))
        assert_close(level, features.loss(fixed_point_strengths(features, range(m))))
    with pytest.raises(InputError, match="subset"):
        plateau_loss(features, [4])
    with pytest.raises(InputError, match="subset"):
        plateau_loss(features, [1, 1])


def test_antiderivative_has_the_stated_derivative():
    z = np.linspace(0.01, 0.99, 50)
    step = 1e-6
    slope = (antiderivative(z + step * z) - antiderivative(z - step * z)) / (2 * step * z)
    assert np.allclose(slope, 1.0 / (z**2 * (1 - z**3)), rtol=1e-6)


def test_hitting_time_is_where_the_closed_form_gets_there():
    times = hitting_time(0.5, drive=TWO.drive, optimum=TWO.optimum, start=START)
    reached = AlignedClosedForm(TWO, START).predict(times)
    assert_close(np.diagonal(reached.strength), 0.5 * TWO.optimum, rtol=1e-10)
    assert np.all(hitting_time(0.5, drive=TWO.drive, optimum=TWO.optimum, start=np.cbrt(TWO.optimum)) == 0)
    for bad in ({"fraction": 1.5}, {"start": np.zeros(2)}):
        arguments = {"fraction": 0.5, "start": START} | bad
        with pytest.raises(InputError):
            hitting_time(arguments["fraction"], drive=TWO.drive, optimum=TWO.optimum, start=arguments["start"])


@pytest.mark.parametrize(("x64", "stiff", "bound"), [(True, False, 1e-8), (True, True, 1e-8), (False, False, 1e-4)])
def test_flow_tolerance_is_justified_by_the_closed_form(x64, stiff, bound, monkeypatch):
    """At the solver's tolerance the flow meets a fixed bound; in float64 a hundred times looser one does not."""
    with jax.enable_x64(x64):
        time = np.linspace(0.0, 14.0, 200)
        exact = AlignedClosedForm(TWO, START).predict(time)
        comparison = compare(AlignedFlow(TWO, START, stiff=stiff), exact)
        assert comparison.strength < bound
        assert comparison.compared == 200
        if x64:
            monkeypatch.setattr(flow, "tolerance", lambda: 1e-8)
            assert compare(AlignedFlow(TWO, START, stiff=stiff), exact).strength > bound


def test_descent_approaches_its_flow_with_slope_one():
    time = np.linspace(0.0, 14.0, 141)
    smooth = AlignedFlow(TWO, START).predict(time)
    rates = np.asarray([0.01, 0.005, 0.0025])
    errors = [
        np.max(np.abs(AlignedDescent(TWO, START, rate).predict(time).strength - smooth.strength)) for rate in rates
    ]
    assert abs(np.polyfit(np.log(rates), np.log(errors), 1)[0] - 1.0) < 0.1


@pytest.mark.parametrize(
    ("optimizer", "extra", "ascent"),
    [
        (gd, {}, Ascent()),
        (sam, {"rho": 0.04}, Ascent(0.04)),
        (unnormalised_sam, {"rho": 0.02}, Ascent(0.02, normalised=False)),
    ],
)
def test_full_model_follows_the_reduced_map(optimizer, extra, ascent, key):
    mixture = TaskMixture.single([2.0, 1.0], num_context=31, basis=random_basis(key, 2), noise_std=0.3)
    features = find_features(mixture)
    steps = snapshot_schedule(900, 90)
    measured = train_aligned(
        mixture, START, optimizer=optimizer, hyperparameters={"learning_rate": 5e-3, **extra}, steps=steps
    )
    comparison = compare(AlignedDescent(features, START, 5e-3, ascent), measured)
    assert comparison.strength < 1e-12
    assert comparison.loss < 1e-12
    assert measured.strength[-1, 0] > 1e3 * measured.strength[0, 0]


def test_sam_flow_stops_where_every_feature_is_learned():
    smooth = AlignedFlow(TWO, START, Ascent(0.04)).predict(np.linspace(0.0, 60.0, 601))
    known = np.isfinite(smooth.loss)
    assert known[:100].all()
    assert not known[-1]
    assert np.all(np.diff(smooth.strength[known], axis=0) > -1e-6)


def test_merged_predictions_from_the_initial_weights_alone():
    for spectrum, predictor in ((white_spectrum(3), MergedLogistic), (linear_spectrum(3), MergedFlow)):
        mixture = TaskMixture.single(spectrum, num_context=20)
        features = find_features(mixture)
        start = 0.05
        time = np.linspace(0.0, 25.0, 100)
        prediction = predictor(features, start).predict(time)
        assert_close(prediction.strength[0], start**2 * features.drive / np.linalg.norm(features.drive), rtol=1e-9)
        assert prediction.strength[-1, 0] > 0.9 * features.optimum[0]
        if predictor is MergedLogistic:
            assert compare(MergedFlow(features, start), prediction).strength < 100 * tolerance()
    with pytest.raises(InputError, match="white"):
        MergedLogistic(features, start).predict(time)


def test_the_stiff_flow_computes_in_float64_in_any_session():
    time = np.linspace(0.0, 10.0, 5)
    flow = AlignedFlow(TWO, START, Ascent(0.04), stiff=True)
    double = flow.predict(time)
    with jax.enable_x64(False):
        single = flow.predict(time)
    assert np.isfinite(single.strength).all()
    np.testing.assert_array_equal(single.strength, double.strength)
    assert compare(flow._replace(stiff=False), double).strength < 1e-7


def test_merged_head_that_starts_balanced_follows_its_flow():
    mixture = TaskMixture.single(linear_spectrum(3), num_context=20)
    features = find_features(mixture)
    loss, _ = make_loss(MergedAttention(3, 1, rngs=nnx.Rngs(0)), mixture)
    unit = (features.directions * features.drive / np.linalg.norm(features.drive)) @ features.directions.T
    params = {"value": jnp.asarray([0.1]), "merged": jnp.asarray(0.1 * unit)[None]}
    from icl_theory import EffectiveMatrix, train

    run = train(
        loss, params, hyperparameters={"learning_rate": 1e-3}, num_steps=20_000, track=EffectiveMatrix(loss.graphdef)
    )
    assert compare(MergedFlow(features, 0.1), run.trajectory(features)).strength < 2e-3


def test_readings_of_the_reduced_system():
    assert_close(two_phase_ratio(0.25, 0.0), 4.0)
    assert np.isnan(two_phase_ratio(0.25, 0.9))
    assert_close(first_learning_time(4.0, 0.05, 0.0), 2.5)
    assert_close(trap_radius(np.asarray([0.03, 0.04])), np.sqrt(3) * 0.05)
    stall = stall_strengths(np.asarray([4.0, 1.0]), 0.3)
    assert_close(stall[1] / stall[0], 4.0)
    assert_close(np.linalg.norm(stall), 0.3 / np.sqrt(3))
    with pytest.raises(InputError, match="alpha"):
        two_phase_ratio(2.0, 0.1)


def test_stall_is_a_rest_point_of_sam():
    from icl_theory.theory.aligned_dynamics import velocity

    stall = stall_strengths(TWO.drive, 0.02)
    speed = velocity(jnp.asarray(stall), TWO.drive, TWO.curvature, Ascent(0.02))
    free = velocity(jnp.asarray(stall), TWO.drive, TWO.curvature, Ascent())
    assert np.max(np.abs(speed)) < 1e-6 * np.max(np.abs(free))


def test_stable_learning_rate_without_sam_is_that_of_gradient_descent():
    """At ρ = 0 it is 2 over the curvature 6 a u* of the reduced system at its minimum."""
    u = float(np.cbrt(TWO.optimum[0]))
    assert_close(stable_learning_rate(TWO, 0.0, 0.1), 2.0 / (6.0 * TWO.drive[0] * u))
    assert stable_learning_rate(TWO, 0.05, 0.1) < stable_learning_rate(TWO, 0.02, 0.1)


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("start", lambda: AlignedFlow(TWO, np.ones(3)).predict(np.linspace(0, 1, 3))),
        ("start", lambda: AlignedFlow(TWO, -START).predict(np.linspace(0, 1, 3))),
        ("rho", lambda: AlignedFlow(TWO, START, Ascent(-1.0)).predict(np.linspace(0, 1, 3))),
        ("time", lambda: AlignedDescent(TWO, START, 0.1).predict(np.asarray([0.05]))),
        ("start", lambda: MergedFlow(TWO, 0.0).predict(np.linspace(0, 1, 3))),
        ("learning_rate", lambda: AlignedDescent(TWO, START, 0.0).predict(np.asarray([0.0]))),
    ],
)
def test_impossible_predictions_are_refused(field, call):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.field == field


@pytest.mark.parametrize("change", [-1.0, 10.0])
def test_the_rounding_unit_of_the_map_does_not_choose_its_outcome(change, monkeypatch):
    """SAM beyond its oscillation, eight features: learning times with the unit reversed or ten times larger, to half a
    per cent.
    """
    features = find_features(TaskMixture.single(power_law_spectrum(8, 1.0), num_context=127))
    time = np.arange(0, 4000, 2.0)

    def times():
        found = AlignedDescent(features, np.full(8, 0.4), 0.5, Ascent(0.3)).predict(time)
        return learning_times(found.time, found.strength / features.optimum)

    plain = times()
    assert np.isfinite(plain).all()
    monkeypatch.setattr(aligned, "ROUNDING_UNITS", change)
    jax.clear_caches()
    changed = times()
    monkeypatch.undo()
    jax.clear_caches()
    assert np.any(changed != plain)
    np.testing.assert_allclose(changed, plain, rtol=5e-3)
