"""Thirty-two features: learning time of each against its drive, aligned with theory and from random starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from figures.light_marks import draw_dots, few_of
from icl_theory.plotting import GD, SAM, THEORY, label_end, new_panels, ordered_colours, styled

OPTIMIZERS = {"gd": (GD, "GD"), "sam": (SAM, "SAM")}


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw strengths of all features, learning times, aligned and from random starts, and learning-time ratios."""
    figure, (curves, aligned, random, ratios) = new_panels(4, 2, height=2.3)
    _curves(curves, data)
    number = data.feature.values
    for axis in (aligned, random, ratios):
        axis.set(xscale="log", yscale="log", xlabel="feature d", xlim=(0.45, 40.0))
        axis.set_xticks([1, 2, 4, 8, 16, 32], labels=["1", "2", "4", "8", "16", "32"])
        axis.minorticks_off()
    for name, (colour, words) in OPTIMIZERS.items():
        found = data.sel(optimizer=name)
        drive = found.drive.values
        measured, predicted = (drive * found[f"{kind}_learning_time"].values for kind in ("aligned", "predicted"))
        draw_dots(aligned, number, measured, colour, size=3.0)
        aligned.plot(number, predicted, "--", color=THEORY, linewidth=0.8)
        low, middle, high = _spread(drive * found.learning_time.values)
        apart = number * (0.975 if name == "gd" else 1.025)
        bars: Any = {"fmt": "none", "ecolor": colour, "elinewidth": 0.8, "capsize": 0}
        random.errorbar(apart, middle, yerr=[middle - low, high - middle], **bars)
        draw_dots(random, apart, middle, colour, size=3.0)
        for axis, first in ((aligned, measured[0]), (random, middle[0])):
            label_end(axis, number[0], first, words, colour, side="left")
        _ratios(ratios, found.learning_time_ratio.values, colour, words)
    level = np.median((data.drive * data.learning_time.sel(optimizer="gd"))[:, 1:])
    random.plot([2, number[-1]], [level] * 2, "--", color=THEORY, linewidth=0.8)
    aligned.set_title("With aligned heads the map gives\nevery learning time (dashed)")
    random.set_title("From random starts GD’s times go as\n$1/a_d$ after the first (dashed)")
    for axis in (aligned, random):
        axis.set(ylabel="learning time × drive, $t_d\\,a_d$", ylim=(0.6, 4.5))
        axis.set_yticks([0.7, 1, 1.4, 2, 2.8, 4], labels=["0.7", "1", "1.4", "2", "2.8", "4"])
        axis.minorticks_off()
    ratios.set(ylabel="learning-time ratio $t_d/t_1$")
    ratios.set_title("SAM brings the slow features\ncloser to the first")
    return figure


def _curves(axis: Axes, data: xr.Dataset) -> None:
    """Draw the median strength of every feature under gradient descent, with a colour bar for the features."""
    middle = np.median(data.strength.sel(optimizer="gd").values.astype(float), axis=0)
    shown = few_of(data.time.values, 250, start=1.0)
    count = data.sizes["feature"]
    colours = ordered_colours(count)
    for d, colour in enumerate(colours):
        axis.plot(data.time[shown], middle[shown, d], color=colour, linewidth=0.9)
    axis.set(
        xscale="log", xlim=(1.0, data.time[-1]), xlabel="time (learning rate × step)", ylabel="strength $w_d/w_d^*$"
    )
    norm = BoundaryNorm(np.arange(0.5, count + 1), count)
    bar = axis.figure.colorbar(
        ScalarMappable(norm, ListedColormap(colours)), ax=axis, label="feature d", aspect=25, pad=0.02
    )
    bar.set_ticks([1, *range(8, count + 1, 8)])
    bar.ax.minorticks_off()
    axis.set_title("All features are learned one by\none, simple ones first (GD)")


def _ratios(axis: Axes, ratio: np.ndarray, colour: str, words: str) -> None:
    low, middle, high = _spread(ratio)
    number = np.arange(1, 1 + len(middle))
    axis.fill_between(number, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.plot(number, middle, color=colour, linewidth=0.9)
    draw_dots(axis, number, middle, colour)
    last = np.flatnonzero(np.isfinite(middle))[-1]
    label_end(axis, number[last], middle[last], words, colour)


def _spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return least, median and largest value over runs; NaN for a feature that some run never learned."""
    finite = np.where(np.isfinite(values).all(axis=0), values, np.nan)
    return finite.min(axis=0), np.median(finite, axis=0), finite.max(axis=0)


FIGURE = FigureSpec(
    "many_features",
    "Thirty-two features are learned almost in the order of their drives, under gradient descent and SAM",
    "Power-law spectrum λ_d ∝ 1/d (D = 32, N = 127). a: strengths of all features over training, gradient descent "
    "from random starts (64 heads), medians of eight seeds. b: learning times, times the drives a_d, from a start "
    "with a head aligned with each feature, under gradient descent (grey) and SAM with ρ = 0.3 (orange). Dashed is the "
    "reduced map. c: the same from random starts, SAM with ρ = 0.5. Dots are medians and bars the range of eight "
    "seeds. Dashed is t_d ∝ 1/a_d, at the median of features 2 to 32 under gradient descent. d: learning times over "
    "that of the first feature, with the range shaded. SAM lowers the ratios by delaying the first. Features in c "
    "and d are shown where every seed learned them in this time (under SAM 26 of 32).",
    ("many_features",),
    draw,
)
