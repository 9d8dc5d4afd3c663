"""One style for all figures: theory dashed black, simulation solid, the same colours for the features everywhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icl_theory.analysis.trajectory import Trajectory
from icl_theory.tasks.features import Features

# Distinguishable under the common colour-vision deficiencies (Okabe and Ito), dark enough on white.
FEATURE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F", "#000000")
GD, SAM, UPSAMPLED, THEORY = "#4D4D4D", "#C1440E", "#5B3A9E", "#000000"

STYLE: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "icl_theory",
}


styled = matplotlib.rc_context(STYLE)  # decorator of every function that draws


class ShownFigure(Figure):
    """A figure that a notebook shows as the result of a cell, without pyplot."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **settings: Any
) -> tuple[Figure, np.ndarray]:
    """Return a figure without a window and its axes, an array (rows, columns); call from a `styled` function."""
    figure = ShownFigure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, **settings)


@styled
def save_figure(figure: Figure, stem: Path) -> None:
    """Write `stem.png` and `stem.svg`, the same bytes for the same data."""
    for suffix in (".png", ".svg"):
        save_picture(figure, stem.with_name(stem.name + suffix))


@styled
def save_picture(figure: Figure, path: Path) -> Figure:
    """Write one `.png` or `.svg`, the same bytes for the same data, and make its folder if need be.

    Returns:
        The figure, so that a notebook shows it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else {"Date": None})
    return figure


def feature_colour(index: int) -> str:
    """Return the colour of feature `index` (0 = simplest)."""
    return FEATURE_COLOURS[index % len(FEATURE_COLOURS)]


def ordered_colours(count: int) -> list[Any]:
    """Return colours for ordered settings, from dark to light; they are readable in grey too."""
    return [matplotlib.colormaps["viridis"](place) for place in np.linspace(0.0, 0.85, count)]


def draw_levels(axis: Axes, levels: np.ndarray, *, label: str = "predicted plateaus") -> None:
    """Draw dashed horizontal lines at predicted losses."""
    for index, level in enumerate(levels):
        axis.axhline(level, color=THEORY, linestyle=(0, (4, 3)), linewidth=0.9, label=label if index == 0 else None)


@styled
def draw_run(
    trajectory: Trajectory,
    *,
    features: Features | None,
    plateaus: np.ndarray,
    prediction: Trajectory | None,
    threshold: float,
    colour: str,
    title: str,
) -> Figure:
    """Draw one run: its loss with the predicted plateaus, and its strengths; a prediction is dashed."""
    figure, ((left, right),) = new_figure(10, 4.0, 1, 2)
    dashed: Any = {"color": THEORY, "linestyle": "--", "linewidth": 1.2}
    left.plot(trajectory.time, trajectory.loss, color=colour, linewidth=2.6, label="simulation")
    if prediction is not None:
        left.plot(prediction.time, prediction.loss, **dashed, label="theory")
    if features is not None:
        draw_levels(left, plateaus)
        scale = np.where(features.optimum > 0, features.optimum, 1.0)
        for d, (curve, unit) in enumerate(zip(trajectory.strength.T, scale, strict=True)):
            right.plot(
                trajectory.time,
                curve / unit,
                color=feature_colour(d),
                linewidth=2.6,
                label=f"feature {d + 1}" if d < 24 else None,
            )
        if prediction is not None:
            first, *rest = (prediction.strength / scale).T
            right.plot(prediction.time, first, **dashed, label="theory")
            for curve in rest:
                right.plot(prediction.time, curve, **dashed)
        right.axhline(threshold, color="#999999", linewidth=0.8, linestyle=":")
        right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=1 + len(scale) // 12)
    else:
        right.text(0.5, 0.5, "no joint eigenbasis: no features", ha="center", transform=right.transAxes)
    left.legend(loc="center right", frameon=True, framealpha=1.0, edgecolor="none")  # the plateaus pass behind it
    left.set(title="Loss", xlabel="time (learning rate × step)", ylabel="mean square error")
    right.set(title="Feature strengths", xlabel="time (learning rate × step)", ylabel="$w_d / w_d^*$")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure
