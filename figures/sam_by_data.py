"""SAM against gradient descent on upsampled data, with the factor derived from ρ."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import EARLY, GD, LATE, SAM, new_panels, styled, text_colour
from icl_theory.verification.changes import log_change

TWO_PHASE, INITIAL = "#A87BC5", "#C9ABDB"  # other factors on the late group: lighter than LATE
KINDS = {"path": ("o", LATE), "two_phase": ("s", TWO_PHASE), "initial": ("^", INITIAL)}


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw learning-time ratios, factors and gradient evaluations from aligned starts; then random starts."""
    figure, (ratio, factor, spent, random) = new_panels(4, height=2.3)
    _ratio(ratio, data)
    _factor(factor, data)
    _spent(spent, data)
    for axis in (ratio, factor, spent):
        axis.set(xlabel=r"$\delta = \rho / (\sqrt{3}\, u_0)$", xlim=(-0.04, 0.97))
    _random(random, data)
    return figure


def _ratio(axis: Axes, data: xr.Dataset) -> None:
    ratios = data.aligned_learning_time_ratio
    axis.plot(data.delta, ratios.sel(aligned_arm="sam"), color=SAM, linewidth=3.0)
    for name, (marker, colour) in reversed(KINDS.items()):
        axis.plot(data.delta, ratios.sel(aligned_arm=name), marker, color=colour)
    for x, y, text, colour in (
        (0.44, 4.0, "SAM", SAM),
        (0.44, 3.65, "κ path-matched", LATE),
        (0.44, 3.3, "κ two-phase", TWO_PHASE),
        (0.0, 1.0, "κ of SAM's\nfirst step", INITIAL),
    ):
        axis.text(x, y, text, color=text_colour(colour), fontsize=7)
    axis.set(title="Aligned starts: some factor κ has\nSAM's ratio at every ρ", ylabel="$t_2/t_1$", ylim=(0, 4.4))


def _factor(axis: Axes, data: xr.Dataset) -> None:
    for name, (marker, colour) in reversed(KINDS.items()):
        axis.plot(data.delta, data.aligned_factor.sel(aligned_arm=name), f"{marker}-", color=colour, linewidth=1.0)
    for x, y, text, colour in (
        (0.42, 12.0, "of SAM's\nfirst step", INITIAL),
        (0.715, 4.2, "two-phase", TWO_PHASE),
        (0.55, 1.15, "path-matched", LATE),
    ):
        axis.text(x, y, text, color=text_colour(colour), fontsize=7)
    axis.set(
        title="The factor that equals SAM's\nfirst step is far too large",
        ylabel="factor κ on the slow group",
        yscale="log",
        ylim=(0.9, 60),
    )
    axis.set_yticks([1, 2, 5, 10, 20, 50], labels=["1", "2", "5", "10", "20", "50"])
    axis.minorticks_off()


def _spent(axis: Axes, data: xr.Dataset) -> None:
    spent = data.aligned_evaluations / 1e3
    axis.axhline(float(spent.sel(aligned_arm="path")[0]), color=GD, linewidth=1.0)
    for name, colour in (("sam", SAM), ("path", LATE)):
        axis.plot(data.delta, spent.sel(aligned_arm=name), "o-", color=colour)
    for x, y, text, colour in (
        (0.3, 38.0, "SAM", SAM),
        (0.3, 21.0, "GD, data as they are", GD),
        (0.3, 8.5, "GD, κ path-matched", LATE),
    ):
        axis.text(x, y, text, color=text_colour(colour), fontsize=7)
    axis.set(title="Upsampling saves gradients,\nSAM needs more than twice as many", ylim=(0, 64))
    axis.set_ylabel("gradient evaluations, thousands")


def _random(axis: Axes, data: xr.Dataset) -> None:
    """Draw learning-time ratios relative to gradient descent at the largest ρ."""
    arms: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("sam", SAM, "SAM", {}),
        ("secant", LATE, "κ after a secant step", {}),
        ("late", LATE, r"$\kappa = R/R_{\mathrm{SAM}}$", {"markerfacecolor": "white"}),
        ("early", EARLY, "control: factors reversed", {}),
    )
    features = (2, 3, 4)
    ratios = data.learning_time_ratio.isel(rho=-1)
    for place, (arm, colour, label, style) in enumerate(arms):
        changes = [log_change(*(ratios.sel(arm=each, feature=d) for each in (arm, "gd"))) for d in features]
        middle, low, high = np.exp(np.asarray(changes)[:, :3]).T
        across = np.arange(len(features)) + 0.15 * (place - 1.5)
        axis.errorbar(across, middle, [middle - low, high - middle], fmt="o", color=colour, label=label, **style)
    axis.axhline(1.0, color=GD, linewidth=1.0)
    axis.set(
        title=f"Random starts, ρ = {float(data.rho[-1]):g}: a secant\nstep goes most of the way",
        ylim=(0.72, 1.13),
        xlim=(-0.5, 2.5),
    )
    axis.set_ylabel("relative to gradient descent")
    axis.set_xticks(range(len(features)), labels=[f"$t_{d}/t_1$" for d in features])
    axis.legend(loc="lower left", labelspacing=0.25)


FIGURE = FigureSpec(
    "sam_by_data",
    "From aligned starts gradient descent on upsampled data has SAM's learning-time ratio, with less than half of its "
    "gradients",
    "a to c: two groups with a feature each, aligned starts; the slow group is upsampled by a factor derived from ρ. "
    "a: t_2/t_1 under SAM (line) and under gradient descent with each factor. b: the factors. The two-phase formula "
    "ends where s ≥ 1. The factor that equals SAM's first step overshoots, because δ falls while features grow. c: "
    "gradient evaluations until both features are learned. d: four features from random starts, a group for each; "
    "factors were taken from other seeds, the ratio R over SAM's ratio or one secant step from there, or in reverse "
    "order; medians of 64 seeds with 99 % intervals.",
    ("sam_by_data",),
    draw,
)
