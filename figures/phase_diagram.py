"""t_2/t_1 over ρ and the eigenvalue ratio: full model against the reduced flow."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import new_figure, styled


@styled
def draw(phase: xr.Dataset) -> Figure:
    """Heat map with theory's contours; what a coarse step changes, with the predicted onset of oscillation."""
    figure, ((left, right),) = new_figure(12.5, 5.0, 1, 2)
    deltas, ratios = phase.delta, phase.eigenvalue_ratio
    with np.errstate(invalid="ignore"):
        fine, coarse, flow = (
            times[..., 1] / times[..., 0]
            for times in (*phase.learning_time.values, phase.predicted_learning_time.values)
        )
    mesh = left.pcolormesh(
        deltas, ratios, fine, norm=LogNorm(1.0, 9.0), cmap="viridis", shading="nearest", rasterized=True
    )
    bar = figure.colorbar(mesh, ax=left, label="$t_2/t_1$, full model", ticks=[1, 2, 3, 5, 9], pad=0.02)
    bar.ax.set_yticklabels(["1", "2", "3", "5", "9"])
    bar.ax.minorticks_off()
    contours = left.contour(deltas, ratios, flow, levels=[1.1, 1.5, 2, 3, 5, 7], colors="white", linestyles="--")
    left.clabel(contours, fmt="%g", fontsize=9)
    _trapped(left, phase)
    left.set(title="Full model (colour), reduced flow (dashed contours)")
    deviation = 100.0 * (coarse / flow - 1.0)
    limit = max(1.0, float(np.nanmax(np.abs(deviation))))
    mesh = right.pcolormesh(
        deltas, ratios, deviation, cmap="RdBu", vmin=-limit, vmax=limit, shading="nearest", rasterized=True
    )
    figure.colorbar(mesh, ax=right, label="$t_2/t_1$, full model against flow, %", pad=0.02)
    with np.errstate(divide="ignore"):
        onset = np.log10(phase.stable_learning_rate / phase.learning_rate[1])
    right.contour(deltas, ratios, onset, levels=[0.0], colors="black", linestyles="--")
    right.plot([], [], "k--", label="predicted onset of oscillation")
    _trapped(right, phase)
    right.set(title=f"A coarser step, η = {float(phase.learning_rate[1]):g}: SAM leaves its flow")
    right.legend(loc="center right")
    for axis in (left, right):
        axis.grid(False)
        axis.set(xlabel="δ = ρ / (√3 u₀)", ylabel="eigenvalue ratio λ₁/λ₂")
    return figure


def _trapped(axis: Axes, phase: xr.Dataset) -> None:
    rows, columns = np.nonzero(~np.isfinite(phase.learning_time.values[0, ..., 0]))
    deltas, ratios = phase.delta.values[columns], phase.eigenvalue_ratio.values[rows]
    axis.scatter(deltas, ratios, marker="x", s=18, color="#C1440E", linewidths=1.2)
    if len(rows):
        edge, top = deltas.min(), ratios.max()
        axis.annotate(
            "trapped",
            (edge, top),
            xytext=(edge - 0.32, top + 0.12),
            color="#C1440E",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": "#C1440E", "linewidth": 0.8},
        )


FIGURE = FigureSpec(
    "phase_diagram",
    "Phase diagram over ρ and eigenvalue ratio",
    "λ = (1, λ₂), aligned equal start u₀ = 0.05, normalised SAM; every cell is one training run of the full model. "
    "Left: at η = 0.002 the reduced flow (dashed, labelled) lies on the measured ratios: they fall with ρ everywhere. "
    "Crosses: not learned within time 250, near ρ = ‖θ(0)‖ (δ = √2) and only where the two features are nearly alike. "
    "Right: at η = 0.01 SAM oscillates about the first learned feature above the dashed line derived for it and, well "
    "above it, learns the second sooner than its flow.",
    ("phase_diagram",),
    draw,
)
