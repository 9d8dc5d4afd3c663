"""The printed lines of the benchmark: each row beside its bound and the figure of the last release."""

from __future__ import annotations

from typing import Any

from experiments.benchmarks.results import Place, Results
from experiments.benchmarks.row import Row

WORSE = 0.9  # a figure is marked below this share of the last release's
SETTING, FIGURE, NUMBER, UNIT, BOUND = 36, 43, 9, 15, 24  # widths of columns


def line(row: Row, released: float | None, *, with_setting: bool = True) -> str:
    """Format one row; `with_setting=False` leaves out its setting, as below a row of the same setting."""
    sign = "≤" if row.less else "≥"
    bound = "" if row.reach is None else f"{sign} {number(row.reach)} {row.verdict}"
    columns = (
        f"{row.setting if with_setting else '':{SETTING}}",
        f"{row.what:{FIGURE}}",
        f"{number(row.value):>{NUMBER}}",
        f"{row.unit:{UNIT}}",
        f"{bound:{BOUND}}",
        beside_release(row, released),
    )
    return "  " + " ".join(columns).rstrip()


def beside_release(row: Row, released: float | None) -> str:
    """Format the figure of the last release, the ratio of this one to it, and a mark if this one is worse."""
    if released is None:
        return ""
    ratio = f": × {row.value / released:.2f}" if released else ""
    return f"release {number(released)}{ratio}{' worse' if is_worse(row, released) else ''}"


def is_worse(row: Row, released: float | None) -> bool:
    """Return whether a figure is worse than that of the last release by more than a tenth."""
    return released is not None and row.gain_over(released) < WORSE


def number(value: float) -> str:
    """Format three significant digits, or from 1000 on a whole number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def described(about: dict[str, Any]) -> str:
    """Format version and machine on one line."""
    return f"icl_theory {about['code']}, " + ", ".join(f"{name} {value}" for name, value in about["machine"].items())


def summary(results: Results, places: list[Place], released: Results | None) -> list[str]:
    """Count the bounds that are met and the figures that are worse than those of the last release."""
    rows = [(place, row) for place in places for row in results.rows[place]]
    verdicts = [row.verdict for _, row in rows if row.reach is not None]
    lines = [f"{verdicts.count('met')} of {len(verdicts)} bounds met"]
    if released is not None:
        pairs = [(row, released.find(place, row)) for place, row in rows]
        compared = [(row, before) for row, before in pairs if before is not None]
        fallen = sum(is_worse(row, before) for row, before in compared)
        lines.append(f"{fallen} of {len(compared)} figures worse than the last release by more than a tenth")
    return lines
