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

from icl_theory.analysis.learning_times import learning_times
from icl_theory.analysis.trajectory import Trajectory
from icl_theory.tasks.features import Features

# One colour for one thing. Features are ordered, so theirs run from dark to light; methods differ in hue, and stay
# apart under the common colour-vision deficiencies.
FEATURE_COLOURS = ("#0B2560", "#2C6FBF", "#2AA8B5", "#86CDA6", "#C3D66B", "#E3C94A", "#B0A46E", "#7F7F7F")
THEORY = "#000000"
GD, SAM, FUNCTIONAL_SAM = "#4D4D4D", "#D55E00", "#F09A66"
LATE, FRESH_LATE, RANDOM, EARLY = "#7B3FA0", "#CC79A7", "#9A9A9A", "#E69F00"  # upsampled or drawn anew

LEGIBLE = 4.7  # least contrast of words with white, so that they have 4.5 on a dark page too, which dims the sheet

NOTE = 7  # size of notes inside a panel, in points
COLUMN, PAGE = 3.3, 6.8  # widths of figures, in inches: a column and a page of a paper
LONGEST = 8.8  # height of a text page, in inches

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

    Call it from a `styled` function. A figure narrower than a page has one panel a row, and rows low enough for a page.

    Args:
        count: number of panels.
        columns: panels in a row at the width of a page.
        height: height of a row, in inches; less where the figure would be higher than `LONGEST`.
        settings: passed on to `Figure.subplots`; `width_ratios` is left out where there is one panel a row.
    """
    width = matplotlib.rcParams["figure.figsize"][0]
    if width < PAGE - 1.0:
        columns, settings = 1, {name: value for name, value in settings.items() if name != "width_ratios"}
    rows = -(-count // columns)
    figure, axes = new_figure(width, min(height * rows, LONGEST), rows, columns, **settings)
    panels = list(axes.ravel())
    for axis in panels[count:]:
        axis.set_axis_off()
    if count > 1:
        for axis, letter in zip(panels[:count], "abcdefghijklmnop", strict=False):
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


def text_colour(colour: Any) -> str:
    """Return a colour for words on white: the colour itself, darkened until its contrast is `LEGIBLE` (WCAG: 4.5).

    Args:
        colour: of the curve or mark that the words name, in any form that matplotlib knows.

    Returns:
        The colour as `#rrggbb`.
    """
    rgb: Any = np.array(matplotlib.colors.to_rgb(colour))
    while contrast_with_white(matplotlib.colors.to_hex(rgb)) < LEGIBLE:
        rgb *= 0.99
    return matplotlib.colors.to_hex(rgb)


def contrast_with_white(colour: Any) -> float:
    """Return the contrast of a colour with white, from 1 to 21: `1.05 / (luminance + 0.05)`."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(1.05 / (linear @ (0.2126, 0.7152, 0.0722) + 0.05))


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
    figure, (left, right) = new_panels(2, height=2.7)
    dashed: Any = {"color": THEORY, "linestyle": "--", "linewidth": 1.0}
    left.plot(trajectory.time, trajectory.loss, color=colour, linewidth=2.0, label="simulation")
    if prediction is not None:
        left.plot(prediction.time, prediction.loss, **dashed, label="theory")
    if features is not None:
        draw_levels(left, plateaus)
        scale = np.where(features.optimum > 0, features.optimum, 1.0)
        for d, (curve, unit) in enumerate(zip(trajectory.strength.T, scale, strict=True)):
            label = f"{d + 1}" if d < 24 else None
            right.plot(trajectory.time, curve / unit, color=feature_colour(d), linewidth=2.0, label=label)
        if prediction is not None:
            right.plot(prediction.time, prediction.strength / scale, **dashed)
        right.axhline(threshold, color="#999999", linewidth=0.8, linestyle=":")
        right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="feature", ncols=1 + len(scale) // 12)
        times = learning_times(trajectory.time, trajectory.strength / scale, threshold=threshold)
        right.set_title(_order_text(np.where(features.optimum > 0, times, np.nan)))
    else:
        right.text(0.5, 0.5, "no joint eigenbasis: no features", ha="center", transform=right.transAxes)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    left.set(title="Loss", xlabel="time (learning rate × step)", ylabel="mean square error")
    right.set(xlabel="time (learning rate × step)", ylabel="$w_d / w_d^*$")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _order_text(times: np.ndarray) -> str:
    """Return the order in which features are learned as text; a time is NaN where there is nothing to learn.

    Examples:
        >>> _order_text(np.array([3.0, 5.0, np.inf]))
        'Learned in the order 1, 2; never 3'
    """
    learned = [str(d + 1) for d in np.argsort(times, kind="stable") if np.isfinite(times[d])]
    never = [str(d + 1) for d in range(len(times)) if np.isinf(times[d])]
    if not learned:
        return "No feature is learned"
    if len(learned) + len(never) > len(FEATURE_COLOURS):
        return f"{len(learned)} of {len(learned) + len(never)} features are learned"
    return f"Learned in the order {', '.join(learned)}" + (f"; never {', '.join(never)}" if never else "")


def label_end(
    axis: Axes,
    x: float,
    y: float,
    text: str,
    colour: Any,
    *,
    lift: float = 0.0,
    side: str = "right",
    align: str = "center",
) -> None:
    """Write a name beside a curve's end (x, y), in its colour or a darker one that can be read.

    Args:
        axis: panel.
        x: place of the end.
        y: place of the end.
        text: the name.
        colour: of the curve.
        lift: points by which the name is raised, where two ends are close.
        side: "right" or "left" of the end.
        align: part of the name that is at the end's height: "top", "center" or "bottom".
    """
    shift, edge = (4.0, "left") if side == "right" else (-4.0, "right")
    place: Any = {"xytext": (shift, lift), "textcoords": "offset points", "annotation_clip": False}
    axis.annotate(text, (float(x), float(y)), **place, color=text_colour(colour), fontsize=NOTE, ha=edge, va=align)


def label_ends(axis: Axes, curves: dict[str, tuple[Any, Any, str]]) -> None:
    """Write the names of two curves (x, y, colour) at their ends, one above the other where these are close.

    Args:
        axis: The panel.
        curves: Values and colours by name.
    """
    bottom, top = axis.get_ylim()
    ends = sorted(((y[-1], x[-1], name, colour) for name, (x, y, colour) in curves.items()), key=lambda end: end[0])
    close = ends[-1][0] - ends[0][0] < 0.12 * (top - bottom)
    for place, (height, across, name, colour) in enumerate(ends):
        label_end(axis, across, height, name, colour, align=("top", "bottom")[place] if close else "center")
