"""The small table of the report: what each method does to simplicity bias and to held-out loss, and at what cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from figures.generalisation_map import percent
from icl_theory.verification import Data
from icl_theory.verification.generalisation_statements import (
    ARMS,
    LARGE,
    MIXTURES,
    bias_changes,
    chosen,
    pick,
    pooled,
    unfinished,
)
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
    "fresh early": "control: fresh early",
}
HEADINGS = (
    "method",
    "t_3/t_1",
    "all four learned, %",
    "mean over training",
    "the same at equal evaluations",
    "matched training loss, half-way",
    "end",
    "end more than 10 % worse, % of runs",
    "end, pilot paid",
    "reversed, matched half-way",
    "reversed, end",
    "white, end",
    "N = 8, end",
    "N = 127, end",
)
COLUMNS = (
    ("mean", "training"),
    ("evaluations_mean", "training"),
    ("matched", "training"),
    ("end", "training"),
    ("worse", "training"),
    ("budget_end", "training"),
    ("matched", "reversed"),
    ("end", "reversed"),
    ("end", "white"),
    ("end", "short"),
    ("end", "long"),
)
WORSE = float(np.log(1.1))


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
    """One table a mixture with P ≥ 1000, both noise levels together; then each noise level on its own."""
    together = [_table(data, mixture.capitalize(), mixture=mixture) for mixture in MIXTURES]
    apart = [
        _table(data, f"{mixture.capitalize()}, label noise σ = {noise:g}", mixture=mixture, noise_std=float(noise))
        for mixture in MIXTURES
        for noise in np.unique(data["case_noise_std"])
    ]
    return together + apart


def _table(data: Data, title: str, **where: Any) -> Table:
    where["sizes"] = LARGE
    learned = 100.0 * (1.0 - unfinished(data, **where))
    factors = data["factor"][chosen(data, **where)]
    low, middle, high = np.quantile(factors, (0.25, 0.5, 0.75))
    rows = [[Cell("gradient descent"), Cell(""), Cell(f"{learned[0]:.0f}")] + [Cell("")] * len(COLUMNS)]
    for number, arm in enumerate(ARMS, start=1):
        cells = [Cell(NAMES[arm]), _cell(bias_changes(data, arm, (2,), **where)[0]), Cell(f"{learned[number]:.0f}")]
        for name, test in COLUMNS:
            if name == "worse":
                cells.append(Cell(f"{100 * np.mean(np.concatenate(pick(data, 'end', arm, **where)) > WORSE):.0f}"))
            elif name == "evaluations_mean" and arm != "sam":
                cells.append(Cell("="))
            else:
                cells.append(_cell(pooled(data, name, arm, test, **where)))
        rows.append(cells)
    return Table(f"{title}: κ = {middle:.2f} (quartiles {low:.2f}, {high:.2f}), {factors.size} runs a row", rows)


def _cell(change: PairedChange) -> Cell:
    middle, low, high = (100.0 * np.expm1(value) for value in change[:3])
    text = percent(middle)
    return Cell(text, (low > 0 or high < 0) and text != "0", f"[{percent(low)}, {percent(high)}]")
