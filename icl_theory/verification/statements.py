"""Statements as functions: each reads a prediction and a measurement off the data of its claim.

    table = Statements("dynamics", source="notes §5")

    @table.agrees("GD learns every feature at the closed-form hitting time", predictor=hitting_time, rtol=5e-3)
    def learned_at_the_hitting_time(data):
        return data.hitting_time, data.learning_time

The function's name is the statement's name; the sentence may hold `{seed}` and the like, the length of that dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from icl_theory.verification.changes import Change, worst_of
from icl_theory.verification.statement import Statement

Read = Callable[..., Any]


class Reading(NamedTuple):
    """Reading of a statement, where a bare number does not say it all.

    Attributes:
        measured: a number or an array.
        predicted: the same shape; None for a bound.
        interval: confidence interval of the measurement.
        error: its deviation in the statement's unit, where the function reckons it itself.
        count: how many numbers were compared; default those in `measured`.
        note: in words, put after the sentence.
    """

    measured: Any
    predicted: Any = None
    interval: tuple[float, float] | None = None
    error: float | None = None
    count: int | None = None  # type: ignore[assignment]
    note: str = ""


class Entry(NamedTuple):
    """One statement before it is read: its sentence, the function that reads it and how it is judged."""

    name: str
    text: str
    read: Read
    judge: Callable[[Any], dict[str, Any]]
    about: dict[str, Any]


class Statements:
    """The statements of one claim, in the order in which they stand in its module.

    Args:
        group: name of the claim.
        source: where its statements come from, unless one says otherwise.
    """

    def __init__(self, group: str, *, source: str):
        self.group, self.source = group, source
        self.entries: list[Entry] = []

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    @property
    def names(self) -> list[str]:
        """Full names, `group/name`."""
        return [f"{self.group}/{entry.name}" for entry in self.entries]

    def agrees(
        self,
        text: str,
        *,
        rtol: float | None = None,
        rtol_of_largest: float | None = None,
        atol: float | None = None,
        standard_errors: float | None = None,
        half_widths: float | None = None,
        **about: Any,
    ) -> Callable[[Read], Read]:
        """State that what the function returns, `(predicted, measured)`, agrees; the worst pair is judged.

        Args:
            text: the sentence.
            rtol: largest error of each number relative to its own prediction.
            rtol_of_largest: largest error relative to the largest prediction.
            atol: largest absolute error.
            standard_errors: largest error in standard errors; the function returns `(predicted, mean, standard_error)`.
            half_widths: largest error in half-widths of an interval; the function returns a `Reading` with its error.
            about: `predictor`, the object that predicts; `figure`; `source`; `cases` (below); `after_measurement`.

        With `cases={"plain": "Γ = I", …}` the function takes `(data, case)` and makes one statement for each, named
        `function_case`; `{case}` in the sentence stands for the words.
        """
        given = {
            "relative": rtol,
            "relative to the largest": rtol_of_largest,
            "absolute": atol,
            "standard errors": standard_errors,
            "interval half-widths": half_widths,
        }
        kinds = [kind for kind, tolerance in given.items() if tolerance is not None]
        if len(kinds) != 1:
            raise TypeError(f"give one tolerance, not {len(kinds)}")
        kind, tolerance = kinds[0], float(given[kinds[0]] or 0.0)
        return self._adder(text, lambda found: _agreement(found, kind, tolerance), about)

    def at_most(self, text: str, *, bound: float = 0.0, **about: Any) -> Callable[[Read], Read]:
        """State that what the function returns (its largest number, or the upper end of its interval) is at most
        `bound`.

        It may return a number, an array, a `Reading`, or changes over seeds: then the worst of them is judged.
        `about` as in `agrees`.
        """
        return self._adder(text, lambda found: _bounded(found, bound, upper=True), about)

    def at_least(self, text: str, *, bound: float = 0.0, **about: Any) -> Callable[[Read], Read]:
        """State that what the function returns (its least number, or the lower end of its interval) is at least
        `bound`.
        """
        return self._adder(text, lambda found: _bounded(found, bound, upper=False), about)

    def read(self, data: xr.Dataset) -> list[Statement]:
        """Read all statements off the data."""
        return [self._statement(entry, data) for entry in self.entries]

    def _statement(self, entry: Entry, data: xr.Dataset) -> Statement:
        judged = entry.judge(entry.read(data))
        note = judged.pop("note")
        text = entry.text.format(**{str(name): size for name, size in data.sizes.items()})
        return Statement(
            name=f"{self.group}/{entry.name}", text=f"{text} ({note})" if note else text, **judged, **entry.about
        )

    def _adder(
        self, text: str, judge: Callable[[Any], dict[str, Any]], about: dict[str, Any]
    ) -> Callable[[Read], Read]:
        about = {"source": self.source, **about}
        cases: Mapping[str, str] | None = about.pop("cases", None)
        predictor = about.pop("predictor")
        about["predictor"] = f"{predictor.__module__}.{predictor.__qualname__}"

        def add(function: Read) -> Read:
            name = function.__name__
            if cases is None:
                self.entries.append(Entry(name, text, function, judge, about))
            for case, words in (cases or {}).items():
                sentence = text.replace("{case}", words)
                self.entries.append(Entry(f"{name}_{case}", sentence, _of_case(function, case), judge, about))
            return function

        return add


def _of_case(function: Read, case: str) -> Read:
    return lambda data: function(data, case)


def _agreement(found: Any, kind: str, tolerance: float) -> dict[str, Any]:
    """Fields of a statement that two sets of numbers are equal."""
    if not isinstance(found, Reading):
        predicted, measured, *spread = _aligned(*found)
        found = Reading(measured, predicted)
    else:
        predicted, measured, spread = *_aligned(found.predicted, found.measured), []
    with np.errstate(all="ignore"):  # what was never measured does not agree
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
        "count": predicted.size if found.count is None else found.count,
        "note": found.note,
    }


def _bounded(found: Any, bound: float, *, upper: bool) -> dict[str, Any]:
    """Fields of a statement about a bound; a value that was not measured breaks it."""
    if isinstance(found, Change):
        found = [found]
    if isinstance(found, Sequence) and not isinstance(found, Reading) and isinstance(found[0], Change):
        worst = worst_of(found, upper=upper)
        found = Reading(worst.median, interval=(worst.low, worst.high), count=len(found), note=_runs(found))
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
        "count": values.size if found.count is None else found.count,
        "note": found.note,
    }


def _runs(changes: Sequence[Change]) -> str:
    """Over how many runs a median was taken, and of how many the worst is shown."""
    pairs = sorted({change.pairs for change in changes})
    number = str(pairs[0]) if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    worst = f", the worst of {len(changes)}" if len(changes) > 1 else ""
    return f"{number} runs: median, 99 % interval{worst}"


def _aligned(*values: Any) -> list[np.ndarray]:
    """Arrays of one shape: by the names of their dimensions where all have them, else by position."""
    if all(isinstance(value, xr.DataArray) for value in values):
        values = xr.broadcast(*values)
    return [np.asarray(value) for value in np.broadcast_arrays(*(np.asarray(value, float) for value in values))]
