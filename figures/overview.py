"""Overview: features are learned one by one; SAM and upsampling bring the slow ones closer to the first."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import GD, LATE, SAM, draw_levels, new_panels, styled
from icl_theory.verification.changes import Change, log_change

SEEDS = 24


@styled
def draw(random: xr.Dataset, sam: xr.Dataset, upsampling: xr.Dataset) -> Figure:
    """Draw the loss staircase beside the change of learning-time ratios under SAM and upsampling."""
    figure, (stairs, ratios) = new_panels(2, height=2.7, width_ratios=[1.25, 1.0])
    _stairs(stairs, random.sel(start="small"))
    groups = upsampling.learning_time_ratio.sel(groups="sharing")
    changes = {
        "SAM, ρ = 0.05": (SAM, sam.learning_time_ratio.sel(rho=0.05), sam.learning_time_ratio.sel(rho=0.0)),
        "GD, minority × 2": (LATE, groups.sel(upsampled="late × 2"), groups.sel(upsampled="late × 1")),
    }
    _ratios(ratios, changes)
    return figure


def _stairs(axis: Axes, runs: xr.Dataset) -> None:
    levels = runs.plateau_loss.values
    for loss in runs.loss.values[:SEEDS]:
        axis.plot(runs.time[1:], loss[1:], color=GD, linewidth=0.6, alpha=0.4)
    draw_levels(axis, levels)
    words = ["nothing learned", *(f"{m} learned" for m in range(1, len(levels) - 1)), "all four"]
    for level, text in zip(levels, words, strict=True):
        axis.text(0.02, level + 0.012, text, transform=axis.get_yaxis_transform(), fontsize=7)
    axis.set(xscale="log", xlim=(20.0, None), ylim=(0.08, 1.08), xlabel="time (learning rate × step)")
    axis.set(ylabel="mean square error", title="Features are learned one by one,\nat the predicted losses (dashed)")


def _ratios(axis: Axes, changes: dict[str, tuple[str, xr.DataArray, xr.DataArray]]) -> None:
    features = (2, 3, 4)
    for place, (name, (colour, values, baseline)) in enumerate(changes.items()):
        found: list[Change] = [log_change(values.sel(feature=d), baseline.sel(feature=d)) for d in features]
        middle, low, high = (np.exp([getattr(c, end) for c in found]) for end in ("median", "low", "high"))
        across = np.arange(len(features)) + 0.16 * (2 * place - 1)
        axis.errorbar(
            across, middle, [middle - low, high - middle], fmt="o", color=colour, capsize=3, markersize=5, label=name
        )
    axis.axhline(1.0, color=GD, linewidth=1.2)
    axis.text(2.45, 1.008, "gradient descent", color=GD, ha="right", fontsize=7)
    axis.set(xticks=range(len(features)), xticklabels=[f"$t_{d}/t_1$" for d in features], xlim=(-0.5, 2.5))
    axis.set(ylim=(None, 1.06), ylabel="relative to gradient descent")
    axis.set(title="SAM and upsampling bring\nthe slow features closer")
    axis.legend(loc="lower left", fontsize=7.5)


FIGURE = FigureSpec(
    "overview",
    "Features are learned one by one; SAM and upsampling bring the slow ones closer",
    "Left: gradient descent from small random starts steps down along the plateaus that theory predicts (dashed), one "
    f"feature a step, {SEEDS} seeds. Right: learning times of features 2 to 4 over that of the first, relative to "
    "gradient descent with the same seeds: under SAM, and under gradient descent on data whose minority is drawn twice "
    "as often (medians of 64 seeds, 99 % intervals).",
    ("random_initialisation", "sam_simplicity_bias", "upsampling"),
    draw,
)
