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
NAMED = (  # where the names of these stand in each panel
    ((115, 45), (115, 33), (115, 21)),
    ((115, 33), (17, 10), (135, -19)),
    ((170, 9), (330, -11), (22, -19)),
)
SIZES: tuple[tuple[tuple[int, ...], str, dict[str, Any]], ...] = (
    (MANY, "P ≥ 1000", {}),
    (FEW, "P ≤ 300", {"markerfacecolor": "white"}),
)


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw changes of the held-out loss for each method, and three methods over training."""
    figure, panels = new_panels(6, 3, height=2.0, sharey="row")
    comparisons = (
        (half_way(data), "Half-way in training loss,\nlate prompts help"),
        (data.mean_change, "Mean over equal steps:\nSAM is behind"),
        (data.end_change, "At the end, late\nupsampled is behind"),
    )
    for axis, (changes, title) in zip(panels, comparisons, strict=False):
        _forest(axis, changes, title)
    for _, name, style in SIZES:
        panels[0].plot([], [], "o", color=GD, label=name, **style)
    panels[0].legend(loc="upper right", handletextpad=0.0, borderaxespad=0.0)
    followed = (
        ("one group", "training", "One group: all are behind\nwhile feature 1 is learned"),
        ("two groups", "training", "Two groups: SAM is\nbehind longest"),
        ("two groups", "reversed", "Minority’s spectrum: late\nis ahead, then behind"),
    )
    for axis, (mixture, test, title) in zip(panels[3:], followed, strict=True):
        _course(axis, data, mixture, test, title)
    for axis, places in zip(panels[3:], NAMED, strict=True):
        for arm, name, place in zip(FOLLOWED, ("SAM", "late", "fresh late"), places, strict=True):
            axis.text(*place, name, color=text_colour(METHODS[arm][0]), fontsize=7)
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
        axis.set_ylabel("change of held-out\nloss, %")
    axis.set_xticks([20, 100, 500], labels=["20", "100", "500"])
    axis.minorticks_off()


def percent(change: np.ndarray) -> np.ndarray:
    """Return changes of a logarithm in per cent."""
    return 100.0 * np.expm1(change)


FIGURE = FigureSpec(
    "generalisation",
    "SAM hardly improves generalisation; upsampling what is late helps half-way and harms at the end",
    "Change of the held-out loss against gradient descent on the same data from the same starts; below zero is "
    "better. Dots and lines are medians, bars and bands 99 % intervals. a: at equal training loss, when it has lost "
    "half of what it can lose. b, c: at equal steps, mean over training and end. Full markers are 320 runs with P = "
    "1000 or 5000 prompts, open ones 320 runs with 100 or 300: 40 seeds, one group or two, with or without label "
    "noise. As many fresh prompts are added as upsampling would add; grey rows are controls. d to f: at equal steps, "
    "160 runs with P ≥ 1000 in each panel. Upsampling delays the first feature, so late lies above zero in d while "
    "that one is learned. The delay drops out of a, where it takes more steps to the same training loss. f: tested on "
    "the spectrum of the minority, a fifth of the prompts. Medians do not show the few runs that never learn some "
    "feature, of which SAM leaves more.",
    ("generalisation",),
    draw,
)
