"""In-context regression on principal components: predictions at each plateau beside those of regression."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from figures.figure import FigureSpec
from figures.light_marks import draw_dots
from icl_theory.plotting import NOTE, THEORY, feature_colour, label_end, new_panels, styled, text_colour
from icl_theory.verification.changes import known_median

BOUND = 1e-3  # of the statement on the fixed point
LEAST = 1e-12  # smaller differences are drawn here
SHOWN = 100  # prompts, of the 400 kept


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw predictions on single prompts against both regressions, and the mean square differences from each."""
    figure, (shrunk, plain, from_shrunk, from_plain) = new_panels(4, 2, height=2.3)
    limit = 1.05 * np.nanmax(np.abs(data.prediction.values[..., :SHOWN]), initial=1e-3)
    for axis, name in ((shrunk, "fixed point"), (plain, "least squares")):
        _predictions(axis, data.prediction, name, limit)
        axis.set(
            xlabel=f"prediction of the {name}" if name == "fixed point" else f"prediction of {name}",
            ylabel="prediction of attention",
        )
    for m in data.learned.values:
        place = (0.05, 1.06 - 0.09 * m)
        shrunk.text(
            *place,
            f"m = {m}",
            color=text_colour(feature_colour(m - 1)),
            fontsize=NOTE,
            va="top",
            transform=shrunk.transAxes,
        )
    shrunk.set_title("Attention predicts what\nthe fixed point says")
    plain.set_title("Least squares in the context itself\ndiffers (N = 31)")
    _from_fixed_point(from_shrunk, data)
    _from_least_squares(from_plain, data)
    return figure


def _predictions(axis: Axes, prediction: xr.DataArray, name: str, limit: float) -> None:
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    axis.plot([-limit, limit], [-limit, limit], color=THEORY, linestyle="--", linewidth=0.8)
    for m in prediction.learned.values[::-1]:
        x, y = (prediction.sel(learned=m, by=by).values[:SHOWN] for by in (name, "attention"))
        draw_dots(axis, x, y, feature_colour(m - 1), size=2.0)


def _from_fixed_point(axis: Axes, data: xr.Dataset) -> None:
    """Draw the difference from the fixed point of every seed at the shortest context, with medians as bars."""
    found = data.difference.sel(regression="fixed point").isel(num_context=0)
    axis.set(xlim=(0.5, 0.5 + found.sizes["learned"]), xticks=found.learned)
    for m in found.learned.values:
        values = np.maximum(found.sel(learned=m).values, LEAST)
        across = m + np.linspace(-0.22, 0.22, len(values))
        draw_dots(axis, across, values, feature_colour(m - 1))
        axis.plot([m - 0.34, m + 0.34], [known_median(values)] * 2, color=feature_colour(m - 1), linewidth=1.6)
        largest = np.nanmax(found.sel(learned=m).values)
        if largest < LEAST:
            words = f"rounding, below\n$10^{{{int(np.ceil(np.log10(largest)))}}}$"
            axis.text(m, 5 * LEAST, words, fontsize=NOTE, ha="center", va="bottom")
    axis.axhline(BOUND, color=THEORY, linestyle="--", linewidth=0.8)
    axis.text(found.sizes["learned"] + 0.45, 3 * BOUND, "bound", fontsize=NOTE, ha="right", va="bottom")
    axis.set(
        yscale="log",
        ylim=(LEAST / 5, 1.0),
        yticks=[1e-12, 1e-9, 1e-6, 1e-3, 1.0],
        xlabel="m, features learned",
        ylabel="relative mean\nsquare difference",
    )
    axis.set_title("Medians of the difference from the\nfixed point lie below the bound")


def _from_least_squares(axis: Axes, data: xr.Dataset) -> None:
    lengths = data.num_context.values
    for m in data.learned.values:
        colour, found = feature_colour(m - 1), data.sel(learned=m, regression="least squares")
        axis.plot(lengths, found.predicted_difference, "--", color=THEORY, linewidth=0.8)
        axis.plot(lengths, known_median(found.difference, axis=1), "o", color=colour, markersize=4)
        label_end(
            axis, lengths[-1], found.predicted_difference[-1], f"m = {m}", colour, lift=(-2.0, -1.0, 0.0, 3.0)[m - 1]
        )
    axis.set(xscale="log", yscale="log", xlabel="context length N", ylabel="relative mean\nsquare difference")
    axis.set_xticks(lengths, labels=[str(n) for n in lengths])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_title("The difference from least squares\nfalls as (m + 1)/N (dashed)")


FIGURE = FigureSpec(
    "principal_components",
    "On plateau m attention does regression on the first m principal components",
    "Rank-one attention (D = 4, H = 5) on its four plateaus, where it has learned m = 1 to 4 features. Colours tell "
    f"m in every panel. a: predictions on {SHOWN} fresh prompts (N = 31, one seed) against regression on the first m "
    "components, shrunk by w_d* as the fixed point says. Dashed is equality. b: the same against least squares on "
    "these components in the context itself. Attention takes the covariance as known. c: mean square difference from "
    "the fixed point over the mean square, on 40 000 fresh prompts. Dots are the up to 16 seeds that rest on the "
    "plateau, and bars their medians. The dashed line is the bound of the statement. With all four features the "
    "difference is rounding, drawn at 10⁻¹². d: the same from least squares, medians over seeds. Dashed is (m + 1)/N.",
    ("principal_components",),
    draw,
)
