"""Random starts predicted: learning times start by start, under SAM, the theory's error, and what κ does."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.analysis.intervals import median_interval
from icl_theory.plotting import LATE, THEORY, feature_colour, new_figure, styled
from icl_theory.verification.claims.random_starts_statements import LARGEST_FITTED, pair_ratio, scale_errors

SMALL = 7.5  # size of type in a figure as wide as a page
LARGEST_RHO = 0.05  # beyond it many starts are trapped


@styled
def draw(random: xr.Dataset, sam: xr.Dataset, laws: xr.Dataset) -> Figure:
    """Draw predicted against measured times, medians over ρ, errors over scales, and R over κ."""
    figure, ((dots, radii), (errors, factors)) = new_figure(6.8, 6.2, 2, 2)
    _dots(dots, random.sel(start="small"))
    _radii(radii, sam)
    _errors(errors, laws)
    _factors(factors, laws)
    for letter, axis in zip("abcd", figure.axes, strict=True):
        axis.set_title(f"{letter}  {axis.get_title(loc='left')}", fontsize=8.5)
        axis.tick_params(labelsize=SMALL)
        axis.xaxis.label.set_fontsize(8)
        axis.yaxis.label.set_fontsize(8)
    return figure


def _dots(axis: Axes, runs: xr.Dataset) -> None:
    ends = [runs.learning_time.values[np.isfinite(runs.learning_time.values)].min() * 0.8, float(runs.time[-1])]
    axis.plot(ends, ends, color=THEORY, linewidth=0.8)
    for d in range(runs.sizes["feature"]):
        times = [runs[name].values[:, d] for name in ("learning_time", "predicted_learning_time")]
        axis.plot(*times, "o", color=feature_colour(d), markersize=2.6, alpha=0.75, label=f"feature {d + 1}")
    axis.set(xscale="log", yscale="log", xlabel="measured learning time", ylabel="predicted from the start alone")
    axis.set_title("Predicted start by start", loc="left")
    axis.legend(fontsize=SMALL, handletextpad=0.2, loc="upper left")


def _radii(axis: Axes, sam: xr.Dataset) -> None:
    few = sam.sel(rho=sam.rho[sam.rho <= LARGEST_RHO])
    names = ("learning_time", "predicted_learning_time")
    both = np.all([np.isfinite(few[name].values).all(axis=(0, -1)) for name in names], axis=0)  # the same at every ρ
    for d in (1, 2, 3):
        for name, style in (("learning_time", "o"), ("predicted_learning_time", "--")):
            times = few[name].values
            ratios = times[:, both, d] / times[:, both, 0]
            middle, low, high = np.asarray([median_interval(each) for each in ratios]).T
            if style == "o":
                bars = [middle - low, high - middle]
                axis.errorbar(few.rho, middle, bars, fmt="o", color=feature_colour(d), markersize=4, linewidth=1.0)
            else:
                axis.plot(few.rho, middle, style, color=feature_colour(d), linewidth=1.2)
        axis.text(0.0515, middle[-1], f"$t_{d + 1}/t_1$", color=feature_colour(d), fontsize=SMALL, va="center")
    axis.set(yscale="log", xlabel="ρ of SAM (0: gradient descent)", ylabel="median ratio of learning times")
    axis.set(xlim=(-0.002, 0.06), ylim=(1.0, 40.0), xticks=[0.0, 0.01, 0.02, 0.03, 0.05])
    axis.set_yticks([1, 2, 5, 10, 20, 40], labels=["1", "2", "5", "10", "20", "40"])
    axis.minorticks_off()
    axis.plot([], [], "o", color="#555555", markersize=4, label="training, 95 % interval")
    axis.plot([], [], "--", color="#555555", linewidth=1.2, label="theory")
    axis.legend(fontsize=SMALL, loc="lower left", bbox_to_anchor=(0.0, 0.46))
    axis.set_title(f"SAM lowers the ratios ({both.sum()} starts)", loc="left")


def _errors(axis: Axes, laws: xr.Dataset) -> None:
    scales, errors = laws.scale.values, scale_errors(laws)
    for place, d in enumerate((1, 2, 3)):
        middle = np.nanmedian(errors[..., place], axis=1)
        axis.plot(scales, 100 * middle, "o-", color=feature_colour(d), markersize=4, linewidth=1.0)
        beside = 100 * middle[-1]
        align = {1: "bottom", 2: "top"}.get(d, "center")  # the first two end together
        axis.text(scales[-1] / 1.25, beside, f"$t_{d + 1}$", color=feature_colour(d), fontsize=SMALL, va=align)
    fitted = scales[scales <= LARGEST_FITTED]
    through = 100 * np.nanmedian(errors[scales == 0.03])
    axis.plot(fitted, through * fitted / 0.03, ":", color=THEORY, linewidth=1.0)
    axis.text(0.024, through * 0.45, "∝ scale", fontsize=SMALL)
    axis.set(xscale="log", yscale="log", xlabel="initial scale (standard deviation of v)", xlim=(0.0068, 0.5))
    axis.set(ylabel="median error of the theory, %")
    axis.set_xticks([0.01, 0.03, 0.1, 0.3], labels=["0.01", "0.03", "0.1", "0.3"])
    axis.set_yticks([0.3, 1, 3, 10], labels=["0.3", "1", "3", "10"])
    axis.minorticks_off()
    axis.set_title("The error falls with the start", loc="left")


def _factors(axis: Axes, laws: xr.Dataset) -> None:
    kappa, drives = laws.pair_factor.values, float(laws.pair_drive_ratio)
    times = laws.pair_learning_time.values
    middle, low, high = np.asarray([median_interval(row[:, 1] / row[:, 0]) for row in times]).T
    fine, ratio = np.geomspace(1.0, 6.0, 60), pair_ratio(laws)[0]
    axis.plot(fine, 1.0 + (ratio - 1.0) * (drives / fine - 1.0) / (drives - 1.0), "--", color=THEORY, linewidth=1.2)
    axis.plot(fine, 1.0 + (ratio - 1.0) / fine, ":", color=THEORY, linewidth=1.0)
    axis.plot(fine, ratio / fine, "-", color="#999999", linewidth=1.0)
    axis.errorbar(kappa, middle, [middle - low, high - middle], fmt="o", color=LATE, markersize=4, linewidth=1.0)
    for name, height in (
        (" law (notes, §16)", 1.0 + (ratio - 1.0) * (drives / 6.0 - 1.0) / (drives - 1.0)),
        ("R − 1 divided by κ", 1.0 + (ratio - 1.0) / 6.0),
        ("R divided by κ", ratio / 6.0),
    ):
        axis.text(6.2, height, name, fontsize=SMALL, va="center")
    axis.set(xscale="log", yscale="log", xlabel="factor κ on the slow one of two groups", xlim=(0.93, 24.0))
    axis.set(ylabel="R = median of $t_2/t_1$", ylim=(0.5, 5.0))
    axis.set_xticks(kappa, labels=[f"{each:g}" for each in kappa])
    axis.set_yticks([0.5, 1, 2, 4], labels=["½", "1", "2", "4"])
    axis.minorticks_off()
    axis.set_title("κ divides neither R nor R − 1", loc="left")


FIGURE = FigureSpec(
    "random_starts",
    "Random starts are predicted",
    "a: learning times of 64 random starts under gradient descent (entries of v, k, q 0.02, 0.01, 0.01) against those "
    "that theory computes from each start alone. b: medians of t_d/t_1 under SAM (entries 0.1, 0.05, 0.05), of the "
    "starts that learn all four features at each ρ shown, in training and in theory. c: median error of predicted "
    "learning times over 32 starts, each at four scales; the dotted line is proportional to the scale. d: two groups "
    "with a feature each, shares 0.9 and 0.1, the slow one upsampled: medians over 64 starts with 95 % intervals, the "
    "law of heads that go on from one feature to the next (dashed), its limit for very different drives (dotted), and "
    "the rule R/κ (grey).",
    ("random_initialisation", "sam_simplicity_bias", "random_starts"),
    draw,
)
