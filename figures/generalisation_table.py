"""The small table of the report: what each method does to simplicity bias and to held-out loss, and at what cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from icl_theory.verification.changes import Change
from icl_theory.verification.claims.generalisation_readings import MANY, MIXTURES, half_way, only, pooled, ratio_changes

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
COLUMNS = (  # quantity (most are variables `…_change`) and test
    ("mean", "training"),
    ("equal_evaluations", "training"),
    ("half_way", "training"),
    ("end", "training"),
    ("worse", "training"),
    ("pilot_paid", "training"),
    ("half_way", "reversed"),
    ("end", "reversed"),
    ("end", "white"),
    ("end", "short"),
    ("end", "long"),
)
WORSE = float(np.log(1.1))
SMALLEST = 0.05  # per cent: smallest change not shown as 0


class Cell(NamedTuple):
    """Text of a cell, whether its 99 % interval excludes zero, and that interval as text."""

    text: str
    clear: bool = False
    interval: str = ""


class Table(NamedTuple):
    """Title and rows of cells; the columns are those of `HEADINGS`."""

    title: str
    rows: list[list[Cell]]


def percent(value: float) -> str:
    """Format a number with its sign and one decimal; `0` if it rounds to that."""
    return "0" if abs(value) < SMALLEST else f"{value:+.1f}".replace("-", "−")


def tables(data: xr.Dataset) -> list[Table]:
    """Return a table for each mixture over P ≥ 1000 and both noise levels, then one for each noise level alone."""
    together = [_table(data, mixture.capitalize(), mixture=mixture) for mixture in MIXTURES]
    apart = [
        _table(data, f"{mixture.capitalize()}, label noise σ = {noise:g}", mixture=mixture, noise_std=float(noise))
        for mixture in MIXTURES
        for noise in np.unique(data.noise_std)
    ]
    return together + apart


def _table(data: xr.Dataset, title: str, **where: Any) -> Table:
    where["num_prompts"] = MANY
    learned = 100.0 * (only(data.learning_time, **where) < np.inf).all("feature").mean(("case", "seed"))
    factors = only(data.factor, **where).values
    low, middle, high = np.quantile(factors, (0.25, 0.5, 0.75))
    rows = [[Cell("gradient descent"), Cell(""), Cell(f"{learned.sel(arm='gd'):.0f}")] + [Cell("")] * len(COLUMNS)]
    for arm, name in NAMES.items():
        (ratio,) = ratio_changes(data, (arm,), (3,), **where)
        cells = [Cell(name), _cell(ratio), Cell(f"{learned.sel(arm=arm):.0f}")]
        for column, test in COLUMNS:
            if column == "worse":
                ends = only(data.end_change, arm=arm, test=test, **where)
                cells.append(Cell(f"{100.0 * np.mean(ends.values > WORSE):.0f}"))
            elif column == "equal_evaluations" and arm != "sam":
                cells.append(Cell("="))
            else:
                changes = half_way(data) if column == "half_way" else data[f"{column}_change"]
                cells.append(_cell(pooled(changes, arm, test, **where)))
        rows.append(cells)
    return Table(f"{title}: κ = {middle:.2f} (quartiles {low:.2f}, {high:.2f}), {factors.size} runs a row", rows)


def _cell(change: Change) -> Cell:
    middle, low, high = (100.0 * np.expm1(value) for value in change[:3])
    text = percent(middle)
    return Cell(text, (low > 0 or high < 0) and text != "0", f"[{percent(low)}, {percent(high)}]")
