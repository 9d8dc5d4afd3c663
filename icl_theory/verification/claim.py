"""Claims: a simulation, and the statements that are checked on its data."""

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
    """A group of the verification table, and an experiment of `make reproduce`.

    Attributes:
        name: name of the module, the folder and the command-line argument.
        question: the question that the claim answers, in one sentence.
        settings: frozen dataclass with every number that the measurement uses.
        measure: function `measure(settings, progress) -> data set`, which calls `progress(done, total)`.
        statements: statements that use this data set only; empty if only figures use the data.
        single: whether to measure in float32 too; False for claims that are mostly statistical and slow.
        seconds: approximate time on one core, compilation included.
    """

    name: str
    question: str
    settings: Any
    measure: Callable[[Any, Progress], xr.Dataset]
    statements: Statements
    single: bool = False
    seconds: float = 20.0

    def precisions(self) -> tuple[str, ...]:
        """Return the precisions in which the claim is measured; the first one decides."""
        return ("float64", "float32") if self.single else ("float64",)

    @property
    def title(self) -> str:
        """Short title for tables and progress bars."""
        return NAMES.get(self.name, self.name)

    @property
    def takes(self) -> str:
        """Description of the settings: the docstring of their class."""
        return " ".join((type(self.settings).__doc__ or "").split())

    @property
    def command(self) -> str:
        """Shell command that produces the data of the claim."""
        return f"python -m experiments run {self.name}"

    def data(self, precision: str = "float64", progress: Progress = lambda done, total: None) -> xr.Dataset:
        """Measure the claim in one precision; the precision of the session is restored afterwards."""
        with jax.enable_x64(precision == "float64"):
            return self.measure(self.settings, progress)


def part_of(progress: Progress, part: int, parts: int) -> Progress:
    """Turn the progress of one of several equal parts into progress of the whole; parts are numbered from 0."""
    return lambda done, total: progress(part * total + done, parts * total)
