"""Changes between two arms, seed by seed, and statements about the worst of several."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from icl_theory.analysis import median_interval
from icl_theory.verification.statement import Statement, at_least

CONFIDENCE = 0.99


class PairedChange(NamedTuple):
    """Median over seeds of a change, with its interval, and the pairs it was taken over."""

    median: float
    low: float
    high: float
    pairs: int


def paired_change(values: np.ndarray, baseline: np.ndarray, confidence: float = CONFIDENCE) -> PairedChange:
    """Change of a positive quantity on a log scale, seed by seed; infinite (never) counts as the largest.

    Pairs in which either is not positive or was never measured, or both are infinite, drop out; the count says how many
    remain.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.log(np.where(values > 0, values, np.nan)) - np.log(np.where(baseline > 0, baseline, np.nan))
    return median_change(change, confidence)


def median_change(change: np.ndarray, confidence: float = CONFIDENCE) -> PairedChange:
    """Median of changes, NaN left out, with its interval."""
    change = np.asarray(change)[~np.isnan(change)]
    if change.size == 0:
        return PairedChange(np.nan, np.nan, np.nan, 0)
    return PairedChange(*median_interval(change.ravel(), confidence=confidence), change.size)


def known_median(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Median along an axis of what was measured, NaN left out; NaN where nothing was."""
    nothing = np.isnan(values).all(axis=axis, keepdims=True)
    return np.where(nothing.squeeze(axis), np.nan, np.nanmedian(np.where(nothing, 0.0, values), axis=axis))


def absolute(change: PairedChange) -> PairedChange:
    """The size of a change, with the interval of sizes that its interval allows."""
    median, low, high, pairs = change
    least = 0.0 if low < 0 < high else min(abs(low), abs(high))
    return PairedChange(abs(median), least, max(abs(low), abs(high)), pairs)


def worst_change(kind, id: str, text: str, changes: list[PairedChange], *, bound: float = 0.0, **about) -> Statement:
    """A statement about several changes: the one nearest to breaking the bound; any that could not be measured breaks it.

    Args:
        kind: `at_most` or `at_least`.
        id, text: of the statement; the text gets how many there were.
        changes: one for each feature or setting.
        bound: on the change.
        about: the other fields of the statement.
    """
    unmeasured = [change for change in changes if change.pairs == 0]
    end = (lambda change: -change.low) if kind is at_least else (lambda change: change.high)
    worst = unmeasured[0] if unmeasured else max(changes, key=end)
    counts = sorted({change.pairs for change in changes})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return kind(
        id,
        f"{text} ({number} runs: median, 99 % interval{', the worst of ' + str(len(changes)) if len(changes) > 1 else ''})",
        bound=bound,
        measured=worst.median,
        interval=(worst.low, worst.high),
        count=len(changes),
        **about,
    )
