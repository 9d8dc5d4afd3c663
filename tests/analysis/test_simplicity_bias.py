"""Learning times, plateaus, measures of simplicity bias and intervals."""

import numpy as np
import pytest
from helpers import assert_close

from icl_theory import (
    AlignedFlow,
    InputError,
    TaskMixture,
    Trajectory,
    compare,
    find_features,
    find_plateaus,
    hitting_time,
    learning_times,
    median_interval,
    nested_plateau_losses,
    simplicity_bias,
)
from icl_theory.analysis.plateaus import level_between
from icl_theory.analysis.trajectory import relative_error

FEATURES = find_features(TaskMixture.single([2.0, 1.0], num_context=31))


def flow(start, stop, count=4000):
    return AlignedFlow(FEATURES, np.full(2, start)).predict(np.linspace(0.0, stop, count))


def test_learning_times_interpolate_and_know_never():
    time = np.asarray([0.0, 1.0, 2.0, 3.0])
    fraction = np.asarray([[0.0, 0.6, 0.0], [0.25, 0.7, 0.1], [0.75, 0.8, 0.2], [1.0, 1.0, 0.3]])
    assert learning_times(time, fraction).tolist() == [1.5, 0.0, np.inf]
    assert_close(learning_times(time, fraction[None], threshold=0.25)[0], [1.0, 0.0, 2.5])


def test_learning_times_of_a_flow_are_the_closed_form():
    trajectory = flow(0.05, 15.0)
    measured = simplicity_bias(trajectory, FEATURES).times
    exact = hitting_time(0.5, drive=FEATURES.drive, optimum=FEATURES.optimum, start=np.full(2, 0.05))
    assert np.allclose(measured, exact, rtol=1e-4)


def test_measures_of_simplicity_bias_on_a_made_up_run():
    time = np.linspace(0.0, 10.0, 1001)
    strength = np.clip(np.stack([time / 4.0, time / 16.0], axis=-1), 0.0, 1.0) * FEATURES.optimum
    bias = simplicity_bias(Trajectory(time, np.zeros_like(time), strength), FEATURES)
    assert_close(bias.times, [2.0, 8.0], rtol=1e-9)
    assert_close(bias.ratios, [1.0, 4.0], rtol=1e-9)
    assert_close(bias.progress, [0.5, 0.125], rtol=1e-9)
    assert bias.rank_agreement == 1.0
    assert bias.order.tolist() == [0, 1]
    swapped = (strength / FEATURES.optimum)[:, ::-1] * FEATURES.optimum
    backwards = simplicity_bias(Trajectory(time, np.zeros_like(time), swapped), FEATURES)
    assert backwards.rank_agreement == -1.0


def test_a_run_that_never_learns_has_no_ratios():
    time = np.linspace(0.0, 1.0, 10)
    bias = simplicity_bias(Trajectory(time, np.ones(10), np.zeros((3, 10, 2))), FEATURES)
    assert np.isinf(bias.times).all()
    assert np.isnan(bias.ratios).all()
    assert np.isnan(bias.progress).all()


def test_plateaus_are_found_at_their_levels():
    trajectory = flow(0.01, 120.0)
    found = find_plateaus(trajectory.time, trajectory.loss)
    assert len(found) == 3
    assert_close([plateau.level for plateau in found], nested_plateau_losses(FEATURES), rtol=5e-3)
    times = simplicity_bias(trajectory, FEATURES).times
    assert found[0].stop < times[0] < found[1].start < found[1].stop < times[1] < found[2].start
    level = level_between(trajectory.time, trajectory.loss, times[0], times[1])
    assert_close(level, nested_plateau_losses(FEATURES)[1], rtol=5e-3)


def test_a_flat_curve_is_one_plateau():
    (plateau,) = find_plateaus(np.linspace(0, 10, 50), np.full(50, 0.7))
    assert_close(plateau.level, 0.7)


def test_median_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        _, low, high = median_interval(rng.exponential(size=31), confidence=0.9)
        hits += low <= np.log(2) <= high
    assert 0.9 - 3 * np.sqrt(0.09 / 2000) < hits / 2000 < 0.97
    median, low, high = median_interval(np.asarray([1.0, 2.0, np.inf, np.nan, 1.5, 1.2]))
    assert (median, low, high) == (1.75, 1.0, np.inf)
    assert median_interval(np.asarray([1.0, 2.0]))[1:] == (-np.inf, np.inf)
    assert np.isnan(median_interval(np.zeros(0))).all()
    assert np.isnan(median_interval(np.full(9, np.nan))).all()


def test_compare_needs_common_times_and_sees_deviations():
    trajectory = flow(0.05, 5.0, 50)
    off = trajectory._replace(strength=trajectory.strength * 1.01)
    assert_close(compare(off, trajectory).strength, 0.01, rtol=1e-9)
    assert compare(trajectory, trajectory) == (0.0, 0.0, 50)
    with pytest.raises(InputError, match="time"):
        compare(trajectory, trajectory._replace(time=trajectory.time + 1))
    partly = trajectory._replace(loss=np.where(trajectory.time < 1.0, trajectory.loss, np.nan))
    assert compare(partly, trajectory).loss == np.inf
    with pytest.raises(InputError, match="share no time"):
        compare(trajectory._replace(loss=np.full(50, np.nan)), trajectory)


@pytest.mark.parametrize("threshold", [0.0, 1.5, np.nan])
def test_thresholds_outside_the_unit_interval_are_refused(threshold):
    with pytest.raises(InputError, match="threshold"):
        learning_times(np.arange(3.0), np.zeros((3, 1)), threshold=threshold)
    with pytest.raises(InputError, match="fraction"):
        learning_times(np.arange(3.0), np.zeros((4, 1)))


def test_errors_of_times_that_are_never_reached():
    measured = np.array([1.1, np.inf, np.inf, 2.0, np.nan, 2.0])
    predicted = np.array([1.0, np.inf, 2.0, np.inf, np.inf, np.nan])
    np.testing.assert_allclose(relative_error(measured, predicted), [0.1, 0.0, np.inf, np.inf, np.nan, np.nan])
