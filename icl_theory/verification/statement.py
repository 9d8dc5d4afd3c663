"""One line of the verification table: a prediction, a measurement, and how far apart they may be."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Statement:
    """A checked statement. It holds when `error <= tolerance`, with the tolerance written before the run.

    Attributes:
        id: letter of the claim and a number.
        text: what is stated.
        source: where it comes from.
        code: the function in this package that predicts.
        relation: "=", "≤" or "≥": how the measurement should stand to the prediction.
        predicted, measured: numbers; for a statement about many numbers, the pair that deviates most.
        error: deviation in `unit`.
        unit: "relative", "absolute", "standard errors", "interval half-widths" or "excess".
        tolerance: largest allowed error.
        interval: confidence interval of the measurement, where it has one.
        count: how many numbers were compared.
        figure: the figure that shows it, or "".
    """

    id: str
    text: str
    source: str
    code: str
    relation: str
    predicted: float
    measured: float
    error: float
    unit: str
    tolerance: float
    interval: tuple[float, float] | None = None
    count: int = 1
    figure: str = ""

    @property
    def holds(self) -> bool:
        """False for a NaN error too."""
        return bool(self.error <= self.tolerance)


def agrees(id: str, text: str, *, predicted: Any, measured: Any, tolerance: float, relative: bool = True, **about: Any):
    """Numbers that should be equal; relative errors are taken against the largest |prediction|."""
    predicted, measured = np.broadcast_arrays(np.asarray(predicted, float), np.asarray(measured, float))
    error = np.abs(measured - predicted)
    if relative:
        scale = np.max(np.abs(predicted))
        error = error / scale if scale > 0 else error * math.inf
    worst = int(np.argmax(np.where(np.isnan(error), math.inf, error)))
    return Statement(
        id=id,
        text=text,
        relation="=",
        predicted=float(predicted.flat[worst]),
        measured=float(measured.flat[worst]),
        error=float(error.flat[worst]),
        unit="relative" if relative else "absolute",
        tolerance=tolerance,
        count=predicted.size,
        **about,
    )


def agrees_each(id: str, text: str, *, predicted: Any, measured: Any, tolerance: float, **about: Any) -> Statement:
    """Numbers that should be equal, each with a relative error of its own."""
    predicted, measured = np.asarray(predicted, float), np.asarray(measured, float)
    with np.errstate(invalid="ignore"):  # never learned, in theory or here: no agreement
        error = np.abs(measured - predicted) / np.abs(predicted)
    worst = int(np.argmax(np.where(np.isnan(error), math.inf, error)))
    return Statement(
        id=id,
        text=text,
        relation="=",
        predicted=float(predicted.flat[worst]),
        measured=float(measured.flat[worst]),
        error=float(error.flat[worst]),
        unit="relative",
        tolerance=tolerance,
        count=predicted.size,
        **about,
    )


def within_standard_errors(
    id: str, text: str, *, predicted: Any, mean: Any, standard_error: Any, tolerance: float = 4.0, **about: Any
) -> Statement:
    """A Monte Carlo mean against its exact value, in units of the standard error."""
    predicted, mean, spread = (np.asarray(values, float) for values in (predicted, mean, standard_error))
    error = np.abs(mean - predicted) / spread
    worst = int(np.argmax(np.where(np.isnan(error), math.inf, error)))
    center, half = mean.flat[worst], tolerance * spread.flat[worst]
    return Statement(
        id=id,
        text=text,
        relation="=",
        predicted=float(predicted.flat[worst]),
        measured=float(center),
        error=float(error.flat[worst]),
        unit="standard errors",
        tolerance=tolerance,
        interval=(float(center - half), float(center + half)),
        count=predicted.size,
        **about,
    )


def at_most(id: str, text: str, *, bound: float, measured: float, interval=None, **about: Any) -> Statement:
    """A measurement (or the upper end of its interval) that should not exceed a bound."""
    value = measured if interval is None else interval[1]
    return _bounded(id, text, "≤", bound, measured, value - bound, interval, about)


def at_least(id: str, text: str, *, bound: float, measured: float, interval=None, **about: Any) -> Statement:
    """A measurement (or the lower end of its interval) that should not fall below a bound."""
    value = measured if interval is None else interval[0]
    return _bounded(id, text, "≥", bound, measured, bound - value, interval, about)


def _bounded(id, text, relation, bound, measured, excess, interval, about) -> Statement:
    return Statement(
        id=id,
        text=text,
        relation=relation,
        predicted=float(bound),
        measured=float(measured),
        error=float(max(excess, 0.0)) if not math.isnan(excess) else math.nan,
        unit="excess",
        tolerance=0.0,
        interval=interval,
        **about,
    )
