"""Effects that the verdicts rest on: factors from statements on logarithms, gains of accuracy from saved studies."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from icl_theory.llm.evaluation.study import paired
from icl_theory.verification.statements import Statement

PLACES = ((0.01, 2), (0.0, 3))  # least half-width of an interval that is written to so many decimals


class Effect(NamedTuple):
    """Number with its confidence interval, and the number that would mean no effect.

    Attributes:
        middle: median or mean.
        low: lower end of the interval.
        high: upper end of the interval.
        nothing: 1 for a factor, 0 for a difference.
    """

    middle: float
    low: float
    high: float
    nothing: float = 1.0

    @property
    def below(self) -> bool:
        """True where the whole interval lies below no effect."""
        return self.high < self.nothing

    @property
    def above(self) -> bool:
        """True where the whole interval lies above no effect."""
        return self.low > self.nothing

    def word(self, wanted: str) -> str:
        """Return "yes" for an effect on the wanted side ("below" or "above"), "no" on the other, else "not shown"."""
        return "yes" if getattr(self, wanted) else "no" if self.below or self.above else "not shown"

    def __str__(self) -> str:
        if self.nothing == 0.0:
            half = (self.high - self.low) / 2
            hidden = (self.below or self.above) and round(abs(self.middle), 2) <= round(half, 2)
            places = 3 if hidden else 2  # so many that zero is seen to be left out
            return f"{_signed(self.middle, places)} ± {half:.{places}f}"
        places = next((many for least, many in PLACES if self.high - self.low >= 2 * least), 2)
        return f"× {self.middle:.{places}f} ({self.low:.{places}f} to {self.high:.{places}f})"


def factor(statement: Statement) -> Effect:
    """Return the factor of which a statement measures the logarithm, with its interval."""
    low, high = statement.interval or (np.nan, np.nan)
    return Effect(*(float(np.exp(value)) for value in (statement.measured, low, high)))


def gain(study: dict[str, Any], arm: str, other: str = "plain", measured: str = "accuracy") -> Effect:
    """Return by how much an arm of a study exceeds another: mean over paired seeds, Student's 95 % interval.

    Args:
        study: a saved study.
        arm: optimizer and arm, such as `adamw late`.
        other: arm of the same optimizer that it is compared with.
        measured: list of the arms with a number for each seed.
    """
    arms = study["arms"]
    before = arms[f"{arm.split()[0]} {other}"][measured]
    mean, half = paired(np.array(arms[arm][measured]) - np.array(before))
    return Effect(mean, mean - half, mean + half, nothing=0.0)


def _signed(value: float, places: int) -> str:
    text = f"{value:+.{places}f}".replace("-", "−")
    return text if float(text[1:]) else text[1:]
