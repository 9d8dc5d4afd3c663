"""Held-out loss of SAM, upsampling and augmentation: at equal training loss, at equal steps, and over training."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.analysis.intervals import median_interval
from icl_theory.plotting import FRESH_LATE, GD, LATE, RANDOM, SAM, new_panels, styled, text_colour
from icl_theory.verification.changes import CONFIDENCE
from icl_theory.verification.claims.generalisation_readings import FEW, MANY, half_way, only, pooled

METHODS = {
    "sam": (SAM, "SAM"),
    "late": (LATE, "late upsampled"),
    "fresh late": (FRESH_LATE, "fresh late added"),
    "random": (RANDOM, "random upsampled"),
    "fresh random": (RANDOM, "fresh of any kind"),
}
FOLLOWED = ("sam", "late", "fresh late")
SIZES: tuple[tuple[tuple[int, ...], str, dict[str, Any]], ...] = (
    (MANY, "P ≥ 1000", {}),
    (FEW, "P ≤ 300", {"markerfacecolor": "white"}),
)


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw changes of the held-out loss for each method, and three methods over training."""
    figure, panels = new_panels(6, 3, height=2.0, sharey="row")
    comparisons = (
        (half_way(data), "Half-way, at equal\ntraining loss"),
        (data.mean_change, "At equal steps,\nmean over training"),
        (data.end_change, "At equal steps,\nat the end"),
    )
    for axis, (changes, title) in zip(panels, comparisons, strict=False):
        _forest(axis, changes, title)
    for (_, name, _), place in zip(SIZES, ((0.6, 1.86), (-5.9, 2.24)), strict=True):
        panels[0].text(*place, name, color=text_colour(FRESH_LATE), fontsize=7, va="center")
    followed = (
        ("one group", "training", "One group, over training"),
        ("two groups", "training", "Two groups, over training"),
        ("two groups", "reversed", "Two groups, tested on\nthe minority's spectrum"),
    )
    for axis, (mixture, test, title) in zip(panels[3:], followed, strict=True):
        _course(axis, data, mixture, test, title)
    for name, colour, place in (
        ("SAM", SAM, (170, 9)),
        ("late", LATE, (330, -11)),
        ("fresh late", FRESH_LATE, (22, -19)),
    ):
        panels[-1].text(*place, name, color=text_colour(colour), fontsize=7)
    return figure


def _forest(axis: Axes, changes: xr.DataArray, title: str) -> None:
    for row, (arm, (colour, _)) in enumerate(METHODS.items()):
        for shift, (sizes, _, style) in zip((-0.14, 0.14), SIZES, strict=True):
            middle, low, high = percent(np.asarray(pooled(changes, arm, num_prompts=sizes)[:3]))
            bars = [[middle - low], [high - middle]]
            axis.errorbar(middle, row + shift, xerr=bars, fmt="o", color=colour, linewidth=1.2, **style)
    axis.axvline(0.0, color=GD, linewidth=1.0)
    axis.set_yticks(range(len(METHODS)), labels=[name for _, name in METHODS.values()])
    axis.set(ylim=(len(METHODS) - 0.5, -0.5), xlim=(-10.5, 7.0), xticks=[-10, -5, 0, 5])
    axis.set(xlabel="change of held-out loss, %", title=title)
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")


def _course(axis: Axes, data: xr.Dataset, mixture: str, test: str, title: str) -> None:
    times = np.unique(np.abs(data.time.values[:, None] - np.geomspace(15.0, data.time[-1], 30)).argmin(axis=0))
    losses = only(data.held_out_loss, mixture=mixture, num_prompts=MANY, shown_test=test).isel(snapshot=times)
    time, baseline = data.time.values[times], losses.sel(arm="gd").values
    for arm in FOLLOWED:
        changes = np.log(losses.sel(arm=arm).values / baseline).reshape(-1, len(times))
        middle, low, high = percent(np.array([median_interval(each, confidence=CONFIDENCE) for each in changes.T]).T)
        colour, name = METHODS[arm]
        axis.fill_between(time, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(time, middle, color=colour, label=name)
    axis.axhline(0.0, color=GD, linewidth=1.0)
    axis.set(xscale="log", xlim=(15, time[-1]), ylim=(-25, 54))
    axis.set(title=title, xlabel="time (learning rate × step)")
    cell: Any = axis.get_subplotspec()
    if cell.is_first_col():
        axis.set_ylabel("change of held-out loss, %")
    axis.set_xticks([20, 100, 500], labels=["20", "100", "500"])
    axis.minorticks_off()


def percent(change: np.ndarray) -> np.ndarray:
    """Return changes of a logarithm in per cent."""
    return 100.0 * np.expm1(change)


FIGURE = FigureSpec(
    "generalisation",
    "SAM hardly improves generalisation; upsampling what is late helps half-way and harms at the end",
    "Change of the held-out loss against gradient descent on the same data from the same starts; below zero is "
    "better. Dots and lines are medians, bars and bands 99 % intervals. a: when the training loss has lost half of "
    "what it can lose. b: mean over training. c: at the end. Full markers are 320 runs with P = 1000 or 5000 prompts,"
    " open ones 320 runs with 100 or 300: 40 seeds, one group or two, with or without label noise. As many fresh "
    "prompts are added as upsampling would add; grey rows are controls. d to f: at equal steps, 160 runs with P ≥ "
    "1000 in each panel. f: tested on the spectrum of the minority, a fifth of the prompts. Medians do not show the "
    "few runs that never learn some feature, of which SAM leaves more.",
    ("generalisation",),
    draw,
)
