"""Simplicity bias against the upsampling factor, with theory; and what weights on single examples do."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.analysis.intervals import median_interval
from icl_theory.plotting import THEORY, feature_colour, new_figure, styled


@styled
def draw(data: xr.Dataset) -> Figure:
    """Aligned starts; random starts; learning times of weighted examples; the bias of the optimum."""
    figure, ((aligned, random), (examples, cost)) = new_figure(12.0, 8.4, 2, 2)
    _aligned(aligned, data)
    _random(random, data)
    _examples(examples, data)
    _cost(cost, data)
    return figure


def _aligned(axis: Axes, data: xr.Dataset) -> None:
    fine, pair = data.fine_factor, data.pair_learning_time
    axis.plot(fine, data.pair_predicted_ratio / fine, "--", color=THEORY, linewidth=1.2)
    axis.plot(
        data.pair_factor, pair[:, 1] / pair[:, 0], "o", color=feature_colour(1), label="$t_2/t_1$, a group for each"
    )
    predicted, times = data.fine_predicted_learning_time, data.shared_learning_time
    for d in (2, 3):
        axis.plot(
            data.shared_factor,
            times[:, d] / times[:, 0],
            "s",
            color=feature_colour(d),
            markersize=5,
            label=f"$t_{d + 1}/t_1$, groups share features",
        )
        axis.plot(fine, predicted[:, d] / predicted[:, 0], "--", color=THEORY, linewidth=1.2)
    axis.plot([], [], "--", color=THEORY, linewidth=1.2, label="theory")
    _log_axes(axis, (0.5, 1, 2, 4, 8), (0.5, 1, 2, 4, 8), ylim=(0.4, 9.5))
    axis.axhline(1.0, color="#999999", linewidth=0.8)
    axis.set(title="Aligned starts", xlabel="factor κ on the late group", ylabel="learning-time ratio, log scale")
    axis.legend(loc="lower left", fontsize=8.5)


def _random(axis: Axes, data: xr.Dataset) -> None:
    late = data.upsampled.str.startswith("late").values
    kappa, early = data.factor.values[late], data.factor.values[~late]
    for d in (2, 3):
        ratios, colour = data.learning_time_ratio.sel(groups="separate").values[..., d], feature_colour(d)
        middle, low, high = np.asarray([median_interval(row[np.isfinite(row)]) for row in ratios]).T
        axis.fill_between(kappa, low[late], high[late], color=colour, alpha=0.2, linewidth=0)
        axis.plot(kappa, middle[late], "o-", color=colour, markersize=4, label=f"late ×κ: $t_{d + 1}/t_1$")
        axis.plot(kappa, middle[0] / kappa, ":", color=colour, linewidth=1.2)
        theory = data.predicted_learning_time.sel(groups="separate").values[late]
        axis.plot(kappa, np.median(theory[..., d] / theory[..., 0], axis=1), "--", color=THEORY, linewidth=1.2)
        bars = np.abs(np.stack([low, high])[:, ~late] - middle[~late])
        axis.errorbar(early, middle[~late], bars, fmt="x", color=colour, label=f"early ×κ: $t_{d + 1}/t_1$")
    shared = np.median(data.learning_time_ratio.sel(groups="sharing").values[late, :, 3], axis=1)
    axis.plot(kappa, shared, "s-", color="#555555", markersize=4, linewidth=1.2, label="groups share: $t_4/t_1$")
    theory = data.predicted_learning_time.sel(groups="sharing").values[late]
    axis.plot(kappa, np.median(theory[..., 3] / theory[..., 0], axis=1), "--", color=THEORY, linewidth=1.2)
    axis.plot([], [], "--", color=THEORY, linewidth=1.2, label="theory of each start")
    axis.plot([], [], ":", color="#555555", linewidth=1.2, label="rule R/κ")
    _log_axes(axis, (1, 1.5, 2, 3, 4, 6), (0.5, 1, 2, 4, 8, 16), ylim=(0.25, 20))
    axis.axhline(1.0, color="#999999", linewidth=0.8)
    axis.set(title="Random starts", xlabel="factor κ", ylabel="median over 64 seeds")
    axis.legend(loc="lower left", fontsize=8, ncols=2)


def _examples(axis: Axes, data: xr.Dataset) -> None:
    """Draw the relative error of every predicted time, with and without couplings between features."""
    measured = data.example_aligned_learning_time.values
    for arm in range(data.sizes["arm"]):
        for d in range(4):
            for name, shift, marker in (("drives", -0.04, "x"), ("coupled", 0.04, "o")):
                predicted = data.example_predicted_learning_time.sel(theory=name).values[arm, :, d]
                errors = 100.0 * (predicted / measured[arm, :, d] - 1.0)
                place = np.full(len(errors), arm + 0.19 * (d - 1.5) + shift)
                axis.plot(place, errors, marker, color=feature_colour(d), markersize=3, alpha=0.7, linestyle="none")
    for d in range(4):
        axis.plot([], [], "s", color=feature_colour(d), markersize=5, label=f"feature {d + 1}")
    axis.plot([], [], "x", color="#555555", markersize=4, label="drives alone", linestyle="none")
    axis.plot([], [], "o", color="#555555", markersize=4, label="with couplings", linestyle="none")
    axis.axhline(0.0, color="black", linewidth=0.8)
    axis.set_xticks(range(data.sizes["arm"]), labels=data.arm.values)
    axis.set(
        title="Single examples: learning times from weighted moments",
        ylabel="predicted over measured − 1, %",
        ylim=(-29, 25),
    )
    axis.legend(loc="lower left", fontsize=8, ncols=3, columnspacing=0.8, handletextpad=0.3)


def _cost(axis: Axes, data: xr.Dataset) -> None:
    theory, measured = (
        100 * data[f"{name}_excess_loss"] / data.shared_least_loss for name in ("fine_predicted", "shared")
    )
    axis.plot(data.fine_factor, theory, "--", color=THEORY, linewidth=1.2, label="theory")
    axis.plot(data.shared_factor, measured, "o", color="#555555", label="after training")
    axis.set(xscale="log", title="Cost of the bias", xlabel="factor κ on the late group", ylim=(-0.3, 7))
    axis.set_ylabel("loss on the original mixture\nabove its optimum, %")
    axis.set_xticks([0.5, 1, 2, 4, 8], labels=["½", "1", "2", "4", "8"])
    axis.minorticks_off()
    axis.legend(loc="upper left", fontsize=8.5)


def _log_axes(axis: Axes, x: tuple[float, ...], y: tuple[float, ...], *, ylim: tuple[float, float]) -> None:
    axis.set(xscale="log", yscale="log", ylim=ylim)
    axis.set_xticks(x, labels=[f"{value:g}" for value in x])
    axis.set_yticks(y, labels=[f"{value:g}" for value in y])
    axis.minorticks_off()


FIGURE = FigureSpec(
    "upsampling",
    "Simplicity bias against the upsampling factor",
    "Upper left: aligned starts, two groups with a feature each (dots) and two that share all four features "
    "(squares), on the closed form (dashed). Upper right: medians over 64 random starts with 95 % intervals; a group "
    "for each feature, those of 3 and 4 upsampled (lines) or, as a control, those of 1 and 2 (crosses), the theory of "
    "each start (dashed) and the rule R/κ (dotted); and t_4/t_1 where two groups share the features and the minority "
    "is upsampled (squares). Lower left: 24 data sets of 5000 prompts, plain, late examples upsampled by the ratio "
    "rule, the controls, and two other ways to choose the late: error of the learning times that the weighted moments "
    "predict. Lower right: what the bias of the upsampled optimum costs on the original mixture.",
    ("upsampling",),
    draw,
)
