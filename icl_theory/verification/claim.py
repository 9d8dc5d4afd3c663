"""A claim: what is simulated for it, and the statements that are read off the saved numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from icl_theory.verification.statement import Statement

Data = dict[str, np.ndarray]


class Claim(NamedTuple):
    """One letter of the verification table.

    Attributes:
        letter: first letter of its statements' ids.
        name: module and folder name.
        title: a few words for tables and progress bars.
        question: what it asks, in one sentence.
        settings: frozen dataclass with every number the measurement uses.
        measure: `measure(settings, progress) -> dict of arrays`; `progress(done, total)`.
        statements: `statements(data) -> list`, reading the arrays only.
        single: whether to measure it in float32 too; not where most of it is statistical and long.
    """

    letter: str
    name: str
    title: str
    question: str
    settings: Any
    measure: Callable[[Any, Callable[[int, int], None]], Data]
    statements: Callable[[Data], list[Statement]]
    single: bool = True

    def precisions(self) -> tuple[str, ...]:
        """In which it is measured, the judging one first."""
        return ("float64", "float32") if self.single else ("float64",)


def part_of(progress: Callable[[int, int], None], part: int, parts: int) -> Callable[[int, int], None]:
    """The progress of one of several equal parts as progress of the whole; parts count from 0."""
    return lambda done, total: progress(part * total + done, parts * total)
