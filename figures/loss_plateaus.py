"""Loss curves and the plateaus predicted for them, under GD and SAM."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import GD, SAM, draw_levels, feature_colour, new_figure, styled


@styled
def draw(random: xr.Dataset, sharpness: xr.Dataset) -> Figure:
    """Small start; GD against SAM at the larger start; how far the plateaus are from their prediction."""
    figure, ((small, both, residual),) = new_figure(13.5, 4.3, 1, 3, width_ratios=[1.15, 1.15, 0.8])
    small_start, levels = random.sel(start="small"), random.plateau_loss.values
    for loss in small_start.loss[:24]:
        small.plot(small_start.time[1:], loss[1:], color=GD, linewidth=0.7, alpha=0.45)
    draw_levels(small, levels)
    for m, level in enumerate(levels):
        words = "nothing learned" if m == 0 else f"{m} learned" if m < len(levels) - 1 else "all (optimum)"
        small.text(0.99, level + 0.008, words, transform=small.get_yaxis_transform(), ha="right", fontsize=8.5)
    small.plot([], [], color=GD, label="simulation, 24 seeds")
    small.legend(loc="center left")
    small.set(title="GD from a small random start", ylim=(0.08, 1.06))
    time = sharpness.time[1:]
    for arm, name, colour in (("gd", "GD", GD), ("sam", "SAM, ρ = 0.05", SAM)):
        low, middle, high = np.quantile(sharpness.loss.sel(arm=arm)[:, 1:], (0.25, 0.5, 0.75), axis=0)
        both.fill_between(time, low, high, color=colour, alpha=0.18, linewidth=0)
        both.plot(time, middle, color=colour, label=name)
    draw_levels(both, levels)
    both.set(title=f"GD and SAM, larger starts, {sharpness.sizes['seed']} seeds", ylim=(0.08, 1.06))
    both.legend(loc="center left", fontsize=8.5)
    for axis in (small, both):
        axis.set(xscale="log", xlim=(2.0, None), xlabel="time (learning rate × step)", ylabel="mean square error")
    for m, column in enumerate(small_start.level.values.T, start=1):
        values = np.abs(column[np.isfinite(column)] / levels[m] - 1.0)
        spread = np.linspace(-0.25, 0.25, len(values))
        residual.scatter(m + spread, np.sort(values), s=14, color=feature_colour(m - 1), linewidths=0, alpha=0.8)
        residual.plot([m - 0.3, m + 0.3], [np.median(values)] * 2, color="black", linewidth=1.4)
    residual.axhline(0.02, color="black", linestyle="--", linewidth=1.0)
    residual.text(0.6, 0.016, "tolerance of the median", fontsize=8.5, va="top")
    residual.set(
        title="Plateau level, relative error",
        yscale="log",
        xlabel="features learned",
        xticks=range(1, len(levels) - 1),
        ylabel="|measured / predicted − 1|",
    )
    return figure


FIGURE = FigureSpec(
    "loss_plateaus",
    "Loss and plateaus",
    "Rank-one attention (D = 4, H = 5, N = 31, λ ∝ 4, 3, 2, 1). Left: gradient descent from a small random start "
    "(norms 0.02) steps down along the plateaus predicted for the nested sets of features (dashed). Middle: from the "
    "larger start of the notes (norms 0.1), the same seeds under GD and SAM (median and quartiles); SAM leaves the "
    "first plateau later; the second feature then comes sooner after the first, the last one does not. Right: level "
    "of each plateau of the left panel against its prediction, one dot a seed, in order of size, median as a bar.",
    ("random_initialisation", "sam_simplicity_bias"),
    draw,
)
