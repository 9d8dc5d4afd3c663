"""The upsampling factor κ, and the weights or copies that apply it (theory notes, §8).

Plain numpy on plain arrays, for any model and any trainer; groups come from `icl_theory.upsampling.lateness`. The rule:
upsampling the late by κ divides the ratio of learning times by κ, so κ is the ratio that was measured over the ratio
that is wanted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from icl_theory.errors import InputError, as_floats, check_number, check_shape
from icl_theory.upsampling.lateness import checked_times

LARGEST_COPIES = 1e6  # of one example


def learning_time_ratio(times: Float[Any, " P"], late: Bool[Any, " P"], *, last: float | None = None) -> float:
    """`R`: the median learning time of the late over that of the early; 1 where there are no late ones.

    Examples with time 0 had nothing to learn (they lay at their floor from the start) and do not count.

    Args:
        times: infinite where never learned.
        late: the late group.
        last: what "never" counts as among the late, the time of the last checkpoint: R is then a lower bound.

    Raises:
        InputError: a median of the early that is infinite, or of the late without `last`, no early or late examples
            that learn, NaN or negative times, shapes that differ.
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
    """`κ = R / R_target`, the factor for the late that brings a learning-time ratio R to its target.

    With R of gradient descent and the target R of SAM at some ρ this is the path-matched factor. Below 1 where the
    late are learned sooner than wanted already.

    Args:
        ratio: R, measured or predicted, any shape.
        target: the ratio that is wanted; 1 = learned at the same time.
        largest: an upper bound on κ.

    Raises:
        InputError: ratios or a target that are not positive and finite; a bound below 1.
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


def secant_factor(
    factor: np.ndarray | float, *, ratio: np.ndarray | float, achieved: np.ndarray | float, target: np.ndarray | float
) -> np.ndarray:
    """A better factor from what a first one did: `κ^(ln(R/R_target) / ln(R/R_achieved))`.

    The rule takes R to R/κ. From random starts R responds less than that, about as a power of κ; the secant measures
    the power.

    Args:
        factor: κ that was tried; 1 stays 1.
        ratio: R without upsampling.
        achieved: R under κ.
        target: R that is wanted.

    Raises:
        InputError: numbers that are not positive and finite, shapes that do not go together, or a first factor that did
            not lower R or hardly moved it.
    """
    factor, ratio, achieved, target = _positive(factor=factor, ratio=ratio, achieved=achieved, target=target)
    tried, moved = np.log(factor), np.log(ratio) - np.log(achieved)
    if np.any((tried != 0) & (tried * moved <= 0)):
        raise InputError("achieved", achieved, f"the first factor did not lower the ratio {ratio}; train more runs")
    wanted = np.log(ratio) - np.log(target)
    power = np.divide(wanted, moved, out=np.zeros(wanted.shape), where=tried != 0)
    with np.errstate(over="ignore"):
        found = np.asarray(np.exp(tried * power))
    if not np.all(np.isfinite(found)):
        raise InputError("achieved", achieved, f"the first factor hardly moved the ratio {ratio}; try a larger one")
    return found


def sam_equivalent_factor(drive: Float[Any, " D"], *, start: float, rho: float) -> np.ndarray:
    """`κ_d = ((1 − δ s_d)/(1 − δ s_1))²`, the factor for feature d that slows it against feature 1 as SAM does at
    first.

    With `s_d = a_d/‖a‖`, `δ = ρ/(√3 u_0)`: from a start that is equal in all features, normalised SAM gives each the
    effective drive `a_d (1 − δ s_d)²` before any has grown. A reading at initialisation only: as SAM's perturbation
    turns to the next feature the path differs (`theory.upsampling.path_matched_factors` follows it).

    Args:
        drive: a_d, largest first.
        start: u_0 > 0.
        rho: ρ ≥ 0 of normalised SAM.

    Returns:
        (D,), 1 for the first.

    Raises:
        InputError: drives that are negative or not in descending order; `δ s_1 ≥ 1`, where SAM stops the first feature.
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
    """κ for the late, 1 for the rest: weights of a loss or of a sampler.

    Raises:
        InputError: a factor that is negative or not finite.
    """
    check_number("factor", factor, minimum=0.0)
    return np.where(_checked_group(late), float(factor), 1.0)


def example_copies(late: Bool[Any, " P"], factor: float, *, seed: int) -> Int[np.ndarray, " P"]:
    """Return the count of each example in the upsampled set: whole numbers whose total over the late is κ·(their
    number).

    Every late example is taken ⌊κ⌋ times, and as many of them as it needs, drawn with `seed`, once more.
    `np.repeat(np.arange(P), copies)` is the list of indices.

    Raises:
        InputError: a factor that is negative, not finite or absurdly large, a seed that is not a whole number from 0.
    """
    check_number("factor", factor, minimum=0.0, maximum=LARGEST_COPIES)
    chosen = np.flatnonzero(_checked_group(late))
    whole = int(factor)
    copies = np.ones(np.shape(late), int)
    copies[chosen] = whole
    extra = round(factor * len(chosen)) - whole * len(chosen)
    copies[_generator(seed).permutation(chosen)[:extra]] += 1
    return copies


def random_group(late: Bool[Any, " P"], *, seed: int) -> Bool[np.ndarray, " P"]:
    """The control: as many examples as are late, drawn from all of them with `seed`."""
    late = _checked_group(late)
    return _generator(seed).permutation(late)


def early_group(times: Float[Any, " P"], late: Bool[Any, " P"]) -> Bool[np.ndarray, " P"]:
    """The opposite control: the examples learned first, as many as are late (ties in their order).

    Those with time 0 had nothing to learn and come last. Where more than half are late, the two groups overlap.

    Raises:
        InputError: NaN or negative times, shapes that differ.
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
    """The values as arrays of one shape; `InputError` names the first that is not of positive finite numbers."""
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
