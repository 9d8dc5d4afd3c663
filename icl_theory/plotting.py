"""One style for all figures: theory dashed black, simulation solid, one colour for one thing, the sizes of a paper."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icl_theory.analysis.trajectory import Trajectory
from icl_theory.tasks.features import Features

# One colour for one thing. Features are ordered, so theirs run from dark to light; methods differ in hue, and stay
# apart under the common colour-vision deficiencies.
FEATURE_COLOURS = ("#0B2560", "#2C6FBF", "#2AA8B5", "#86CDA6", "#C3D66B", "#E3C94A", "#B0A46E", "#7F7F7F")
THEORY = "#000000"
GD, SAM, FUNCTIONAL_SAM = "#4D4D4D", "#D55E00", "#F09A66"
LATE, FRESH_LATE, RANDOM, EARLY = "#7B3FA0", "#CC79A7", "#9A9A9A", "#E69F00"  # upsampled or drawn anew

COLUMN, PAGE = 3.3, 6.8  # widths of figures, in inches: a column and a page of a paper

STYLE: Any = {
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": "#EAEAEA",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "legend.handlelength": 1.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "errorbar.capsize": 1.5,
    "svg.hashsalt": "icl_theory",
    "pdf.fonttype": 42,  # text stays text
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


def new_panels(count: int, columns: int = 2, *, height: float = 2.2, **settings: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure as wide as `figure.figsize` in matplotlib's settings, and its lettered panels, row by row.

    Call it from a `styled` function. A figure narrower than a page has one panel a row.

    Args:
        count: number of panels.
        columns: panels in a row at the width of a page.
        height: height of a row, in inches.
        settings: passed on to `Figure.subplots`; `width_ratios` is left out where there is one panel a row.
    """
    width = matplotlib.rcParams["figure.figsize"][0]
    if width < PAGE - 1.0:
        columns, settings = 1, {name: value for name, value in settings.items() if name != "width_ratios"}
    rows = -(-count // columns)
    figure, axes = new_figure(width, height * rows, rows, columns, **settings)
    panels = list(axes.ravel())
    for axis in panels[count:]:
        axis.set_axis_off()
    if count > 1:
        for axis, letter in zip(panels, "abcdefghijklmnop", strict=False):
            draw_letter(axis, letter)
    return figure, panels[:count]


def draw_letter(axis: Axes, letter: str) -> None:
    """Draw the letter of a panel above its y-axis, left of its title."""
    place: Any = {"xy": (0.0, 1.0), "xycoords": "axes fraction", "xytext": (-6.0, 4.0), "textcoords": "offset points"}
    axis.annotate(letter, **place, fontsize=9, fontweight="bold", ha="right", va="bottom")


@styled
def save_figure(figure: Figure, stem: Path, formats: Sequence[str] = ("png", "svg")) -> None:
    """Write `stem.png` and other formats of a figure, the same bytes for the same data."""
    for suffix in formats:
        save_picture(figure, stem.with_name(f"{stem.name}.{suffix}"))


@styled
def save_picture(figure: Figure, path: Path) -> Figure:
    """Write one `.png`, `.svg` or `.pdf`, the same bytes for the same data, and make its folder if need be.

    Returns:
        The figure, so that a notebook shows it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    undated = {".png": {"Software": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(path, metadata=undated.get(path.suffix, {"Date": None}))
    if path.suffix == ".svg":  # hundredths of a point do (not of the scale of a glyph), and so do lines without indent
        text = re.sub(r"(?<!scale\(0)(\.\d\d)\d{4}\b", r"\1", path.read_text(encoding="utf-8"))
        path.write_text(re.sub(r"\s*\n\s*", "\n", text), encoding="utf-8")
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
