"""The upsampling factor κ, and the weights or copies that apply it (theory notes, §8).

Plain numpy on plain arrays, for any model and any trainer; groups come from `icl_theory.upsampling.lateness`. The rule:
upsampling the late examples by κ divides the ratio of learning times by κ, so κ is the measured ratio over the target
ratio. That is exact for aligned heads with a group each; from random starts `excess_factor` holds (theory notes, §16).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from icl_theory.errors import InputError, as_floats, check_number, check_shape
from icl_theory.upsampling.lateness import checked_times

LARGEST_COPIES = 1e6  # largest number of copies of one example


def learning_time_ratio(times: Float[Any, " P"], late: Bool[Any, " P"], *, last: float | None = None) -> float:
    """Return `R`, the median learning time of the late examples over that of the early ones; 1 without late examples.

    Examples with time 0 had nothing to learn (they were at their floor from the start) and do not count.

    Args:
        times: The learning times, infinite for examples that are never learned.
        late: The late group.
        last: The time of the last checkpoint, used as the time of late examples that are never learned. R is then a
            lower bound.

    Raises:
        InputError: The early median is infinite, or the late one without `last`. No early or no late example learns
            after time 0. Times are NaN or negative, or shapes differ.
    """
    times, late = checked_times(times), _checked_group(late)
    check_shape("times", times, late.shape)
    if not late.any():
        return 1.0
    learns = times > 0
    if not (late & learns).any() or not (~late & learns).any():
        raise InputError("late", f"{late.sum()} of {late.size}", "a ratio needs early and late ones that learn after 0")
    with np.errstate(invalid="ignore"):
        slow, fast = (float(np.median(times[group & learns])) for group in (late, ~late))
        if np.isinf(fast):
            remedy = "train longer, or let more loss remain where an example counts as learned"
            raise InputError("times", "infinite in the median of the early", remedy)
        if last is not None:
            check_number("last", last, minimum=0.0, exclusive=True)
            slow = float(np.median(np.minimum(times[late & learns], last)))
    if not np.isfinite(slow):
        raise InputError("times", "infinite in the median", "train longer, or give last= to count never as that time")
    return slow / fast


def ratio_factor(
    ratio: np.ndarray | float, *, target: np.ndarray | float = 1.0, largest: float | None = None
) -> np.ndarray:
    """Return `κ = R / R_target`, the factor for the late examples that brings a learning-time ratio R to its target.

    If R is that of gradient descent and the target that of SAM at some ρ, this is the path-matched factor. It is below
    1 if the late examples are learned sooner than wanted already.

    Args:
        ratio: R, measured or predicted, of any shape.
        target: The ratio that is wanted; 1 means learned at the same time.
        largest: An upper bound on κ.

    Raises:
        InputError: A ratio or target is not positive and finite, the factor is out of range, or the bound is below 1.
    """
    ratio, target = _positive(ratio=ratio, target=target)
    with np.errstate(over="ignore"):
        factor = np.asarray(ratio / target)
    if not np.all(np.isfinite(factor) & (factor > 0)):
        raise InputError("ratio", ratio, f"its factor to the target {target} is out of range")
    if largest is None:
        return factor
    check_number("largest", largest, minimum=1.0)
    return np.asarray(np.minimum(factor, largest))


def excess_factor(
    ratio: np.ndarray | float, *, target: np.ndarray | float, drive_ratio: np.ndarray | float = np.inf
) -> np.ndarray:
    """Return `κ = r / (1 + (r − 1)(R_target − 1)/(R − 1))`, the factor for groups that one head learns in turn.

    It holds from small random starts, where a head that has learned the early group goes on to the late one: then
    upsampling divides what R exceeds 1 by (nearly) κ, and not R itself. The law holds as long as the late come second.

    Args:
        ratio: R > 1, measured or predicted.
        target: R_target ≥ 1, above 1 if the drive ratio is infinite.
        drive_ratio: `r = a_1/a_d > 1`, the ratio of the drives. With infinity, `κ = (R − 1)/(R_target − 1)`.

    Raises:
        InputError: A number is out of range.

    Reference: theory notes, §16.
    """
    ratio, target = _positive(ratio=ratio, target=target)
    drive_ratio = as_floats("drive_ratio", drive_ratio)
    if not np.all(ratio > 1):
        raise InputError("ratio", ratio, "give more than 1; else the late are learned soon enough already")
    if not np.all(drive_ratio > 1):
        raise InputError("drive_ratio", drive_ratio, "give more than 1, the drive of the early over that of the late")
    if not np.all((target > 1) | ((target == 1) & np.isfinite(drive_ratio))):
        raise InputError("target", target, "give more than 1 (1 with a finite drive ratio): the late come second here")
    share = (target - 1.0) / (ratio - 1.0)
    return np.asarray(1.0 / (share + (1.0 - share) / drive_ratio))


def secant_factor(
    factor: np.ndarray | float, *, ratio: np.ndarray | float, achieved: np.ndarray | float, target: np.ndarray | float
) -> np.ndarray:
    """Improve a factor from the ratio that it achieved: `(R − R_∞)/(R_target − R_∞)`, `R_∞ = (κR' − R)/(κ − 1)`.

    R is linear in 1/κ where groups share no feature: from aligned starts (with R_∞ = 0), and from small random ones as
    long as R ≥ 1. There the secant through the two ratios is the whole line. R_∞ is its end at infinite κ.

    Args:
        factor: The κ that was tried; 1 stays 1.
        ratio: R without upsampling.
        achieved: R' under κ.
        target: The R that is wanted.

    Raises:
        InputError: A number is not positive and finite, shapes do not broadcast, the first factor did not lower R, or
            the target lies below R_∞.

    Reference: theory notes, §16.
    """
    factor, ratio, achieved, target = _positive(factor=factor, ratio=ratio, achieved=achieved, target=target)
    tried = factor != 1
    if np.any(tried & ((factor - 1.0) * (ratio - achieved) <= 0)):
        raise InputError("achieved", achieved, f"the first factor did not lower the ratio {ratio}; train more runs")
    moved = np.where(tried, factor * (ratio - achieved) / np.where(tried, factor - 1.0, 1.0), 1.0)  # R − R_∞
    left = np.where(tried, target - ratio + moved, 1.0)
    if not np.all(left > 0):
        least = np.max((ratio - moved)[left <= 0])
        raise InputError("target", target, f"the line through both ratios ends above it; give more than {least:.4g}")
    return np.asarray(moved / left)


def sam_equivalent_factor(drive: Float[Any, " D"], *, start: float, rho: float) -> np.ndarray:
    """Return `κ_d = ((1 − δ s_d)/(1 − δ s_1))²`, which speeds feature d relative to feature 1 as SAM initially does.

    Here `s_d = a_d/‖a‖` and `δ = ρ/(√3 u_0)`. From a start that is equal in all features, normalised SAM gives feature
    d the effective drive `a_d (1 − δ s_d)²` before any feature has grown. This holds at initialisation only. Later
    SAM's perturbation turns to the next feature, which `theory.upsampling.path_matched_factors` takes into account.

    Args:
        drive: a_d, largest first.
        start: u_0 > 0.
        rho: ρ ≥ 0 of normalised SAM.

    Returns:
        The factors κ_d, (D,), with κ_1 = 1.

    Raises:
        InputError: Drives are negative or not in descending order, or `δ s_1 ≥ 1`, where SAM stops the first feature.
    """
    drive = as_floats("drive", drive)
    if drive.ndim != 1 or not drive.size or not np.all(np.isfinite(drive)) or np.any(drive < 0) or not drive[0] > 0:
        raise InputError("drive", drive, "give one number for each feature, not negative, the first positive")
    if np.any(np.diff(drive) > 0):
        raise InputError("drive", drive, "order the features by drive, largest first")
    check_number("start", start, minimum=0.0, exclusive=True)
    check_number("rho", rho, minimum=0.0)
    drive = drive / drive[0]
    left = 1.0 - rho / (np.sqrt(3.0) * start) * drive / np.linalg.norm(drive)
    if not left[0] > 0:
        bound = np.sqrt(3.0) * start * np.linalg.norm(drive)
        raise InputError("rho", rho, f"SAM stops the first feature here; give less than {bound:.4g}")
    return np.square(left / left[0])


def example_weights(late: Bool[Any, " P"], factor: float) -> Float[np.ndarray, " P"]:
    """Return weights for a loss or a sampler: κ for the late examples, 1 for the rest.

    Raises:
        InputError: The factor is negative or not finite.
    """
    check_number("factor", factor, minimum=0.0)
    return np.where(_checked_group(late), float(factor), 1.0)


def example_copies(late: Bool[Any, " P"], factor: float, *, seed: int) -> Int[np.ndarray, " P"]:
    """Return how often each example occurs in the upsampled set.

    The total over the late examples is κ times their number, rounded. Each is taken ⌊κ⌋ times, and some of them, drawn
    with `seed`, once more. `np.repeat(np.arange(P), copies)` is the list of indices.

    Raises:
        InputError: The factor is negative, not finite or absurdly large, or the seed is not a whole number from 0.
    """
    check_number("factor", factor, minimum=0.0, maximum=LARGEST_COPIES)
    chosen = np.flatnonzero(_checked_group(late))
    whole = int(factor)
    copies = np.ones(np.shape(late), int)
    copies[chosen] = whole
    extra = round(factor * len(chosen)) - whole * len(chosen)
    copies[_generator(seed).permutation(chosen)[:extra]] += 1
    return copies


def rounded_weights(weights: Float[Any, " P"], draw: np.random.Generator) -> Int[np.ndarray, " P"]:
    """Return whole counts that equal the weights on average, each rounded down or up; the total is right to within 1.

    This is systematic rounding, in an order drawn at random.
    """
    whole = np.floor(weights).astype(int)
    order, start = draw.permutation(len(weights)), draw.random()
    parts = np.floor(np.cumsum((weights - whole)[order]) + start + 1e-9)
    whole[order] += np.diff(parts, prepend=0.0).astype(int)
    return whole


def random_group(late: Bool[Any, " P"], *, seed: int) -> Bool[np.ndarray, " P"]:
    """Return a control group: as many examples as are late, drawn from all examples with `seed`."""
    late = _checked_group(late)
    return _generator(seed).permutation(late)


def early_group(times: Float[Any, " P"], late: Bool[Any, " P"]) -> Bool[np.ndarray, " P"]:
    """Return the opposite control group: the examples learned first, as many as are late (ties in their order).

    Examples with time 0 had nothing to learn and come last. If more than half are late, the two groups overlap.

    Raises:
        InputError: Times are NaN or negative, or shapes differ.
    """
    times, late = checked_times(times), _checked_group(late)
    check_shape("times", times, late.shape)
    chosen = np.zeros(len(late), bool)
    chosen[np.argsort(np.where(times > 0, times, np.inf), kind="stable")[: late.sum()]] = True
    return chosen


def _generator(seed: int) -> np.random.Generator:
    check_number("seed", seed, minimum=0, integer=True)
    return np.random.default_rng(int(seed))


def _positive(**fields: Any) -> tuple[np.ndarray, ...]:
    """Broadcast the values to one shape; `InputError` names the first that is not positive and finite."""
    values = []
    for field, value in fields.items():
        values.append(as_floats(field, value))
        if not np.all(np.isfinite(values[-1]) & (values[-1] > 0)):
            raise InputError(field, value, "give positive finite numbers")
    try:
        return tuple(np.broadcast_arrays(*values))
    except ValueError:
        shapes = [value.shape for value in values]
        raise InputError(", ".join(fields), f"shapes {shapes}", "give shapes that go together") from None


def _checked_group(late: Any) -> np.ndarray:
    try:
        late = np.asarray(late)
    except ValueError:
        raise InputError("late", late, "give booleans of shape (P,)") from None
    if late.ndim != 1 or not late.size or late.dtype != bool:
        raise InputError("late", f"{late.dtype} of shape {late.shape}", "give booleans of shape (P,), at least one")
    return late
