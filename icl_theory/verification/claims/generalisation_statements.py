"""Statements on generalisation: simplicity bias, SAM (claim B), upsampling and augmentation (claim C), controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
import xarray as xr

from icl_theory.analysis.simplicity_bias import simplicity_bias
from icl_theory.training.sam import sam
from icl_theory.verification.changes import CONFIDENCE, Change, absolute
from icl_theory.verification.claims.finite_data_arms import fresh_arms, judge, weighted_arms
from icl_theory.verification.claims.generalisation_readings import (
    FEW,
    MANY,
    MIXTURES,
    between,
    each_case,
    half_way,
    only,
    pooled,
    ratio_changes,
)
from icl_theory.verification.judging import Reading
from icl_theory.verification.statements import Statements

BIAS: dict[str, Any] = {"source": "notes §8", "predictor": simplicity_bias, "figure": "generalisation"}
SAM: dict[str, Any] = {"predictor": sam, "figure": "generalisation", "after_measurement": "found in a first run"}
LATE = SAM | {"predictor": weighted_arms, "figure": "generalisation_map"}
RESIDUAL, FRESH = LATE | {"predictor": judge}, SAM | {"predictor": fresh_arms}
CLAIM_B, CLAIM_C = ({"source": f"abstract, claim {letter}", "after_measurement": ""} for letter in "BC")

table = Statements("generalisation", source="found here")


def _upsampling_late(changes: xr.DataArray, tests: Sequence[str], mixtures: Sequence[str] = MIXTURES) -> list[Change]:
    """Return the changes from upsampling late examples with P ≥ 1000, one for each mixture and test."""
    return [pooled(changes, "late", test, mixture=mixture, num_prompts=MANY) for mixture in mixtures for test in tests]


@table.at_most(
    "On finite data SAM, upsampling late and augmenting with late each lower ln(t_d/t_1), d = 2, 3 (all {case} "
    "settings together)",
    **BIAS | {"source": "abstract, claims A, C"},
)
def sam_and_late_examples_lower_learning_time_ratios(data: xr.Dataset) -> list[Change]:
    return ratio_changes(data, ("sam", "late", "fresh late"))


@table.at_most(
    "Controls: random examples, upsampled or fresh, change ln(t_d/t_1) by less than 0.05, d = 2, 3", bound=0.05, **BIAS
)
def random_examples_hardly_change_learning_time_ratios(data: xr.Dataset) -> list[Change]:
    return [absolute(change) for change in ratio_changes(data, ("random", "fresh random"))]


@table.at_least("Controls: early examples, upsampled or fresh, do not lower ln(t_d/t_1), d = 2, 3", **BIAS)
def early_examples_lower_no_learning_time_ratio(data: xr.Dataset) -> list[Change]:
    return ratio_changes(data, ("early", "fresh early"))


@table.at_most(
    "Claim B: at matched training loss half-way, SAM's held-out loss is lower (ln ratio, all {case} settings together)",
    **SAM | CLAIM_B,
)
def sam_is_ahead_half_way(data: xr.Dataset) -> Change:
    return pooled(half_way(data), "sam")


@table.at_most(
    "At matched training loss SAM changes the held-out loss by less than 2 %: |ln ratio| half-way and near the end, "
    "both mixtures, P ≤ 300 and P ≥ 1000",
    bound=0.02,
    **SAM,
)
def sam_changes_little_at_matched_loss(data: xr.Dataset) -> list[Change]:
    return [
        absolute(pooled(data.matched_change.sel(level=level), "sam", mixture=mixture, num_prompts=sizes))
        for level in data.level
        for mixture in MIXTURES
        for sizes in (FEW, MANY)
    ]


@table.at_most(
    "At the end the typical SAM run has the held-out loss of gradient descent: |ln ratio| below 0.5 %, each P",
    bound=0.005,
    **SAM,
)
def sam_ends_where_gradient_descent_ends(data: xr.Dataset) -> list[Change]:
    return [absolute(pooled(data.end_change, "sam", num_prompts=size)) for size in np.unique(data.num_prompts)]


@table.at_least(
    "At equal steps SAM's held-out loss in distribution, mean over training, is higher in each setting with P ≥ 1000",
    **SAM,
)
def sam_is_behind_at_equal_steps(data: xr.Dataset) -> list[Change]:
    return each_case(data.mean_change, "sam", num_prompts=MANY)


@table.at_least(
    "At equal gradient evaluations SAM's held-out loss in distribution, mean over training, is higher by a tenth at "
    "least in each of {case} settings",
    bound=float(np.log(1.1)),
    **SAM,
)
def sam_is_a_tenth_behind_at_equal_evaluations(data: xr.Dataset) -> list[Change]:
    return each_case(data.equal_evaluations_change, "sam")


@table.at_most(
    "Claim C: at matched training loss half-way, upsampling late lowers the held-out loss (P ≤ 300 and P ≥ 1000)",
    **LATE | CLAIM_C,
)
def upsampling_late_is_ahead_half_way(data: xr.Dataset) -> list[Change]:
    return [pooled(half_way(data), "late", num_prompts=sizes) for sizes in (FEW, MANY)]


@table.at_most(
    "At matched training loss half-way, upsampling late lowers the held-out loss more than the same factor on random "
    "examples does (ln of its loss over theirs, P ≤ 300 and P ≥ 1000)",
    **LATE,
)
def upsampling_late_is_ahead_of_random(data: xr.Dataset) -> list[Change]:
    return [between(half_way(data), "late", "random", num_prompts=sizes) for sizes in (FEW, MANY)]


@table.at_most(
    "At matched training loss half-way, upsampling late lowers the loss on a white and on a reversed spectrum too, "
    "both mixtures (P ≥ 1000)",
    **LATE,
)
def upsampling_late_is_ahead_on_other_spectra(data: xr.Dataset) -> list[Change]:
    return _upsampling_late(half_way(data), ("white", "reversed"))


@table.at_least(
    "At equal steps upsampling late gains less than 1 % in distribution, mean over training (ln ratio, P ≥ 1000)",
    bound=-0.01,
    **LATE,
)
def upsampling_late_gains_little_at_equal_steps(data: xr.Dataset) -> Change:
    return pooled(data.mean_change, "late", num_prompts=MANY)


@table.at_most(
    "After upsampling late and returning to the data as they are, the typical run ends at the loss of gradient "
    "descent: |ln ratio| below 0.5 %, each P",
    bound=0.005,
    **LATE,
)
def returning_ends_where_gradient_descent_ends(data: xr.Dataset) -> list[Change]:
    return [absolute(pooled(data.end_change, "two-phase", num_prompts=size)) for size in np.unique(data.num_prompts)]


@table.at_most(
    "Upsampling late to the end lowers the final loss on longer contexts (N = 127), both mixtures (P ≥ 1000)", **LATE
)
def upsampling_late_helps_on_longer_contexts(data: xr.Dataset) -> list[Change]:
    return _upsampling_late(data.end_change, ("long",))


@table.at_most(
    "Augmentation at P = 100: fresh late prompts lower the held-out loss, mean over training", **FRESH | CLAIM_C
)
def fresh_late_prompts_help_small_data_sets(data: xr.Dataset) -> Change:
    return pooled(data.mean_change, "fresh late", num_prompts=100)


@table.at_least(
    "Upsampling late to the end raises the final held-out loss in distribution, both mixtures (P ≥ 1000)", **LATE
)
def upsampling_late_hurts_at_the_end(data: xr.Dataset) -> list[Change]:
    return _upsampling_late(data.end_change, ("training",))


@table.at_least("At P = 100 too upsampling late to the end raises the final held-out loss in distribution", **LATE)
def upsampling_late_hurts_small_data_sets(data: xr.Dataset) -> Change:
    return pooled(data.end_change, "late", num_prompts=100)


@table.at_least(
    "With little data (P ≤ 300) upsampling late raises the final loss by more than upsampling random examples alike "
    "does, so not only because fewer count (ln of its loss over theirs)",
    **LATE,
)
def upsampling_late_hurts_more_than_random(data: xr.Dataset) -> Change:
    return between(data.end_change, "late", "random", num_prompts=FEW)


@table.at_least(
    "One group: upsampling late raises the final loss on a white and on a reversed spectrum (P ≥ 1000)", **LATE
)
def upsampling_late_hurts_on_other_spectra(data: xr.Dataset) -> list[Change]:
    return _upsampling_late(data.end_change, ("white", "reversed"), ("one group",))


@table.at_least(
    "Two groups: upsampling late raises the final loss on the minority's own spectrum too (P ≥ 1000)", **LATE
)
def upsampling_late_hurts_the_minority_too(data: xr.Dataset) -> list[Change]:
    return _upsampling_late(data.end_change, ("reversed",), ("two groups",))


@table.at_least("Upsampling late raises the final loss on shorter contexts (N = 8), both mixtures (P ≥ 1000)", **LATE)
def upsampling_late_hurts_on_shorter_contexts(data: xr.Dataset) -> list[Change]:
    return _upsampling_late(data.end_change, ("short",))


@table.at_least(
    "With the pilot paid for, gradient descent that trains twice as long ends no worse than upsampling late, with or "
    "without a return (P ≥ 1000, to 0.2 %)",
    bound=-0.002,
    **LATE,
)
def training_twice_as_long_is_as_good(data: xr.Dataset) -> list[Change]:
    return [pooled(data.pilot_paid_change, arm, num_prompts=MANY) for arm in ("late", "two-phase")]


@table.at_least(
    "Lateness by residual, without each example's own floor, is worse, mean over training (its loss over the rule's, "
    "P ≥ 1000)",
    **RESIDUAL,
)
def lateness_by_residual_is_worse_over_training(data: xr.Dataset) -> Change:
    return between(data.mean_change, "residual", "late", num_prompts=MANY)


@table.at_most(
    "Lateness by residual is better at the end with little data (P ≤ 300; its loss over the rule's)", **RESIDUAL
)
def lateness_by_residual_is_better_at_the_end(data: xr.Dataset) -> Change:
    return between(data.end_change, "residual", "late", num_prompts=FEW)


@table.at_least(
    "At P = 100 as many fresh prompts of any kind end ahead of fresh late ones (loss of fresh late over fresh random)",
    **FRESH,
)
def any_fresh_prompts_end_ahead_of_late(data: xr.Dataset) -> Change:
    return between(data.end_change, "fresh late", "fresh random", num_prompts=100)


@table.at_most(
    "At matched training loss half-way fresh late prompts are ahead of fresh ones of any kind and of copies of late",
    **FRESH,
)
def fresh_late_prompts_are_ahead_half_way(data: xr.Dataset) -> list[Change]:
    return [between(half_way(data), "fresh late", other) for other in ("fresh random", "late")]


@table.at_least(
    "Controls: upsampling random or early examples does not lower the mean held-out loss (P ≥ 1000, to 0.2 %)",
    bound=-0.002,
    **LATE,
)
def controls_gain_nothing_at_equal_steps(data: xr.Dataset) -> list[Change]:
    return [pooled(data.mean_change, arm, num_prompts=MANY) for arm in ("random", "early")]


@table.at_least(
    "Controls: upsampling random or early examples does not lower the held-out loss at matched training loss half-way "
    "by more than 0.5 % (all {case} settings together)",
    bound=-0.005,
    **LATE,
)
def controls_gain_nothing_half_way(data: xr.Dataset) -> list[Change]:
    return [pooled(half_way(data), arm) for arm in ("random", "early")]


@table.at_least(
    "One group: SAM leaves more runs without a feature at the end than gradient descent, which also leaves some "
    "(share more, 99 % interval)",
    **SAM,
)
def sam_misses_features_more_often(data: xr.Dataset) -> Reading:
    """Return the difference in the share of runs that miss a feature, with a normal interval over paired runs."""
    missed = (only(data.learning_time, mixture="one group") == np.inf).any("feature").astype(float)
    more = (missed.sel(arm="sam") - missed.sel(arm="gd")).values
    half = float(scipy.stats.norm.ppf(0.5 + CONFIDENCE / 2.0)) * float(more.std(ddof=1)) / np.sqrt(more.size)
    middle = float(more.mean())
    return Reading(middle, interval=(middle - half, middle + half), compared=more.size)
