"""Random starts predicted: learning times start by start, under SAM, the theory's error, and what κ does."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.analysis.intervals import median_interval
from icl_theory.plotting import LATE, THEORY, feature_colour, new_panels, styled, text_colour
from icl_theory.verification.changes import CONFIDENCE, median_change
from icl_theory.verification.claims.random_starts_statements import LARGEST_FITTED, pair_ratio, scale_errors

LARGEST_RHO = 0.05  # beyond it many starts are trapped


@styled
def draw(random: xr.Dataset, sam: xr.Dataset, laws: xr.Dataset) -> Figure:
    """Draw predicted against measured times, medians over ρ, errors over scales, and R over κ."""
    figure, (dots, radii, errors, factors) = new_panels(4, 2, height=2.5)
    _dots(dots, random.sel(start="small"))
    _radii(radii, sam)
    _errors(errors, laws)
    _factors(factors, laws)
    return figure


def _dots(axis: Axes, runs: xr.Dataset) -> None:
    ends = [runs.learning_time.values[np.isfinite(runs.learning_time.values)].min() * 0.8, float(runs.time[-1])]
    axis.plot(ends, ends, color=THEORY, linestyle="--", linewidth=0.9)
    for d in range(runs.sizes["feature"]):
        measured, predicted = (runs[name].values[:, d] for name in ("learning_time", "predicted_learning_time"))
        axis.plot(measured, predicted, "o", color=feature_colour(d), markersize=2.5, markeredgewidth=0.0)
        middle = np.median(measured)
        axis.text(1.5 * middle, 0.8 * middle, f"feature {d + 1}", color=text_colour(feature_colour(d)), va="top")
    axis.set(xscale="log", yscale="log", xlim=(80.0, 2e4), ylim=(80.0, 2e4))
    axis.minorticks_off()
    axis.set(xlabel="measured time (learning rate × step)", ylabel="predicted time")
    axis.set_title("Learning times are predicted\nfrom each start alone")


def _radii(axis: Axes, sam: xr.Dataset) -> None:
    few = sam.sel(rho=sam.rho[sam.rho <= LARGEST_RHO])
    names = ("learning_time", "predicted_learning_time")
    both = np.all([np.isfinite(few[name].values).all(axis=(0, -1)) for name in names], axis=0)  # the same at every ρ
    for d in (1, 2, 3):
        for name in names:
            times = few[name].values
            ratios = times[:, both, d] / times[:, both, 0]
            middle, low, high = np.asarray([median_interval(each, confidence=CONFIDENCE) for each in ratios]).T
            if name == "learning_time":
                axis.errorbar(few.rho, middle, [middle - low, high - middle], fmt="o", color=feature_colour(d))
            else:
                axis.plot(few.rho, middle, color=THEORY, linestyle="--", linewidth=0.9)
        axis.text(0.052, middle[-1], f"$t_{d + 1}/t_1$", color=text_colour(feature_colour(d)), va="center")
    axis.set(yscale="log", xlabel="SAM's radius ρ (0: gradient descent)", ylabel="median ratio of learning times")
    axis.set(xlim=(-0.002, 0.06), ylim=(1.0, 30.0), xticks=[0.0, 0.02, 0.04])
    axis.set_yticks([1, 2, 5, 10, 20], labels=["1", "2", "5", "10", "20"])
    axis.minorticks_off()
    axis.set_title(f"SAM: the ratios fall as predicted\n({both.sum()} starts)")


def _errors(axis: Axes, laws: xr.Dataset) -> None:
    scales, errors = laws.scale.values, scale_errors(laws)
    for place, d in enumerate((1, 2, 3)):
        found = 100.0 * np.asarray([median_change(each, CONFIDENCE)[:3] for each in errors[..., place]])
        (middle, low, high), across = found.T, scales * 1.06 ** (place - 1)
        axis.errorbar(across, middle, [middle - low, high - middle], fmt="o-", color=feature_colour(d), linewidth=1.0)
        align = {1: "bottom", 2: "top"}.get(d, "center")  # the first two end together
        axis.text(
            scales[-1] / 1.3, middle[-1], f"$t_{d + 1}$", color=text_colour(feature_colour(d)), va=align, ha="center"
        )
    fitted = scales[scales <= LARGEST_FITTED]
    through = 100 * np.nanmedian(errors[scales == 0.03])
    axis.plot(fitted, through * fitted / 0.03, ":", color=THEORY, linewidth=1.0)
    axis.text(0.46, 0.075, "dotted: ∝ scale", ha="right")
    axis.set(xscale="log", yscale="log", xlim=(0.0068, 0.5), ylim=(0.06, 60.0))
    axis.set(xlabel="initial scale (standard deviation of v)", ylabel="median error of learning times, %")
    axis.set_xticks([0.01, 0.03, 0.1, 0.3], labels=["0.01", "0.03", "0.1", "0.3"])
    axis.set_yticks([0.1, 0.3, 1, 3, 10], labels=["0.1", "0.3", "1", "3", "10"])
    axis.minorticks_off()
    axis.set_title("The smaller the start,\nthe smaller the error")


def _factors(axis: Axes, laws: xr.Dataset) -> None:
    kappa, drives = laws.pair_factor.values, float(laws.pair_drive_ratio)
    times = laws.pair_learning_time.values
    middle, low, high = np.asarray([median_interval(row[:, 1] / row[:, 0], confidence=CONFIDENCE) for row in times]).T
    fine, ratio = np.geomspace(1.0, 6.0, 60), pair_ratio(laws)[0]
    axis.plot(fine, 1.0 + (ratio - 1.0) * (drives / fine - 1.0) / (drives - 1.0), "--", color=THEORY, linewidth=1.2)
    axis.plot(fine, 1.0 + (ratio - 1.0) / fine, ":", color=THEORY, linewidth=1.0)
    axis.plot(fine, ratio / fine, "-.", color=THEORY, linewidth=0.9)
    axis.errorbar(kappa, middle, [middle - low, high - middle], fmt="o", color=LATE, linewidth=1.0)
    for name, height in (
        ("  law (notes, §16)", 1.0 + (ratio - 1.0) * (drives / 6.0 - 1.0) / (drives - 1.0)),
        ("$(R-1)/κ + 1$", 1.0 + (ratio - 1.0) / 6.0),
        ("R/κ", ratio / 6.0),
    ):
        axis.text(6.2, height, name, va="center")
    axis.set(xscale="log", yscale="log", xlabel="factor κ on the slow one of two groups", xlim=(0.93, 24.0))
    axis.set(ylabel="R = median of $t_2/t_1$", ylim=(0.5, 5.0))
    axis.set_xticks(kappa, labels=[f"{each:g}" for each in kappa])
    axis.set_yticks([0.5, 1, 2, 4], labels=["½", "1", "2", "4"])
    axis.minorticks_off()
    axis.set_title("Upsampling: theory predicts\nwhat a factor κ does")


FIGURE = FigureSpec(
    "random_starts",
    "Learning times of random starts are predicted start by start, under SAM and upsampling too",
    "a: learning times of 64 random starts under gradient descent (entries of v, k, q 0.02, 0.01, 0.01) against those "
    "that theory computes from each start alone; on the dashed line they are equal. b: medians of t_d/t_1 under SAM "
    "(entries 0.1, 0.05, 0.05) with 99 % intervals, and their theory (dashed), of the starts that learn all four "
    "features at each ρ shown, in training and in theory. c: median error of predicted learning times over 32 starts "
    "with 99 % intervals, each start at four scales. d: two groups with a feature each, shares 0.9 and 0.1, the slow "
    "one upsampled: medians over 64 starts with 99 % intervals. Dashed: the law of heads that go on from one feature "
    "to the next; dotted: its limit for very different drives; dash-dotted: the rule R/κ.",
    ("random_initialisation", "sam_simplicity_bias", "random_starts"),
    draw,
)
