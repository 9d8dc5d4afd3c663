"""Statements as functions that return a prediction and a measurement from the data of a claim.

    table = Statements("dynamics", source="notes §5")

    @table.agrees("GD learns every feature at the closed-form hitting time", predictor=hitting_time, rtol=5e-3)
    def learned_at_the_hitting_time(data):
        return data.hitting_time, data.learning_time

The function's name is the statement's name. In the sentence, `{seed}` stands for the length of the dimension `seed`.
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
    """A checked statement, which holds if `error <= tolerance`.

    The tolerance was set before the run, unless `after_measurement` says otherwise.

    Attributes:
        name: group and name, such as `dynamics/learned_at_the_hitting_time`.
        text: the sentence.
        source: source of the statement, such as a section of the notes.
        predictor: dotted name of the object in this package that makes the prediction.
        relation: "=", "≤" or "≥": expected relation of the measurement to the prediction.
        predicted: predicted value; among several, that of the pair that deviates most.
        measured: measured value; among several, that of the pair that deviates most.
        error: deviation in `unit`.
        unit: "relative", "absolute", "standard errors", "interval half-widths" or "excess".
        tolerance: largest allowed error.
        interval: confidence interval of the measurement; None if there is none.
        count: number of values compared.
        figure: name of the figure that shows the statement, or "".
        after_measurement: reason why the bound was set after a first measurement; "" if it was set before.
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
    """A statement before it is checked: its sentence, the function that reads the data, and how it is judged."""

    name: str
    text: str
    read: Read
    judge: Callable[[Any], dict[str, Any]]
    about: dict[str, Any]


class Statements:
    """The statements of one claim, in the order of definition.

    Args:
        group: name of the claim.
        source: default source of its statements.
    """

    def __init__(self, group: str, *, source: str):
        self.group, self.source = group, source
        self.entries: list[Entry] = []

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    @property
    def names(self) -> list[str]:
        """Full names `group/name` of the statements."""
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
        """Declare that the `(predicted, measured)` values returned by the function agree; the worst pair is judged.

        Args:
            text: the sentence.
            rtol: largest error of each number relative to its own prediction.
            rtol_of_largest: largest error relative to the largest prediction.
            atol: largest absolute error.
            standard_errors: largest error in standard errors; the function returns `(predicted, mean, standard_error)`.
            half_widths: largest error in half-widths of an interval; the function returns a `Reading` with its error.
            predictor: function or class that makes the prediction.
            cases: cases of which each makes its own statement (see below).
            about: `figure`, `source` and `after_measurement` of the statement.

        With `cases={"plain": "Γ = I", …}` the function takes `(data, case)`. Each case makes a statement named
        `function_case`, in whose sentence `{case}` stands for the words of the case.
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
        """Declare that the largest returned value, or the upper end of its interval, is at most `bound`.

        The function may return a number, an array, a `Reading`, or changes over seeds, of which the worst is judged.
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
        """Declare that the least returned value, or the lower end of its interval, is at least `bound`.

        The function and the other arguments are as for `at_most`.
        """
        return self._adder(text, lambda found: bounded(found, bound, upper=False), predictor, cases, about)

    def read(self, data: xr.Dataset) -> list[Statement]:
        """Check all statements on the data."""
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
