"""Loss curves and the plateaus predicted for them, under GD and SAM."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import GD, SAM, THEORY, draw_levels, feature_colour, new_panels, styled, text_colour

SEEDS = 24  # drawn as single curves


@styled
def draw(random: xr.Dataset, sharpness: xr.Dataset) -> Figure:
    """Draw runs from a small start, GD against SAM from the larger one, and the error of the predicted levels."""
    figure, (small, both, error) = new_panels(3, 3, height=2.5, width_ratios=[1.3, 1.3, 1.0])
    draw_staircase(small, random.sel(start="small"))
    small.set_title("Small starts: every run\nrests on the same plateaus")
    _methods(both, sharpness)
    draw_levels(both, random.plateau_loss.values)
    _errors(error, random.sel(start="small"))
    return figure


def draw_staircase(axis: Axes, runs: xr.Dataset) -> None:
    """Draw the loss of single runs over time, with the predicted plateaus and what is learned there."""
    levels, shown = runs.plateau_loss.values, _shown(runs)
    for loss in runs.loss.values[:SEEDS]:
        axis.plot(runs.time[shown], loss[shown], color=GD, linewidth=0.6, alpha=0.4)
    draw_levels(axis, levels)
    words = ["nothing learned", *(f"{m} learned" for m in range(1, len(levels) - 1)), "all learned"]
    for level, text in zip(levels, words, strict=True):
        place: Any = {"xycoords": axis.get_yaxis_transform(), "xytext": (4, 1.5), "textcoords": "offset points"}
        axis.annotate(text, (0.0, level), **place, fontsize=7)
    axis.set(xscale="log", xlim=(20.0, None), ylim=(0.08, 1.08))
    axis.set(xlabel="time (learning rate × step)", ylabel="mean square error")


def _shown(runs: xr.Dataset) -> np.ndarray:
    """Return the snapshots that a logarithmic axis can tell apart, without the first, at time zero."""
    return np.unique(np.geomspace(1, runs.sizes["snapshot"] - 1, 250).astype(int))


def _methods(axis: Axes, runs: xr.Dataset) -> None:
    shown = _shown(runs)
    time = runs.time[shown]
    for arm, colour in (("gd", GD), ("sam", SAM)):
        low, middle, high = np.quantile(runs.loss.sel(arm=arm)[:, shown], (0.25, 0.5, 0.75), axis=0)
        axis.fill_between(time, low, high, color=colour, alpha=0.18, linewidth=0)
        axis.plot(time, middle, color=colour)
    axis.text(27.0, 0.8, "GD", color=GD, ha="right")
    axis.text(82.0, 0.8, "SAM,\nρ = 0.05", color=text_colour(SAM))
    axis.set(xscale="log", xlim=(10.0, None), ylim=(0.08, 1.08))
    axis.set(xlabel="time (learning rate × step)", ylabel="mean square error")
    axis.set_title("Larger starts: SAM leaves\nthe first plateau later")


def _errors(axis: Axes, runs: xr.Dataset) -> None:
    for m, (column, level) in enumerate(zip(runs.level.values.T, runs.plateau_loss.values[1:-1], strict=True), start=1):
        values = np.abs(column[np.isfinite(column)] / level - 1.0)
        axis.plot([m, m], [values.min(), values.max()], color=feature_colour(m - 1), linewidth=0.9)
        axis.plot([m, m], np.quantile(values, (0.25, 0.75)), color=feature_colour(m - 1), linewidth=4.0)
        axis.plot(m, np.median(values), "o", color="white", markeredgecolor=feature_colour(m - 1))
    axis.axhline(0.02, color=THEORY, linewidth=0.8)
    axis.text(3.45, 0.014, "tolerance of medians", fontsize=7, ha="right", va="top")
    axis.set(yscale="log", xlim=(0.5, 3.5), xticks=(1, 2, 3), xlabel="features learned")
    axis.minorticks_off()
    axis.set(ylabel="|measured / predicted − 1|", title="Plateaus lie where\nthey are predicted")


FIGURE = FigureSpec(
    "loss_plateaus",
    "The loss rests on predicted plateaus while features are learned one by one",
    "Rank-one attention (D = 4, H = 5, N = 31, λ ∝ 4, 3, 2, 1). Dashed: the loss predicted for the nested sets of "
    f"features. a: gradient descent from {SEEDS} small random starts (norms 0.02), a curve each. b: GD and SAM from "
    "the larger starts of the notes (norms 0.1), medians and quartiles of 64 seeds. SAM leaves the first plateau "
    "later. The second feature then comes sooner after the first; the last one does not. c: relative error of the "
    "predicted loss on the plateaus of a: median (dot), quartiles (thick) and range (thin) over 64 seeds.",
    ("random_initialisation", "sam_simplicity_bias"),
    draw,
)
