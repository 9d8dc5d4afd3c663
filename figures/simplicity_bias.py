"""Simplicity bias against SAM's radius, and the share of runs that SAM lets learn at all."""

from __future__ import annotations

import numpy as np
import scipy.stats
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import GD, SAM, THEORY, feature_colour, new_panels, ordered_colours, styled, text_colour
from icl_theory.verification.changes import CONFIDENCE, log_change

MOSTLY_LEARNED = 0.95
RATIOS = (3.0, 2.0, 1.5)


@styled
def draw(sharpness: xr.Dataset, phase: xr.Dataset) -> Figure:
    """Draw aligned starts against the flow, ratios from random starts, and the share of those that learn."""
    figure, (aligned, random, share) = new_panels(3, 3, height=2.5)
    _aligned(aligned, phase)
    _random(random, sharpness)
    _share(share, sharpness)
    return figure


def _aligned(axis: Axes, phase: xr.Dataset) -> None:
    deltas = phase.delta.values
    for ratio, colour in zip(RATIOS, ordered_colours(len(RATIOS)), strict=True):
        row = phase.sel(eigenvalue_ratio=ratio, method="nearest")
        simulated, predicted = (
            times[:, 1] / times[:, 0]
            for times in (row.learning_time.isel(learning_rate=0).values, row.predicted_learning_time.values)
        )
        axis.plot(deltas[::2], simulated[::2], "o", color=colour)
        axis.plot(deltas, predicted, color=THEORY, linestyle="--", linewidth=0.9)
        axis.text(0.03, simulated[0] - 0.35, f"{ratio:g}", color=text_colour(colour), ha="left", va="top")
    axis.text(1.17, 8.7, "eigenvalue ratio\n$λ_1/λ_2$ as labelled", ha="right", va="top")
    axis.set(xlim=(-0.03, 1.23), ylim=(0.5, 9.6), xticks=(0.0, 0.5, 1.0), yticks=(1, 3, 5, 7, 9))
    axis.set(xlabel="SAM's radius δ = ρ / (√3 u₀)", ylabel="$t_2/t_1$")
    axis.set_title("Aligned starts: SAM brings\n$t_2/t_1$ to 1, as predicted")


def _random(axis: Axes, sharpness: xr.Dataset) -> None:
    rhos, ratios = sharpness.rho.values, sharpness.learning_time_ratio.values
    shown = np.flatnonzero(_learned(sharpness).mean(axis=1) >= MOSTLY_LEARNED)[1:]
    for d in (1, 2, 3):
        changes = np.asarray([log_change(ratios[i, :, d], ratios[0, :, d]) for i in shown])
        middle, low, high = np.exp(changes[:, :3].T)
        colour, across = feature_colour(d), np.append(0.0, rhos[shown] + 0.0012 * (d - 2))
        axis.plot(across, np.append(1.0, middle), color=colour, linewidth=1.0)
        axis.errorbar(across[1:], middle, [middle - low, high - middle], fmt="o", color=colour)
        align = {2: "top", 3: "bottom"}.get(d, "center")  # the last two end together
        axis.text(rhos[shown[-1]] + 0.005, middle[-1], f"$t_{d + 1}/t_1$", color=text_colour(colour), va=align)
    axis.axhline(1.0, color=GD)
    axis.text(0.094, 1.005, "GD", color=GD, ha="right", va="bottom")
    axis.set(xlim=(0.0, 0.095), ylim=(0.45, 1.05), xticks=(0.0, 0.03, 0.06, 0.09))
    axis.set(xlabel="SAM's radius ρ", ylabel="ratio relative to gradient descent")
    axis.set_title("Random starts: SAM\nlowers every ratio")


def _share(axis: Axes, sharpness: xr.Dataset) -> None:
    rhos, learned = sharpness.rho.values, _learned(sharpness)
    share, seeds = learned.mean(axis=1), learned.shape[1]
    tests = [scipy.stats.binomtest(int(count), seeds) for count in learned.sum(axis=1)]
    low, high = np.asarray([test.proportion_ci(CONFIDENCE) for test in tests]).T
    axis.errorbar(rhos, share, [share - low, high - share], fmt="o-", color=SAM, linewidth=1.0)
    axis.set(xlim=(-0.006, 0.206), ylim=(-0.02, 1.04), xticks=(0.0, 0.1, 0.2))
    axis.set(xlabel="SAM's radius ρ (0: GD)", ylabel="share of starts that learn")
    axis.set_title("Random starts: too large\na radius traps them")


def _learned(sharpness: xr.Dataset) -> np.ndarray:
    """Return whether each run, at each radius, learns any feature."""
    return np.isfinite(sharpness.learning_time.values.min(axis=-1))


FIGURE = FigureSpec(
    "simplicity_bias",
    "SAM lowers the simplicity bias, until too large a radius traps runs at the saddle",
    "a: aligned, equal starts with two features whose eigenvalues have the ratio 3, 2 or 1.5: t_2/t_1 of the full "
    "model (dots, η = 0.002) and of the reduced flow (dashed). b: ratios of learning times under SAM over those under "
    "gradient descent from the same random start, medians of 64 seeds, at the radii at which at least "
    f"{MOSTLY_LEARNED:.0%} of them learn. c: share of these starts that learn any feature. Bars are 99 % intervals.",
    ("sam_simplicity_bias", "phase_diagram"),
    draw,
)
