"""Heat maps of where each method lowers and raises held-out loss, for every setting and test."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import new_panels, styled
from icl_theory.verification.claims.generalisation_readings import MIXTURES, TESTS, half_way, pooled

METHODS = {
    "sam": "SAM: hardly ahead half-way,\nbehind on the way",
    "late": "Late upsampled: ahead half-way,\nbehind at the end",
    "residual": "Late by residual upsampled:\nmuch the same as b",
    "fresh late": "Fresh late added: alike,\nbut better with few prompts",
    "early": "Control, early upsampled:\noften the other way round",
    "random": "Control, random upsampled:\nhardly any change",
}
NAMES = {"training": "training", "white": "white", "reversed": "reversed", "short": "N = 8", "long": "N = 127"}
LIMIT, LINEAR = 30.0, 1.0  # per cent: ends of the colour scale, and of its linear part
TICKS = (-30, -10, -3, -1, 0, 1, 3, 10, 30)
UNCLEAR = "#E6E6E6"
HEAD = -0.7  # place of the names of blocks
GAP = 1.4  # between blocks, in cells


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw a map for each method: settings down, tests across, in three blocks; grey where zero is not excluded."""
    figure, panels = new_panels(len(METHODS), height=2.0, sharey="row")
    comparisons = {"half-way": half_way(data), "mean": data.mean_change, "end": data.end_change}
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad=UNCLEAR)
    style: Any = {"cmap": colours, "norm": SymLogNorm(LINEAR, linscale=0.5, vmin=-LIMIT, vmax=LIMIT)}
    sizes = np.unique(data.num_prompts)
    for axis, (arm, title) in zip(panels, METHODS.items(), strict=True):
        axis.set_title(title)
        _frame(axis, sizes)
        for block, (name, changes) in enumerate(comparisons.items()):
            left = block * (len(TESTS) + GAP)
            axis.text(left + len(TESTS) / 2, HEAD, name, ha="center", va="center", fontsize=7)
            for row, mixture in enumerate(MIXTURES):
                top = row * (len(sizes) + GAP)
                place = (left, left + len(TESTS), top + len(sizes), top)
                unchanged = (arm, name) == ("sam", "end")
                found = np.full((len(sizes), len(TESTS)), np.nan) if unchanged else _clear(changes, arm, mixture, sizes)
                shown = axis.imshow(found, extent=place, aspect="auto", interpolation="nearest", **style)
    bar = figure.colorbar(shown, ax=panels, location="bottom", aspect=45, pad=0.02, ticks=TICKS)
    bar.ax.set_xticklabels([f"{tick:+d}".replace("-", "−") if tick else "0" for tick in TICKS])
    bar.minorticks_off()
    bar.set_label("change of held-out loss, % (blue is better)")
    return figure


def _clear(changes: xr.DataArray, arm: str, mixture: str, sizes: np.ndarray) -> np.ndarray:
    """Return median changes in per cent, (size, test); NaN where the interval includes zero."""
    found = [
        [pooled(changes, arm, test, mixture=mixture, num_prompts=int(size))[:3] for test in TESTS] for size in sizes
    ]
    middle, low, high = 100.0 * np.expm1(np.asarray(found)).transpose(2, 0, 1)
    return np.where((low > 0.0) | (high < 0.0), middle, np.nan)


def _frame(axis: Axes, sizes: np.ndarray) -> None:
    """Label settings, and tests at the bottom of the figure."""
    tests = np.add.outer(np.arange(3) * (len(TESTS) + GAP), np.arange(len(TESTS)) + 0.5).ravel()
    rows = np.add.outer(np.arange(len(MIXTURES)) * (len(sizes) + GAP), np.arange(len(sizes)) + 0.5)
    cell: Any = axis.get_subplotspec()
    axis.set_xticks(tests, labels=[NAMES[test] for test in TESTS] * 3 if cell.is_last_row() else [], rotation=90)
    names = [name for mixture in MIXTURES for name in (mixture, *sizes)]
    axis.set_yticks(np.column_stack([rows[:, 0] - 0.5 + HEAD, rows]).ravel(), labels=names)
    axis.set(xlim=(0, tests[-1] + 0.5), ylim=(rows[-1, -1] + 0.5, 2 * HEAD))
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    if cell.is_first_col():
        axis.set_ylabel("prompts P")


FIGURE = FigureSpec(
    "generalisation_map",
    "Upsampling what is late helps half-way on other spectra; at the end it harms on most tests and helps on longer "
    "contexts",
    "Change of the held-out loss against gradient descent: medians of 80 runs a cell (40 seeds, with and without label"
    " noise), grey where the 99 % interval includes zero. By chance about seven of the 680 cells would have a colour. "
    "The scale is linear within 1 % and logarithmic beyond. Blocks: half-way, at equal training loss, when it has lost"
    " half of what it can lose; mean over training and end, both at equal steps. Columns: tested on the training "
    "distribution, on a white and on a reversed spectrum, on shorter and on longer contexts (31 examples in training)."
    " a: at the end SAM changes no median by more than 0.1 %, which is shown as no change. c: lateness measured "
    "without each example's own floor. d: as many fresh late prompts as upsampling adds. e, f: the same factor on as "
    "many early or random examples.",
    ("generalisation",),
    draw,
)
