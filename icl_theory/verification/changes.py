"""Changes between two arms, paired by seed: medians with distribution-free confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from icl_theory.analysis.intervals import median_interval

CONFIDENCE = 0.99


class Change(NamedTuple):
    """Median over seeds of a change between two arms.

    Attributes:
        median: median change.
        low: lower end of the confidence interval.
        high: upper end of the confidence interval.
        pairs: number of pairs in the median.
    """

    median: float
    low: float
    high: float
    pairs: int

    def over(self, unit: float) -> Change:
        """Return the change in units of a number."""
        return Change(self.median / unit, self.low / unit, self.high / unit, self.pairs)


def log_change(values: Any, baseline: Any, confidence: float = CONFIDENCE) -> Change:
    """Return the median log-ratio of a positive quantity to its baseline, paired by seed.

    An infinite value (an event that never happens) counts as the largest. Pairs are left out if a value is NaN or not
    positive, or if both are infinite; `pairs` counts those that remain.
    """
    values, baseline = np.asarray(values), np.asarray(baseline)
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.log(np.where(values > 0, values, np.nan)) - np.log(np.where(baseline > 0, baseline, np.nan))
    return median_change(change, confidence)


def median_change(change: Any, confidence: float = CONFIDENCE) -> Change:
    """Return the median of changes with its confidence interval; NaN are left out."""
    change = np.asarray(change)[~np.isnan(change)]
    if change.size == 0:
        return Change(np.nan, np.nan, np.nan, 0)
    return Change(*median_interval(change.ravel(), confidence=confidence), change.size)


def typical_error(predicted: Any, measured: Any, confidence: float = CONFIDENCE) -> Change:
    """Return the median of `|ln(predicted/measured)|`; pairs of which one or both never happen are left out."""
    found = log_change(predicted, measured, confidence)  # tells how many pairs there are
    predicted, measured = np.asarray(predicted), np.asarray(measured)
    both = np.isfinite(predicted) & np.isfinite(measured)
    return median_change(np.abs(np.log(predicted[both] / measured[both])), confidence) if found.pairs else found


def absolute(change: Change) -> Change:
    """Return the absolute value of a change, with the range of absolute values in its interval."""
    median, low, high, pairs = change
    least = 0.0 if low < 0 < high else min(abs(low), abs(high))
    return Change(abs(median), least, max(abs(low), abs(high)), pairs)


def worst_of(changes: Sequence[Change], *, upper: bool) -> Change:
    """Return the change closest to violating an upper (or lower) bound; one without measured pairs violates any."""
    unmeasured = [change for change in changes if change.pairs == 0]
    if unmeasured:
        return unmeasured[0]
    return max(changes, key=lambda change: change.high if upper else -change.low)


def known_median(values: Any, axis: int = 0) -> np.ndarray:
    """Return the median along an axis without NaN; NaN where all values are NaN."""
    values = np.asarray(values)
    nothing = np.isnan(values).all(axis=axis, keepdims=True)
    return np.where(nothing.squeeze(axis), np.nan, np.nanmedian(np.where(nothing, 0.0, values), axis=axis))
