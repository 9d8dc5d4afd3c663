"""Statements about SAM by data: aligned starts first, then random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from icl_theory.theory.upsampling import path_matched_factors, two_phase_factor
from icl_theory.training.sam import sam
from icl_theory.upsampling.factor import ratio_factor, sam_equivalent_factor, secant_factor
from icl_theory.verification.changes import Change, log_change, median_change, worst_of
from icl_theory.verification.judging import Reading
from icl_theory.verification.statements import Statements

READING = 0.3  # largest δ at which the closed-form factors are judged
FOUND: dict[str, Any] = {"source": "found here", "after_measurement": "found in a first run"}
RANDOM: dict[str, Any] = {"predictor": ratio_factor, "figure": "sam_by_data"}

table = Statements("sam_by_data", source="notes §8")


def _aligned_ratio(data: xr.Dataset, arm: str, least: float = 0.0, largest: float = np.inf) -> xr.DataArray:
    """Return t_2/t_1 of an arm from aligned starts, for δ in a range."""
    return data.aligned_learning_time_ratio.sel(aligned_arm=arm, delta=slice(least, largest + 1e-9))


def _evaluations(data: xr.Dataset, arm: str) -> xr.DataArray:
    """Return gradient evaluations of an arm for δ > 0, relative to gradient descent on the original data."""
    evaluations = data.aligned_evaluations
    return evaluations.sel(aligned_arm=arm)[1:] / evaluations.sel(aligned_arm="path", delta=0.0)


def _changes(values: xr.DataArray, arm: str, baseline: str, features: tuple[int, ...] = (2, 3, 4)) -> list[Change]:
    """Return the change on a log scale from the baseline to an arm, for each feature."""
    treated, other = values.sel(arm=arm), values.sel(arm=baseline)
    return [log_change(treated.sel(feature=d), other.sel(feature=d)) for d in features]


@table.agrees(
    "Aligned: gradient descent with the path-matched κ has SAM's t_2/t_1, at every δ from 0 to 0.9",
    rtol=0.01,
    predictor=path_matched_factors,
    figure="sam_by_data",
)
def path_matched_factor_gives_sams_ratio(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return _aligned_ratio(data, "path"), _aligned_ratio(data, "sam")


@table.agrees(
    "Aligned: gradient descent with the closed two-phase κ has SAM's t_2/t_1 within 10 %, for δ up to 0.3",
    rtol=0.1,
    source="derived here (notes §8)",
    predictor=two_phase_factor,
    figure="sam_by_data",
)
def two_phase_factor_nearly_gives_sams_ratio(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return _aligned_ratio(data, "two_phase", largest=READING), _aligned_ratio(data, "sam", largest=READING)


@table.at_least(
    "The κ that equals SAM's first step misses SAM's t_2/t_1 by more than no upsampling does (|ln| of one miss "
    "less the other, δ from 0.1 to 0.4, least)",
    **FOUND,
    predictor=sam_equivalent_factor,
    figure="sam_by_data",
)
def initial_factor_does_worse_than_none(data: xr.Dataset) -> np.ndarray:
    initial, by_sam = (_aligned_ratio(data, arm, 0.05, 0.45).values for arm in ("initial", "sam"))
    return np.abs(np.log(initial / by_sam)) - np.abs(np.log(_aligned_ratio(data, "sam").values[0] / by_sam))


@table.at_least(
    "The κ that equals SAM's first step overshoots, as δ shrinks while features grow: SAM's t_2/t_1 over its "
    "own, at δ = 0.5",
    bound=1.5,
    **FOUND,
    predictor=sam_equivalent_factor,
    figure="sam_by_data",
)
def initial_factor_overshoots(data: xr.Dataset) -> xr.DataArray:
    by_sam, initial = (_aligned_ratio(data, arm).sel(delta=0.5) for arm in ("sam", "initial"))
    return by_sam / initial


@table.at_most(
    "Aligned: with the path-matched κ both features are learned at fewer gradient evaluations than without (largest "
    "share over δ > 0)",
    bound=1.0,
    source="derived here (notes §8)",
    predictor=path_matched_factors,
    figure="sam_by_data",
)
def path_matched_factor_saves_gradients(data: xr.Dataset) -> xr.DataArray:
    return _evaluations(data, "path")


@table.at_least(
    "SAM takes more than twice as many gradient evaluations as gradient descent without κ (least share over δ > 0)",
    bound=2.0,
    source="derived here (notes §8)",
    predictor=sam,
    figure="sam_by_data",
)
def sam_takes_twice_the_gradients(data: xr.Dataset) -> xr.DataArray:
    return _evaluations(data, "sam")


@table.at_most(
    "Random starts: κ_d = R_GD/R_SAM(ρ = 0.05), taken from other seeds, lowers ln(t_d/t_1), d = 2, 3, 4",
    source="abstract, claim C",
    **RANDOM,
)
def factor_from_other_seeds_lowers_ratios(data: xr.Dataset) -> Reading:
    changes = _changes(data.learning_time_ratio[:, -1], "late", "gd")
    worst, kappas = worst_of(changes, upper=True), ", ".join(f"{kappa:.2f}" for kappa in data.factor.values[-1, 1:])
    note = f"κ = {kappas}; {worst.pairs} runs: median, 99 % interval, the worst of {len(changes)}"
    return Reading(worst.median, interval=(worst.low, worst.high), compared=len(changes), note=note)


@table.at_least(
    "Random starts: κ_d from SAM's ratios falls short of them, d = 2, 3, 4 (ln of its t_d/t_1 over SAM's, ρ = 0.05)",
    **FOUND | RANDOM,
)
def factor_falls_short_of_sam(data: xr.Dataset) -> list[Change]:
    return _changes(data.learning_time_ratio[:, -1], "late", "sam")


@table.at_least(
    "One secant step on κ closes more than half of the gap between gradient descent and SAM (share of SAM's "
    "change of ln(t_d/t_1), medians, ρ = 0.03 and 0.05, least)",
    bound=0.5,
    source="derived here (notes §8)",
    predictor=secant_factor,
    figure="sam_by_data",
)
def secant_step_closes_half_the_gap(data: xr.Dataset) -> np.ndarray:
    rows = [data.learning_time_ratio.sel(rho=rho) for rho in data.rho[1:]]
    ours, theirs = ([c.median for row in rows for c in _changes(row, arm, "gd")] for arm in ("secant", "sam"))
    return np.divide(ours, theirs)


@table.at_least(
    "Upsampling by the secant's κ does more than delay: features 2 to 4 are further on when the first is learned "
    "(change of w_d/w_d*, ρ = 0.05)",
    source="notes §7",
    **RANDOM,
)
def late_features_are_further_on(data: xr.Dataset) -> list[Change]:
    progress = data.progress[:, -1]
    further = progress.sel(arm="secant") - progress.sel(arm="gd")
    return [median_change(further.sel(feature=d)) for d in (2, 3, 4)]


@table.at_most(
    "Gradient descent with the secant's κ takes less time than SAM, at half the gradient evaluations a step (ln "
    "of its t_d over SAM's, ρ = 0.05)",
    **FOUND | RANDOM,
)
def secant_factor_takes_less_time_than_sam(data: xr.Dataset) -> list[Change]:
    return _changes(data.learning_time[:, -1], "secant", "sam", (1, 2, 3, 4))


@table.at_least(
    "Control: the same factors, the largest on the simplest feature, do not lower ln(t_d/t_1), d = 2, 3, 4 (ρ = 0.05)",
    **RANDOM,
)
def reversed_factors_lower_no_ratio(data: xr.Dataset) -> list[Change]:
    return _changes(data.learning_time_ratio[:, -1], "early", "gd")
