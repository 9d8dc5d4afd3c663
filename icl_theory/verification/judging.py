"""Judging of statements: how far a measurement is from its prediction or bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from icl_theory.verification.changes import Change, worst_of


class Reading(NamedTuple):
    """Measurement for a statement that needs more than a bare number.

    Attributes:
        measured: measured number or array.
        predicted: prediction, of the same shape; None for a bound.
        interval: confidence interval of the measurement; None if there is none.
        error: deviation in the unit of the statement; None to compute it from the other fields.
        compared: number of values compared; None for the number of predicted values (measured ones, for a bound).
        note: text to append to the sentence of the statement.
    """

    measured: Any
    predicted: Any = None
    interval: tuple[float, float] | None = None
    error: float | None = None
    compared: int | None = None
    note: str = ""


def agreement(found: Any, kind: str, tolerance: float) -> dict[str, Any]:
    """Return the fields of a statement that two sets of numbers are equal, for the pair with the largest error."""
    if not isinstance(found, Reading):
        predicted, measured, *spread = _aligned(*found)
        found = Reading(measured, predicted)
    else:
        predicted, measured, spread = *_aligned(found.predicted, found.measured), []
    with np.errstate(all="ignore"):  # a NaN counts as an infinite error
        error = np.abs(measured - predicted)
        if found.error is not None:
            error = np.broadcast_to(found.error, error.shape)
        elif kind == "relative":
            error = error / np.abs(predicted)
        elif kind == "relative to the largest":
            scale = np.max(np.abs(predicted))
            error = error / scale if scale > 0 else error * math.inf
        elif kind == "standard errors":
            error = error / spread[0]
    worst = int(np.argmax(np.where(np.isnan(error), math.inf, error)))
    interval = found.interval
    if kind == "standard errors" and spread:
        half = tolerance * spread[0].flat[worst]
        interval = (float(measured.flat[worst] - half), float(measured.flat[worst] + half))
    return {
        "relation": "=",
        "predicted": float(predicted.flat[worst]),
        "measured": float(measured.flat[worst]),
        "error": float(error.flat[worst]),
        "unit": "relative" if kind.startswith("relative") else kind,
        "tolerance": tolerance,
        "interval": interval,
        "count": predicted.size if found.compared is None else found.compared,
        "note": found.note,
    }


def bounded(found: Any, bound: float, *, upper: bool) -> dict[str, Any]:
    """Return the fields of a statement about a bound; a NaN violates it."""
    if isinstance(found, Change):
        found = [found]
    if isinstance(found, Sequence) and not isinstance(found, Reading) and isinstance(found[0], Change):
        worst = worst_of(found, upper=upper)
        found = Reading(worst.median, interval=(worst.low, worst.high), compared=len(found), note=_runs(found))
    elif not isinstance(found, Reading):
        found = Reading(found)
    values = np.asarray(found.measured, float)
    measured = float(values.max() if upper else values.min())
    end = measured if found.interval is None else float(found.interval[1 if upper else 0])
    excess = end - bound if upper else bound - end
    return {
        "relation": "≤" if upper else "≥",
        "predicted": float(bound),
        "measured": measured,
        "error": math.nan if math.isnan(excess) else max(excess, 0.0),
        "unit": "excess",
        "tolerance": 0.0,
        "interval": found.interval,
        "count": values.size if found.compared is None else found.compared,
        "note": found.note,
    }


def _runs(changes: Sequence[Change]) -> str:
    """Describe in words the number of runs behind a median, and the number of changes of which the worst is shown."""
    pairs = sorted({change.pairs for change in changes})
    number = str(pairs[0]) if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    worst = f", the worst of {len(changes)}" if len(changes) > 1 else ""
    return f"{number} runs: median, 99 % interval{worst}"


def _aligned(*values: Any) -> list[np.ndarray]:
    """Broadcast arrays to one shape, by dimension names if all have them, else by position."""
    if all(isinstance(value, xr.DataArray) for value in values):
        values = xr.broadcast(*values)
    return [np.asarray(value) for value in np.broadcast_arrays(*(np.asarray(value, float) for value in values))]
