"""Run claims in float64 and float32 and put the statements side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from icl_theory.verification import (
    closed_forms,
    context_lengths,
    dynamics,
    fixed_points,
    generalisation,
    in_weight_learning,
    low_rank,
    many_features,
    principal_components,
    random_initialisation,
    sam_by_data,
    sharpness,
    softmax,
    upsampling,
    weights,
)
from icl_theory.verification.claim import Claim, Data
from icl_theory.verification.statement import Statement

CLAIMS: tuple[Claim, ...] = (
    closed_forms.CLAIM,
    fixed_points.CLAIM,
    dynamics.CLAIM,
    random_initialisation.CLAIM,
    sharpness.CLAIM,
    upsampling.CLAIM,
    sam_by_data.CLAIM,
    generalisation.CLAIM,
    low_rank.CLAIM,
    context_lengths.CLAIM,
    in_weight_learning.CLAIM,
    softmax.CLAIM,
    weights.CLAIM,
    many_features.CLAIM,
    principal_components.CLAIM,
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A statement in float64, and whether it is also within its tolerance in float32 (None: not run)."""

    statement: Statement
    float32: Statement | None = None

    @property
    def holds(self) -> bool:
        """In float64."""
        return self.statement.holds

    @property
    def holds_float32(self) -> bool | None:
        """Whether the same measurement in float32 stays within the same tolerance."""
        return None if self.float32 is None else self.float32.holds

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        row = dataclasses.asdict(self.statement) | {"holds": self.holds, "holds_float32": self.holds_float32}
        if self.float32 is not None:
            row["measured_float32"], row["error_float32"] = self.float32.measured, self.float32.error
        return row


def measure_claim(
    claim: Claim, *, float64: bool, progress: Callable[[int, int], None] = lambda done, total: None
) -> Data:
    """Measure in one precision, whatever the session's own setting; it is restored afterwards."""
    with jax.enable_x64(float64):
        return claim.measure(claim.settings, progress)


def combine(claim: Claim, data: Data, data32: Data | None) -> list[Row]:
    """The statements of a claim from its data in float64 and, where given, float32."""
    table = claim.statements(data)
    if data32 is None:
        return [Row(statement) for statement in table]
    return [Row(*pair) for pair in zip(table, claim.statements(data32), strict=True)]


def verify(
    claims: Sequence[Claim] = CLAIMS,
    *,
    float32: bool = True,
    progress: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> list[Row]:
    """Measure and judge.

    Args:
        claims: which; default all.
        float32: whether to measure in single precision too what is not statistical and long (`Claim.single`).
        progress: called with (title of the measurement, done, total).

    Returns:
        One row per statement. All of them hold in float64 unless something is broken.
    """
    rows: list[Row] = []
    for claim in claims:
        measured: list[Data | None] = []
        for precision in ("float64", "float32"):
            title = f"{claim.letter}. {claim.title} ({precision})"
            if precision == "float64" or (float32 and precision in claim.precisions()):
                measured.append(measure_claim(claim, float64=precision == "float64", progress=partial(progress, title)))
            else:
                measured.append(None)
        assert measured[0] is not None
        rows += combine(claim, measured[0], measured[1])
    return rows
