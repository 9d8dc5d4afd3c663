"""Where each method helps and where it hurts: every setting in one picture."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import new_figure, styled
from icl_theory.verification.claims.generalisation_readings import ARMS, MIXTURES, half_way, pooled

SHOWN = {"training": "training distribution", "reversed": "reversed spectrum"}
METHODS = ARMS[1:]  # all but gradient descent
LIMIT, SMALLEST = 20.0, 0.05  # per cent: end of the colour scale, smallest change not shown as 0


def percent(value: float) -> str:
    """Format a number with its sign and one decimal; `0` if it rounds to that."""
    return "0" if abs(value) < SMALLEST else f"{value:+.1f}".replace("-", "−")


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw the change of held-out loss in per cent; bold where the 99 % interval excludes zero."""
    figure, axes = new_figure(16.0, 8.0, 2, 3, sharex=True, sharey=True)
    comparisons = {
        "equal steps, mean over training": data.mean_change,
        "matched training loss, half-way": half_way(data),
        "equal steps, at the end": data.end_change,
    }
    sizes = np.unique(data.num_prompts)
    rows = [(mixture, int(size)) for mixture in MIXTURES for size in sizes]
    norm = TwoSlopeNorm(0.0, -LIMIT, LIMIT)
    for line, (test, where) in enumerate(SHOWN.items()):
        for column, (how, compared) in enumerate(comparisons.items()):
            axis = axes[line, column]
            changes = [[pooled(compared, arm, test, mixture=m, num_prompts=p) for arm in METHODS] for m, p in rows]
            values = np.asarray([[100.0 * np.expm1(change.median) for change in row] for row in changes])
            axis.imshow(np.clip(values, -LIMIT, LIMIT), cmap="RdBu_r", norm=norm, aspect="auto")
            for i, row in enumerate(changes):
                for j, change in enumerate(row):
                    clear = (change.low > 0 or change.high < 0) and abs(values[i, j]) >= SMALLEST
                    axis.text(
                        j,
                        i,
                        percent(values[i, j]),
                        ha="center",
                        va="center",
                        fontsize=8.5,
                        fontweight="bold" if clear else "normal",
                        color=("white" if abs(values[i, j]) > 14 else "black") if clear else "#707070",
                    )
            axis.axhline(len(sizes) - 0.5, color="white", linewidth=3)
            axis.grid(False)
            axis.set_title(f"{where}, {how}", fontsize=9.5)
            axis.set_xticks(range(len(METHODS)), labels=METHODS, rotation=35, ha="right", fontsize=9.5)
            axis.set_yticks(range(len(rows)), labels=[f"{m}, P = {p}" for m, p in rows], fontsize=9)
            axis.tick_params(length=0)
    return figure


FIGURE = FigureSpec(
    "generalisation_map",
    "Where each method helps and where it hurts",
    "Change of the held-out loss against gradient descent in per cent, blue is better; median over 80 runs a cell (40 "
    "seeds, with and without label noise), bold where the 99 % interval leaves zero out (of 432 cells about four do "
    "by chance). Above on the training distribution, below on a reversed spectrum. Half-way: the training loss has "
    "lost half of what it can lose. random, early: controls of late; fresh random, fresh early: controls of fresh "
    "late; residual: lateness without each example's own floor.",
    ("generalisation",),
    draw,
)
