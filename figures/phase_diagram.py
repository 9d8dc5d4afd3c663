"""t_2/t_1 over SAM's radius and the eigenvalue ratio: full model against the reduced flow."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import SAM, THEORY, new_panels, styled, text_colour

# Both are nearly white where nothing happens, and leave black lines visible.
RATIOS = ListedColormap(matplotlib.colormaps["GnBu"](np.linspace(0.0, 0.85, 256)))
LOWER = ListedColormap(matplotlib.colormaps["RdBu"](np.linspace(0.0, 0.5, 256)))


@styled
def draw(phase: xr.Dataset) -> Figure:
    """Draw the ratio with theory's contours, and what a coarse step changes with the predicted onset of oscillation."""
    figure, (fine, coarse) = new_panels(2, height=2.9)
    with np.errstate(invalid="ignore"):
        ratios = [times[..., 1] / times[..., 0] for times in phase.learning_time.values]
        flow = phase.predicted_learning_time.values[..., 1] / phase.predicted_learning_time.values[..., 0]
    bar = _mesh(fine, phase, ratios[0], "$t_2/t_1$ of the full model", cmap=RATIOS, norm=LogNorm(1.0, 9.0))
    bar.set_ticks([1, 2, 3, 5, 9], labels=["1", "2", "3", "5", "9"])
    bar.minorticks_off()
    dashed: Any = {"colors": THEORY, "linestyles": "--", "linewidths": 0.9}
    contours = fine.contour(phase.delta, phase.eigenvalue_ratio, flow, levels=[1.1, 1.5, 2, 3, 5, 7], **dashed)
    fine.clabel(contours, fmt="%g", fontsize=7)
    fine.set_title("Fine step: the model lies on\nthe reduced flow (dashed)")
    deviation = 100.0 * (ratios[1] / flow - 1.0)
    _mesh(coarse, phase, deviation, "deviation from the flow, %", cmap=LOWER, vmax=0.0)
    with np.errstate(divide="ignore"):
        onset = np.log10(phase.stable_learning_rate / phase.learning_rate[1])
    coarse.contour(phase.delta, phase.eigenvalue_ratio, onset, levels=[0.0], **dashed)
    coarse.text(0.47, 1.9, "predicted onset\nof oscillation", ha="center", va="top")
    coarse.set_title("Coarse step: SAM oscillates and\nlearns feature 2 sooner than its flow")
    return figure


def _mesh(axis: Axes, phase: xr.Dataset, values: np.ndarray, label: str, **colours: Any) -> Colorbar:
    """Draw values over δ and the eigenvalue ratio, and crosses where a run did not learn; return the colour bar."""
    deltas, ratios = phase.delta.values, phase.eigenvalue_ratio.values
    mesh = axis.pcolormesh(deltas, ratios, values, shading="nearest", rasterized=True, **colours)
    rows, columns = np.nonzero(~np.isfinite(phase.learning_time.values[0, ..., 0]))
    axis.plot(deltas[columns], ratios[rows], "x", color=SAM, markersize=3.0)
    if len(rows):
        axis.text(deltas.max(), ratios[rows].max() + 0.06, "trapped", color=text_colour(SAM), ha="right", va="bottom")
    axis.grid(False)
    axis.set(xticks=(0.0, 0.5, 1.0, 1.5), yticks=(1.0, 1.5, 2.0, 2.5, 3.0))
    axis.set(xlabel="SAM's radius δ = ρ / (√3 u₀)", ylabel="eigenvalue ratio $λ_1/λ_2$")
    return axis.figure.colorbar(mesh, ax=axis, label=label, pad=0.02)


FIGURE = FigureSpec(
    "phase_diagram",
    "The reduced flow predicts how SAM lowers the simplicity bias, as long as the step is fine",
    "λ = (1, λ_2), aligned equal start u₀ = 0.05, normalised SAM; every cell is one training run of the full model. "
    "a: at η = 0.002 the ratios fall with ρ everywhere, and the contours of the reduced flow (dashed, labelled) lie on "
    "them. Crosses: not learned within time 250, near ρ = ‖θ(0)‖ (δ = √2) and only where the two features are nearly "
    "alike. b: at η = 0.01 SAM oscillates about the first learned feature above the dashed line derived for it. Well "
    "above it, it learns the second feature sooner than its flow.",
    ("phase_diagram",),
    draw,
)
