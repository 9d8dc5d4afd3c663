"""A claim: what is simulated for it, and the statements that are read off the saved data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import xarray as xr

from icl_theory.verification.names import NAMES
from icl_theory.verification.statements import Statements

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Claim:
    """One group of the verification table, and one experiment of `make reproduce`.

    Attributes:
        name: module, folder and command-line name.
        question: what it asks, in one sentence.
        settings: frozen dataclass with every number the measurement uses.
        measure: `measure(settings, progress) -> data set`; `progress(done, total)`.
        statements: read off that data set only; empty for data that only figures use.
        single: whether to measure it in float32 too; not where most of it is statistical and long.
        seconds: roughly what it takes on one core with nothing compiled yet.
    """

    name: str
    question: str
    settings: Any
    measure: Callable[[Any, Progress], xr.Dataset]
    statements: Statements
    single: bool = False
    seconds: float = 20.0

    def precisions(self) -> tuple[str, ...]:
        """Precisions in which it is measured, the judging one first."""
        return ("float64", "float32") if self.single else ("float64",)

    @property
    def title(self) -> str:
        """A few words for tables and progress bars."""
        return NAMES.get(self.name, self.name)

    @property
    def takes(self) -> str:
        """Its setting in words, as the settings' class describes it."""
        return " ".join((type(self.settings).__doc__ or "").split())

    @property
    def command(self) -> str:
        """Command that makes its data."""
        return f"python -m experiments run {self.name}"

    def data(self, precision: str = "float64", progress: Progress = lambda done, total: None) -> xr.Dataset:
        """Measure in one precision, whatever the session's own setting; it is restored afterwards."""
        with jax.enable_x64(precision == "float64"):
            return self.measure(self.settings, progress)


def part_of(progress: Progress, part: int, parts: int) -> Progress:
    """Return the progress of one of several equal parts as progress of the whole; parts count from 0."""
    return lambda done, total: progress(part * total + done, parts * total)
