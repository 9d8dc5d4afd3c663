"""In-context regression on principal components: predictions at each plateau beside those of regression."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import feature_colour, new_figure, styled


@styled
def draw(data: xr.Dataset) -> Figure:
    """Predictions on single prompts at each plateau, two columns of scatter; how the gap closes with N."""
    shown = data.prediction.values
    figure, axes = new_figure(13.5, 5.6, 2, 1 + len(shown), width_ratios=[1.0] * len(shown) + [1.35])
    limit = 1.05 * np.nanmax(np.abs(shown), initial=1e-3)
    for m, (model, shrunk, plain) in enumerate(shown, start=1):
        for axis, other in ((axes[0, m - 1], shrunk), (axes[1, m - 1], plain)):
            axis.plot([-limit, limit], [-limit, limit], color="black", linestyle="--", linewidth=1.0)
            axis.scatter(other, model, s=7, color=feature_colour(m - 1), linewidths=0, alpha=0.6, rasterized=True)
            axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axes[0, m - 1].set(title=f"{m} learned", xlabel="fixed point")
        axes[1, m - 1].set(xlabel=f"least squares, {m} comp.")
    for row in (0, 1):
        axes[row, 0].set_ylabel("attention")
    lengths, right = data.num_context.values, axes[:, -1]
    titles = ("From the fixed point", "From least squares")
    for axis, name, title in zip(right, data.regression.values, titles, strict=True):
        for m in range(1, 1 + len(shown)):
            found = data.sel(learned=m)
            middle = found.difference.sel(regression=name).median("seed")
            axis.plot(lengths, middle, "o-", color=feature_colour(m - 1), markersize=5, linewidth=1.2)
            if name == "least squares":
                axis.plot(lengths, found.predicted_difference, "--", color=feature_colour(m - 1), linewidth=1.1)
            axis.plot([], [], "o-", color=feature_colour(m - 1), label=f"{m} learned")
        if name == "fixed point":
            axis.set_ylim(1e-14, 1e-1)
            axis.axhline(1e-3, color="black", linestyle="--", linewidth=1.0)
            axis.text(lengths[1], 6e-4, "bound", fontsize=8.5, va="top")
        axis.set(title=title, xscale="log", yscale="log", ylabel="mean square difference,\nrelative")
        axis.set_xticks(lengths, labels=[str(n) for n in lengths])
        axis.minorticks_off()
    right[0].legend(fontsize=8.5, loc="lower left", ncols=2)
    right[1].plot([], [], "--", color="#555555", label="(m + 1)/N")
    right[1].legend(
        *[handles[-1:] for handles in right[1].get_legend_handles_labels()], loc="upper right", fontsize=8.5
    )
    right[1].set_xlabel("context length N")
    return figure


FIGURE = FigureSpec(
    "principal_components",
    "Regression on principal components, one more on each plateau",
    "Rank-one attention on its four plateaus, asked 400 fresh prompts (N = 31, one seed; axes are predictions of y). "
    "Top: its predictions are those of the fixed point, regression on the first m components shrunk by w_d* (with all "
    "four, to rounding). Below: against least squares on these components in the context itself. Right: mean square "
    "differences, medians over seeds; from least squares they fall as (m + 1)/N (dashed), as attention takes the "
    "covariance as known.",
    ("principal_components",),
    draw,
)
