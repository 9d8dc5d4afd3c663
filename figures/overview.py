"""Overview: features are learned one by one; SAM and upsampling bring the slow ones closer to the first."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from figures.loss_plateaus import SEEDS, draw_staircase
from icl_theory.plotting import GD, LATE, SAM, new_panels, styled, text_colour
from icl_theory.verification.changes import log_change

FEATURES = (2, 3, 4)


@styled
def draw(random: xr.Dataset, sam: xr.Dataset, upsampling: xr.Dataset) -> Figure:
    """Draw the loss staircase beside the change of learning-time ratios under SAM and upsampling."""
    figure, (stairs, ratios) = new_panels(2, height=2.5, width_ratios=[1.25, 1.0])
    draw_staircase(stairs, random.sel(start="small"))
    stairs.set_title("Features are learned one by one,\nat the predicted losses (dashed)")
    sharpness = sam.learning_time_ratio
    groups = upsampling.learning_time_ratio.sel(groups="sharing")
    _ratios(ratios, sharpness.sel(rho=0.05), sharpness.sel(rho=0.0), SAM, -0.14)
    late = _ratios(ratios, groups.sel(upsampled="late × 2"), groups.sel(upsampled="late × 1"), LATE, 0.14)
    ratios.text(-0.45, 0.76, "SAM,\nρ = 0.05", color=text_colour(SAM), va="top")
    ratios.text(1.98, late[-1], "GD, minority drawn\ntwice as often", color=LATE, ha="right", va="center")
    ratios.axhline(1.0, color=GD)
    ratios.text(2.45, 1.02, "gradient descent (GD)", color=GD, ha="right")
    ratios.set(xticks=range(3), xticklabels=[f"$t_{d}/t_1$" for d in FEATURES], xlim=(-0.5, 2.5), ylim=(0.25, 1.1))
    ratios.set(xlabel="ratio of learning times", ylabel="relative to gradient descent")
    ratios.set_title("SAM and upsampling bring\nthe slow features closer")
    return figure


def _ratios(axis: Axes, runs: xr.DataArray, baseline: xr.DataArray, colour: str, aside: float) -> np.ndarray:
    """Draw medians and intervals of the changes beside each ratio; return the medians."""
    changes = np.asarray([log_change(runs.sel(feature=d), baseline.sel(feature=d)) for d in FEATURES])
    middle, low, high = np.exp(changes[:, :3].T)
    across = np.arange(len(FEATURES)) + aside
    axis.errorbar(across, middle, [middle - low, high - middle], fmt="o", color=colour, markersize=5)
    return middle


FIGURE = FigureSpec(
    "overview",
    "Features are learned one by one; SAM and upsampling bring the slow ones closer",
    f"a: gradient descent from {SEEDS} small random starts steps down along the plateaus that theory predicts "
    "(dashed), one feature a step. b: learning times of features 2 to 4 over that of the first, relative to gradient "
    "descent from the same starts: under SAM, and under gradient descent on data whose minority is drawn twice as "
    "often. Dots are medians of 64 seeds, bars their 99 % intervals.",
    ("random_initialisation", "sam_simplicity_bias", "upsampling"),
    draw,
)
