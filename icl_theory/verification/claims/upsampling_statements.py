"""Statements about upsampling: groups against theory, random starts, single examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from icl_theory.analysis.simplicity_bias import simplicity_bias
from icl_theory.tasks.features import GroupFeatures
from icl_theory.theory.moment_flow import MomentFlow
from icl_theory.theory.upsampling import upsampled_learning_times, upsampled_loss
from icl_theory.upsampling.lateness import late_by_clustering, late_by_quantile
from icl_theory.verification.changes import Change, absolute, log_change, median_change, worst_of
from icl_theory.verification.judging import Reading
from icl_theory.verification.statements import Statements

Pair = tuple[xr.DataArray, xr.DataArray]
FOUND: dict[str, Any] = {"source": "found here", "after_measurement": "found in a first run"}
RANDOM: dict[str, Any] = {"predictor": simplicity_bias, "figure": "upsampling"}
EXAMPLES: dict[str, Any] = {"predictor": late_by_quantile, "figure": "upsampling"}
MOMENTS: dict[str, Any] = {"predictor": MomentFlow, "figure": "upsampling"}

table = Statements("upsampling", source="notes §8")


def _changes(values: xr.DataArray, arm: str, *features: int) -> list[Change]:
    """Return the change of an arm against the first arm for each feature; arms lie along the first dimension."""
    values = values.sel(feature=list(features))
    treated, plain = values.sel({values.dims[0]: arm}), values[0]
    return [log_change(treated[:, d], plain[:, d]) for d in range(len(features))]


def _typical_error(data: xr.Dataset, theory: str) -> np.ndarray:
    """Return the median relative error of predicted learning times over data sets, for each arm and feature."""
    predicted = data.example_predicted_learning_time.sel(theory=theory).values
    return np.median(np.abs(data.example_aligned_learning_time.values / predicted - 1.0), axis=1)


@table.agrees(
    "Two groups with a feature each, aligned: upsampling the slow one by κ divides t_2/t_1 by κ (½ to 8; ½ is the "
    "control, the fast one upsampled)",
    rtol=0.01,
    predictor=upsampled_learning_times,
    figure="upsampling",
)
def upsampling_divides_the_ratio(data: xr.Dataset) -> Pair:
    times = data.pair_learning_time
    return data.pair_predicted_ratio / data.pair_factor, times[:, 1] / times[:, 0]


@table.agrees(
    "Two groups that share four features, aligned: every learning time under κ from ½ to 8 is as predicted",
    rtol=0.01,
    predictor=upsampled_learning_times,
    figure="upsampling",
)
def shared_features_learned_when_predicted(data: xr.Dataset) -> Pair:
    return data.shared_predicted_learning_time, data.shared_learning_time


@table.agrees(
    "Upsampling moves the optimum: after training, all strengths are a_d(κ)/c_d(κ) of the upsampled mixture",
    rtol=1e-3,
    predictor=GroupFeatures,
)
def optimum_moves_as_predicted(data: xr.Dataset) -> Pair:
    return data.shared_optimum, data.shared_strength


@table.agrees(
    "On the original mixture the moved optimum costs what is predicted: its loss above the least one is Σ c_d "
    "(w_d*(κ) − w_d*)²",
    rtol_of_largest=1e-3,
    predictor=upsampled_loss,
    figure="upsampling",
)
def moved_optimum_costs_as_predicted(data: xr.Dataset) -> Pair:
    return data.shared_predicted_excess_loss, data.shared_excess_loss


@table.at_most(
    "Claim C, random starts, a group for each feature: upsampling 3 and 4 by κ = 2 lowers ln(t_d/t_1), d = 3, 4",
    source="abstract, claim C",
    **RANDOM,
)
def late_groups_lower_ratios(data: xr.Dataset) -> list[Change]:
    return _changes(data.learning_time_ratio.sel(groups="separate"), "late × 2", 3, 4)


@table.at_least(
    "Upsampling late groups does more than delay: with κ = 2 features 3 and 4 are further on when the first is "
    "learned (change of w_d/w_d*)",
    source="notes §7",
    **RANDOM,
)
def late_groups_are_further_on(data: xr.Dataset) -> list[Change]:
    progress = data.progress.sel(groups="separate")
    further = progress.sel(upsampled="late × 2") - progress[0]
    return [median_change(further.sel(feature=d)) for d in (3, 4)]


@table.at_least(
    "With a group for each feature, κ = 2 lowers t_d/t_1, d = 3, 4, by less than a factor of 2, which the rule says",
    bound=-float(np.log(2.0)),
    **FOUND | RANDOM,
)
def ratios_fall_less_than_the_rule(data: xr.Dataset) -> list[Change]:
    return late_groups_lower_ratios(data)


@table.at_most(
    "Groups that share all features, random starts: upsampling the minority by κ = 2 lowers ln(t_d/t_1), d = 3, 4",
    source="abstract, claim C",
    **RANDOM,
)
def late_minority_lowers_ratios(data: xr.Dataset) -> list[Change]:
    return _changes(data.learning_time_ratio.sel(groups="sharing"), "late × 2", 3, 4)


@table.at_most(
    "Where groups share features, κ = 2 lowers t_4/t_1 by more than the drives say (change of its ln less the "
    "predicted)",
    **FOUND | RANDOM,
)
def ratio_falls_more_than_drives_say(data: xr.Dataset) -> Change:
    drive = data.drive.sel(groups="sharing")
    ratio = np.log(drive.sel(feature=1) / drive.sel(feature=4))
    predicted = float(ratio.sel(upsampled="late × 2") - ratio[0])
    median, low, high, pairs = late_minority_lowers_ratios(data)[1]
    return Change(median - predicted, low - predicted, high - predicted, pairs)


@table.at_most(
    "In absolute time κ = 2 learns the slowest feature sooner, where SAM learns it later (change of ln t_4, both "
    "cases)",
    **FOUND | RANDOM,
)
def slowest_feature_is_learned_sooner(data: xr.Dataset) -> list[Change]:
    return [change for times in data.learning_time for change in _changes(times, "late × 2", 4)]


@table.at_least("Control: κ = 2 on the early groups does not lower ln(t_d/t_1), d = 3, 4, both cases", **RANDOM)
def early_groups_lower_no_ratio(data: xr.Dataset) -> list[Change]:
    return [change for ratios in data.learning_time_ratio for change in _changes(ratios, "early × 2", 3, 4)]


@table.at_most(
    "The drives of the weighted moments predict each feature's learning time on finite data, aligned starts "
    "(median relative error over data sets, worst arm and feature)",
    bound=0.1,
    **MOMENTS,
)
def drives_predict_learning_times(data: xr.Dataset) -> np.ndarray:
    return _typical_error(data, "drives")


@table.at_most(
    "Couplings between features, which the choice of examples makes, more than halve the errors of t_2, t_3, t_4 "
    "(error with over without, worst)",
    bound=0.5,
    source="derived here (notes §8)",
    **MOMENTS,
)
def couplings_halve_the_errors(data: xr.Dataset) -> np.ndarray:
    """Leave out feature 1, which is learned before any other can act on it."""
    return _typical_error(data, "coupled")[:, 1:] / _typical_error(data, "drives")[:, 1:]


@table.at_most(
    "Claim C, single examples, random starts: the late half upsampled by the ratio rule lowers ln(t_d/t_1), d = 2, 3",
    source="abstract, claim C",
    **EXAMPLES,
)
def late_examples_lower_ratios(data: xr.Dataset) -> Reading:
    changes = _changes(data.example_learning_time_ratio, "late", 2, 3)
    worst, factor = worst_of(changes, upper=True), np.median(data.example_factor.values)
    note = f"median κ = {factor:.2f}; {worst.pairs} runs: median, 99 % interval, the worst of {len(changes)}"
    return Reading(worst.median, interval=(worst.low, worst.high), compared=len(changes), note=note)


@table.at_least(
    "Upsampling late examples does more than delay: features 2 and 3 are further on when the first is learned "
    "(change of w_d/w_d*)",
    source="notes §7",
    **EXAMPLES,
)
def late_examples_bring_features_further_on(data: xr.Dataset) -> list[Change]:
    further = data.example_progress.sel(arm="late") - data.example_progress.sel(arm="plain")
    return [median_change(further.sel(feature=d)) for d in (2, 3)]


@table.at_most(
    "In absolute time upsampling late examples learns features 2 and 3 sooner (change of ln t_d)", **FOUND | EXAMPLES
)
def late_examples_speed_features_up(data: xr.Dataset) -> list[Change]:
    return _changes(data.example_learning_time, "late", 2, 3)


@table.at_most(
    "Control: the same factor on random examples leaves ln(t_d/t_1), d = 2, 3, as it is (|change| below 0.05)",
    bound=0.05,
    **EXAMPLES,
)
def random_examples_hardly_change_ratios(data: xr.Dataset) -> list[Change]:
    return [absolute(change) for change in _changes(data.example_learning_time_ratio, "random", 2, 3)]


@table.at_least(
    "Control: the same factor on the early examples does not lower ln(t_d/t_1), d = 2, 3 (it raises it)", **EXAMPLES
)
def early_examples_lower_no_ratio(data: xr.Dataset) -> list[Change]:
    return _changes(data.example_learning_time_ratio, "early", 2, 3)


@table.at_least(
    "Upsampling the late half moves the best weights of the slow features up, d = 2, 3, 4: change of ln w_d*",
    **FOUND | EXAMPLES,
)
def late_examples_raise_the_optimum(data: xr.Dataset) -> list[Change]:
    return _changes(data.example_optimum, "late", 2, 3, 4)


@table.at_most(
    "The same factor on examples that a threshold or a two-cluster split calls late lowers ln(t_4/t_1)",
    predictor=late_by_clustering,
)
def other_rules_lower_the_ratio(data: xr.Dataset) -> list[Change]:
    return [_changes(data.example_learning_time_ratio, arm, 4)[0] for arm in ("threshold", "clusters")]


@table.at_most(
    "With couplings the weighted moments predict learning times to 1 % (median over data sets, worst arm and feature)",
    bound=0.01,
    source="derived here (notes §8)",
    **MOMENTS,
)
def couplings_predict_learning_times(data: xr.Dataset) -> np.ndarray:
    return _typical_error(data, "coupled")
