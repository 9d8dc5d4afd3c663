"""The verification table as text for a terminal and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from icl_theory.environment import code_version, machine
from icl_theory.verification.names import NAMES
from icl_theory.verification.runner import Row

UNITS = {
    "relative": "rel.",
    "absolute": "abs.",
    "standard errors": "SE",
    "interval half-widths": "half-widths",
    "excess": "over bound",
}


def number(value: float, digits: int = 4) -> str:
    """Format a number with the given number of significant digits, in scientific notation if that is shorter."""
    if value == 0:
        return "0"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.{digits}g}".replace("-", "−")


def measured_text(row: Row) -> str:
    """Format the measurement, with its interval if there is one."""
    statement = row.statement
    if statement.interval is None:
        return number(statement.measured)
    low, high = statement.interval
    return f"{number(statement.measured)} [{number(low)}, {number(high)}]"


def predicted_text(row: Row) -> str:
    """Format the prediction, with its relation unless that is equality."""
    relation = row.statement.relation
    return number(row.statement.predicted) if relation == "=" else f"{relation} {number(row.statement.predicted)}"


def error_text(row: Row) -> str:
    """Format error and tolerance with their unit; for a bound, "within" or the excess."""
    statement = row.statement
    if statement.unit == "excess":
        return "within" if row.holds else f"over by {number(statement.error)}"
    return f"{number(statement.error, 2)} of {number(statement.tolerance, 2)} {UNITS[statement.unit]}"


def verdict(holds: bool | None) -> str:
    """Return a verdict as a word."""
    return "–" if holds is None else ("holds" if holds else "FAILS")


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print all rows, group by group, the verdict first, and a line that counts them."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=160, file=console.file)
    single = any(row.holds_float32 is not None for row in rows)
    table = Table(show_lines=False, pad_edge=False, row_styles=["", "dim"])
    for name in ("float64", *(["float32"] if single else [])):
        table.add_column(name)
    table.add_column("statement", ratio=1, min_width=24)
    for name in ("predicted", "measured", "error, tolerance"):
        table.add_column(name)
    group = ""
    for row in rows:
        here, _, name = row.statement.name.partition("/")
        if here != group:
            table.add_section()
            title = f": {NAMES[here]}" if here in NAMES else ""
            table.add_row("", *([""] if single else []), f"[bold]{here}[/bold]{title}")
            group = here
        words = {True: "holds", False: "beyond", None: "–"}[row.holds_float32]
        verdicts = [verdict(row.holds), *([words] if single else [])]
        text = f"{name}\n{row.statement.text}"
        table.add_row(*verdicts, text, predicted_text(row), measured_text(row), error_text(row))
    console.print(table)
    console.print(count(rows), highlight=False)


def count(rows: Sequence[Row]) -> str:
    """Return the number of statements that hold, as a sentence."""
    held = sum(row.holds for row in rows)
    text = f"{held} of {len(rows)} statements hold in float64"
    if any(row.holds_float32 is not None for row in rows):
        text += f"; {sum(bool(row.holds_float32) for row in rows)} are also within tolerance in float32"
    return text + "."


def as_json(rows: Sequence[Row]) -> str:
    """Return the table as JSON, with code version and machine; infinite values and NaN become null."""
    document = {"code": code_version(), "machine": machine(), "statements": [row.as_dict() for row in rows]}
    return json.dumps(_finite(document), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
