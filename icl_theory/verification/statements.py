"""Statements as functions: each reads a prediction and a measurement off the data of its claim.

    table = Statements("dynamics", source="notes §5")

    @table.agrees("GD learns every feature at the closed-form hitting time", predictor=hitting_time, rtol=5e-3)
    def learned_at_the_hitting_time(data):
        return data.hitting_time, data.learning_time

The function's name is the statement's name; the sentence may hold `{seed}` and the like, the length of that dimension.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import xarray as xr

from icl_theory.verification.judging import agreement, bounded

Read = Callable[..., Any]
ABOUT = ("source", "figure", "after_measurement")


@dataclasses.dataclass(frozen=True)
class Statement:
    """A checked statement. It holds when `error <= tolerance`, with the tolerance written before the run, unless
    `after_measurement` says otherwise.

    Attributes:
        name: group and name, such as `dynamics/learned_at_the_hitting_time`.
        text: the sentence.
        source: where it comes from.
        predictor: dotted name of the object in this package that predicts.
        relation: "=", "≤" or "≥": how the measurement should stand to the prediction.
        predicted, measured: numbers; for a statement about many numbers, the pair that deviates most.
        error: deviation in `unit`.
        unit: "relative", "absolute", "standard errors", "interval half-widths" or "excess".
        tolerance: largest allowed error.
        interval: confidence interval of the measurement, where it has one.
        count: how many numbers were compared.
        figure: the figure that shows it, or "".
        after_measurement: why the bound was set after a first measurement, or "" for one that stood before.
    """

    name: str
    text: str
    source: str
    predictor: str
    relation: str
    predicted: float
    measured: float
    error: float
    unit: str
    tolerance: float
    interval: tuple[float, float] | None = None
    count: int = 1
    figure: str = ""
    after_measurement: str = ""

    @property
    def holds(self) -> bool:
        """True where the error is within the tolerance; a NaN never is."""
        return bool(self.error <= self.tolerance)


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
        predictor: Any,
        cases: Mapping[str, str] | Sequence[str] | None = None,
        **about: str,
    ) -> Callable[[Read], Read]:
        """State that what the function returns, `(predicted, measured)`, agrees; the worst pair is judged.

        Args:
            text: the sentence.
            rtol: largest error of each number relative to its own prediction.
            rtol_of_largest: largest error relative to the largest prediction.
            atol: largest absolute error.
            standard_errors: largest error in standard errors; the function returns `(predicted, mean, standard_error)`.
            half_widths: largest error in half-widths of an interval; the function returns a `Reading` with its error.
            predictor: the function or class that predicts.
            cases: makes one statement for each (below).
            about: `figure`, `source` and `after_measurement` of the statement.

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
        tolerances = {kind: tolerance for kind, tolerance in given.items() if tolerance is not None}
        if len(tolerances) != 1:
            raise TypeError(f"give one tolerance, not {len(tolerances)}")
        ((kind, tolerance),) = tolerances.items()
        return self._adder(text, lambda found: agreement(found, kind, tolerance), predictor, cases, about)

    def at_most(
        self,
        text: str,
        *,
        bound: float = 0.0,
        predictor: Any,
        cases: Mapping[str, str] | Sequence[str] | None = None,
        **about: str,
    ) -> Callable[[Read], Read]:
        """State that what the function returns (its largest number, or the upper end of its interval) is at most
        `bound`.

        It may return a number, an array, a `Reading`, or changes over seeds: then the worst of them is judged.
        The other arguments are those of `agrees`.
        """
        return self._adder(text, lambda found: bounded(found, bound, upper=True), predictor, cases, about)

    def at_least(
        self,
        text: str,
        *,
        bound: float = 0.0,
        predictor: Any,
        cases: Mapping[str, str] | Sequence[str] | None = None,
        **about: str,
    ) -> Callable[[Read], Read]:
        """State that what the function returns (its least number, or the lower end of its interval) is at least
        `bound`.
        """
        return self._adder(text, lambda found: bounded(found, bound, upper=False), predictor, cases, about)

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
        self,
        text: str,
        judge: Callable[[Any], dict[str, Any]],
        predictor: Any,
        cases: Mapping[str, str] | Sequence[str] | None,
        about: dict[str, str],
    ) -> Callable[[Read], Read]:
        unknown = about.keys() - ABOUT
        if unknown:
            raise TypeError(f"{', '.join(sorted(unknown))}: a statement is described by {', '.join(ABOUT)}")
        described = {"source": self.source, **about, "predictor": f"{predictor.__module__}.{predictor.__qualname__}"}
        words = cases if cases is None or isinstance(cases, Mapping) else {case: case for case in cases}

        def add(function: Read) -> Read:
            name = function.__name__
            entries = [Entry(name, text, function, judge, described)]
            if words is not None:
                entries = [
                    Entry(f"{name}_{case}", text.replace("{case}", each), _of_case(function, case), judge, described)
                    for case, each in words.items()
                ]
            for entry in entries:
                if f"{self.group}/{entry.name}" in self.names:
                    raise TypeError(f"{entry.name}: there are two statements of this name")
                self.entries.append(entry)
            return function

        return add


def _of_case(function: Read, case: str) -> Read:
    return lambda data: function(data, case)
