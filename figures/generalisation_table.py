"""The small table of the report: what each method does to simplicity bias and to held-out loss, and at what cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from figures.generalisation_map import percent
from icl_theory.verification import Data
from icl_theory.verification.generalisation_statements import ARMS, LARGE, MIXTURES, bias_changes, chosen, pooled
from icl_theory.verification.paired import PairedChange

NAMES = {
    "sam": "SAM, ρ = 0.05",
    "late": "late upsampled",
    "two-phase": "late upsampled, then returned",
    "residual": "late by residual upsampled",
    "random": "control: random upsampled",
    "early": "control: early upsampled",
    "fresh late": "augmented with fresh late",
    "fresh random": "control: fresh of any kind",
}
HEADINGS = (
    "method",
    "t_3/t_1",
    "all four learned",
    "mean over training",
    "the same at equal evaluations",
    "end",
    "end at equal budget, pilot paid",
    "matched training loss",
    "white, end",
    "reversed, end",
    "N = 8, end",
    "N = 127, end",
)
COLUMNS = (
    ("mean", "training"),
    ("evaluations_mean", "training"),
    ("end", "training"),
    ("budget_end", "training"),
    ("matched", "training"),
    ("end", "white"),
    ("end", "reversed"),
    ("end", "short"),
    ("end", "long"),
)


class Cell(NamedTuple):
    """A text, and whether its 99 % interval leaves zero out."""

    text: str
    clear: bool = False
    interval: str = ""


class Table(NamedTuple):
    """Rows of cells under headings."""

    title: str
    rows: list[list[Cell]]


def tables(data: Data) -> list[Table]:
    """One table a mixture, P ≥ 1000 with and without label noise taken together."""
    found = []
    for mixture in MIXTURES:
        where: dict[str, Any] = {"mixture": mixture, "sizes": LARGE}
        learned = np.isfinite(data["bias_times"][:, chosen(data, **where)]).all(axis=-1).mean(axis=(1, 2))
        rows = [[Cell("gradient descent"), Cell(""), Cell(f"{100 * learned[0]:.0f} %")] + [Cell("")] * len(COLUMNS)]
        for number, arm in enumerate(ARMS, start=1):
            cells = [Cell(NAMES[arm]), _cell(bias_changes(data, arm, (2,), **where)[0])]
            cells.append(Cell(f"{100 * learned[number]:.0f} %"))
            cells += [_cell(pooled(data, name, arm, test, **where)) for name, test in COLUMNS]
            rows.append(cells)
        found.append(Table(mixture, rows))
    return found


def _cell(change: PairedChange) -> Cell:
    middle, low, high = (100.0 * np.expm1(value) for value in change[:3])
    text = percent(middle)
    return Cell(text, (low > 0 or high < 0) and text != "0", f"[{percent(low)}, {percent(high)}]")
