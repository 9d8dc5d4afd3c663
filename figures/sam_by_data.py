"""SAM against gradient descent on upsampled data, with the factor derived from ρ."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import GD, SAM, feature_colour, new_figure, styled
from icl_theory.verification.changes import log_change

KINDS = (
    ("path", "o", "#0072B2", "κ path-matched"),
    ("two_phase", "s", "#009E73", "κ two-phase formula"),
    ("initial", "^", "#CC79A7", "κ SAM-equivalent at start"),
)


@styled
def draw(data: xr.Dataset) -> Figure:
    """Learning-time ratios side by side, the factors, gradient evaluations; then random starts."""
    figure, ((ratio, factor), (spent, random)) = new_figure(12.0, 8.4, 2, 2)
    deltas, by_sam, path = data.delta, data.sel(aligned_arm="sam"), data.sel(aligned_arm="path")
    ratio.plot(deltas, by_sam.aligned_learning_time_ratio, color=SAM, linewidth=3, label="SAM")
    for name, marker, colour, label in KINDS:
        arm = data.sel(aligned_arm=name)
        times = arm.aligned_learning_time_ratio
        ratio.plot(deltas, times, marker, color=colour, markersize=5, label=f"GD, {label}")
        factor.plot(deltas, arm.aligned_factor, marker + "-", color=colour, markersize=4, linewidth=1.2, label=label)
    ratio.set(title="Aligned starts: $t_2/t_1$", ylabel="$t_2 / t_1$", ylim=(0, 4.4))
    ratio.legend(loc="lower left", fontsize=8.5)
    factor.set(title="The factor derived from ρ", ylabel="κ, log scale", yscale="log", ylim=(0.9, 60))
    factor.set_yticks([1, 2, 5, 10, 20, 50], labels=["1", "2", "5", "10", "20", "50"])
    factor.minorticks_off()
    spent.plot(deltas, by_sam.aligned_evaluations / 1e3, "o-", color=SAM, markersize=4, label="SAM")
    spent.plot(deltas, path.aligned_evaluations / 1e3, "o-", color=GD, markersize=4, label="GD, κ path-matched")
    spent.set(title="Cost of learning both features", ylabel="gradient evaluations, thousands", ylim=(0, None))
    spent.legend(loc="center left", bbox_to_anchor=(0.0, 0.52), fontsize=8.5)
    for axis in (ratio, factor, spent):
        axis.set(xlabel="δ = ρ / (√3 u₀)")
    _random(random, data)
    return figure


def _random(axis: Axes, data: xr.Dataset) -> None:
    """Draw changes of ln(t_d/t_1) against gradient descent at the largest ρ, a group of bars for each feature."""
    arms = (
        ("sam", SAM, "SAM"),
        ("late", "#56B4E9", "GD, κ = $R/R_{SAM}$"),
        ("secant", "#0072B2", "GD, κ after a secant step"),
        ("early", "#999999", "GD, factors reversed (control)"),
    )
    for place, (arm, colour, label) in enumerate(arms):
        for d in (1, 2, 3):
            values, plain = (data.learning_time_ratio.sel(arm=name)[-1, :, d] for name in (arm, "gd"))
            change = log_change(values, plain, confidence=0.95)
            x = d + 0.18 * (place - 1.5)
            axis.bar(x, change.median, 0.17, color=colour, label=label if d == 1 else None)
            axis.plot([x, x], [change.low, change.high], color="black", linewidth=1.2)
    axis.axhline(0.0, color="black", linewidth=0.8)
    axis.set(title=f"Random starts, ρ = {float(data.rho[-1]):g}", ylabel="change of ln $(t_d/t_1)$ against GD")
    axis.set_xticks([1, 2, 3], labels=[f"d = {d + 1}" for d in (1, 2, 3)])
    axis.set(ylim=(-0.27, 0.19), xlim=(0.5, 3.5))
    for tick, d in zip(axis.get_xticklabels(), (1, 2, 3), strict=True):
        tick.set_color(feature_colour(d))
    axis.legend(loc="upper left", fontsize=8.5)


FIGURE = FigureSpec(
    "sam_by_data",
    "SAM by data: gradient descent on upsampled data against SAM",
    "Aligned starts, two groups with a feature each: upper left, t_2/t_1 under SAM (line) and under gradient descent "
    "with the slow group upsampled by a factor derived from ρ; upper right, the factors in the same colours (the "
    "two-phase formula ends where s ≥ 1); lower left, the gradient evaluations until both are learned. The factor "
    "that is SAM-equivalent at the start overshoots, because δ = ρ/(√3 u) falls while features grow. Lower right: "
    "four features from random starts, 64 seeds that the factors were not taken from, medians with 95 % intervals.",
    ("sam_by_data",),
    draw,
)
