"""Running of claims in float64 and float32, with the statements of both side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import xarray as xr

from icl_theory.verification.claim import Claim
from icl_theory.verification.claims import all_claims
from icl_theory.verification.statements import Statement


@dataclasses.dataclass(frozen=True)
class Row:
    """A statement judged in float64, and in float32 if it was measured there too (else None)."""

    statement: Statement
    float32: Statement | None = None

    @property
    def holds(self) -> bool:
        """True where the statement holds in float64."""
        return self.statement.holds

    @property
    def holds_float32(self) -> bool | None:
        """True where the statement holds in float32 with the same tolerance; None where that was not measured."""
        return None if self.float32 is None else self.float32.holds

    def as_dict(self) -> dict[str, Any]:
        """Return the row as a dictionary for JSON."""
        row = dataclasses.asdict(self.statement) | {"holds": self.holds, "holds_float32": self.holds_float32}
        if self.float32 is not None:
            row["measured_float32"], row["error_float32"] = self.float32.measured, self.float32.error
        return row


def rows_of(claim: Claim, data: xr.Dataset, single: xr.Dataset | None = None) -> list[Row]:
    """Judge the statements of a claim on its data in float64 and, if given, in float32."""
    table = claim.statements.read(data)
    if single is None:
        return [Row(statement) for statement in table]
    return [Row(*pair) for pair in zip(table, claim.statements.read(single), strict=True)]


def verify(
    claims: Sequence[Claim] | None = None,
    *,
    float32: bool = True,
    progress: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> list[Row]:
    """Measure claims and judge their statements.

    Args:
        claims: claims to measure; None for all.
        float32: whether to measure claims with `Claim.single` in float32 too.
        progress: called with the title of the measurement, the number done, and the total.

    Returns:
        One row per statement. All statements should hold in float64.
    """
    rows: list[Row] = []
    for claim in all_claims() if claims is None else claims:
        if not claim.statements.entries:
            continue
        measured = [
            claim.data(precision, partial(progress, f"{claim.title} ({precision})"))
            for precision in claim.precisions()
            if float32 or precision == "float64"
        ]
        rows += rows_of(claim, *measured)
    return rows
