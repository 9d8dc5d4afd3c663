"""Changes between two arms, seed by seed: medians with distribution-free intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from icl_theory.analysis.intervals import median_interval

CONFIDENCE = 0.99


class Change(NamedTuple):
    """Median over seeds of a change, with its interval, and the pairs it was taken over."""

    median: float
    low: float
    high: float
    pairs: int


def log_change(values: Any, baseline: Any, confidence: float = CONFIDENCE) -> Change:
    """Return the change of a positive quantity on a log scale, seed by seed; infinite (never) counts as the largest.

    Pairs in which either is not positive or was never measured, or both are infinite, drop out; the count says how many
    remain.
    """
    values, baseline = np.asarray(values), np.asarray(baseline)
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.log(np.where(values > 0, values, np.nan)) - np.log(np.where(baseline > 0, baseline, np.nan))
    return median_change(change, confidence)


def median_change(change: Any, confidence: float = CONFIDENCE) -> Change:
    """Return the median of changes, NaN left out, with its interval."""
    change = np.asarray(change)[~np.isnan(change)]
    if change.size == 0:
        return Change(np.nan, np.nan, np.nan, 0)
    return Change(*median_interval(change.ravel(), confidence=confidence), change.size)


def absolute(change: Change) -> Change:
    """Return the size of a change, with the interval of sizes that its interval allows."""
    median, low, high, pairs = change
    least = 0.0 if low < 0 < high else min(abs(low), abs(high))
    return Change(abs(median), least, max(abs(low), abs(high)), pairs)


def worst_of(changes: Sequence[Change], *, upper: bool) -> Change:
    """Return the change nearest to breaking an upper (or a lower) bound; one that could not be measured breaks any."""
    unmeasured = [change for change in changes if change.pairs == 0]
    if unmeasured:
        return unmeasured[0]
    return max(changes, key=lambda change: change.high if upper else -change.low)


def known_median(values: Any, axis: int = 0) -> np.ndarray:
    """Return the median along an axis of what was measured, NaN left out; NaN where nothing was."""
    values = np.asarray(values)
    nothing = np.isnan(values).all(axis=axis, keepdims=True)
    return np.where(nothing.squeeze(axis), np.nan, np.nanmedian(np.where(nothing, 0.0, values), axis=axis))
