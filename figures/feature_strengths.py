"""Feature strengths over time under GD and SAM, and what SAM changes from random starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.analysis.intervals import median_interval
from icl_theory.plotting import GD, SAM, THEORY, feature_colour, new_panels, styled, text_colour
from icl_theory.verification.changes import CONFIDENCE, log_change

RHO = 0.05  # of random starts


@styled
def draw(sharpness: xr.Dataset) -> Figure:
    """Draw aligned starts with the reduced system, learning times of random starts, and progress of slow features."""
    figure, (gd, sam, times, progress) = new_panels(4, 2, height=2.3)
    for shown, axis, method in ((0, gd, "GD"), (1, sam, "SAM, δ = 0.5")):
        _aligned(axis, sharpness.isel(shown_delta=shown))
        axis.set_title(f"Aligned start, {method}:\nthe reduced system predicts it")
    _times(times, sharpness)
    _progress(progress, sharpness)
    return figure


def _aligned(axis: Axes, runs: xr.Dataset) -> None:
    time = runs.aligned_time.values[::6]
    model, reduced = runs.aligned_strength.sel(system=["model", "reduced"]).values[:, ::6]
    for d, (strength, predicted) in enumerate(zip(model.T, reduced.T, strict=True)):
        axis.plot(time, strength, color=feature_colour(d), linewidth=3.5, alpha=0.5)
        axis.plot(time, predicted, color=THEORY, linestyle="--", linewidth=0.9)
        half = float(np.interp(0.5, strength, time))
        axis.text(half + 0.5, 0.4, f"feature {d + 1}", color=text_colour(feature_colour(d)))
    axis.set(xlim=(0.0, 18.0), ylim=(-0.05, 1.1), xticks=range(0, 19, 3))
    axis.set(xlabel="time (learning rate × step)", ylabel="strength $w_d / w_d^*$")


def _times(axis: Axes, runs: xr.Dataset) -> None:
    arms = [runs.learning_time.sel(rho=rho).values for rho in (0.0, RHO)]
    for d in range(runs.sizes["feature"]):
        for times, colour, aside in zip(arms, (GD, SAM), (0.14, -0.14), strict=True):
            middle, low, high = median_interval(times[:, d], confidence=CONFIDENCE)
            bars: Any = [[middle - low], [high - middle]]
            axis.errorbar(middle, -d + aside, xerr=bars, fmt="o", color=colour)
        later = np.exp(log_change(arms[1][:, d], arms[0][:, d]).median)
        axis.text(1.02, -d, f"× {later:.2f}", transform=axis.get_yaxis_transform(), color=text_colour(SAM), va="center")
    axis.text(np.median(arms[0][:, 0]) / 1.5, 0.14, "GD", color=GD, ha="right", va="center")
    axis.text(np.median(arms[1][:, 0]) * 1.4, -0.14, f"SAM, ρ = {RHO:g}", color=text_colour(SAM), va="center")
    axis.set(xscale="log", xlim=(15.0, 2000.0), ylim=(-3.5, 0.5), yticks=range(-3, 1))
    axis.set(yticklabels=[f"feature {d}" for d in (4, 3, 2, 1)], xlabel="learning time (learning rate × step)")
    axis.set_title("Random starts: SAM delays\nthe first feature most")


def _progress(axis: Axes, runs: xr.Dataset) -> None:
    before, after = (runs.progress.sel(rho=rho).values for rho in (0.0, RHO))
    for d in (1, 2, 3):
        both = (before[:, d] > 0) & (after[:, d] > 0)
        further = np.count_nonzero(after[both, d] > before[both, d])
        axis.plot(before[both, d], after[both, d], "o", color=feature_colour(d), markersize=2.5, markeredgewidth=0.0)
        words = f"feature {d + 1}: {further} of {both.sum()}"
        axis.text(0.03, 1.0 - 0.1 * d, words, color=text_colour(feature_colour(d)), transform=axis.transAxes, va="top")
    axis.text(0.03, 1.0, "further on under SAM:", transform=axis.transAxes, va="top")
    ends = (1e-6, 1.0)
    axis.plot(ends, ends, color=GD, linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axis.set(xticks=np.logspace(-6, 0, 4), yticks=np.logspace(-6, 0, 4))
    axis.minorticks_off()
    axis.set(xlabel="$w_d / w_d^*$ when feature 1 is learned, GD", ylabel="the same, SAM")
    axis.set_title("When the first is learned, the others\nare further on under SAM")


FIGURE = FigureSpec(
    "feature_strengths",
    "SAM delays the first feature most, and the slow ones are further on when it is learned",
    "a and b: λ = (2, 1), one head aligned with each feature (u₀ = 0.05, η = 10⁻³), under GD and under SAM: the full "
    "model (colour) and the reduced system of one number per feature (dashed). c and d: 64 random starts, under GD "
    f"and under SAM with ρ = {RHO:g}. c: median learning times with 99 % intervals; at the right the median factor by "
    "which SAM is later from the same start. d: strength of features 2 to 4 at the time when the first is learned, a "
    "dot a seed in which both are positive. Above the line SAM is further on, so claim A is not mere delay.",
    ("sam_simplicity_bias",),
    draw,
)
