"""Thirty-two features: learning time of each against its drive, aligned with theory and from random starts."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import GD, SAM, new_figure, ordered_colours, styled

COLOURS = {"gd": GD, "sam": SAM}
WORDS = {"gd": "GD", "sam": "SAM"}


@styled
def draw(data: xr.Dataset) -> Figure:
    """Strengths of all features; learning times, aligned on theory and random; learning-time ratios."""
    figure, ((curves, aligned), (random, ratios)) = new_figure(12.0, 8.6, 2, 2)
    drive, time = data.drive.values, data.time.values[1:]
    middle = np.median(data.strength.sel(optimizer="gd").values.astype(float), axis=0)[1:]
    for d, colour in enumerate(ordered_colours(len(drive))):
        curves.plot(
            time, middle[:, d], color=colour, linewidth=1.2, label=f"feature {d + 1}" if d in (0, 7, 31) else None
        )
    curves.set(
        title="Random starts, GD: all 32 strengths (medians)", xscale="log", xlabel="time (learning rate × step)"
    )
    curves.set(ylabel="$w_d / w_d^*$", xlim=(1, None))
    curves.legend(loc="upper left")
    for name, words in WORDS.items():
        found = data.sel(optimizer=name)
        style = {"color": COLOURS[name], "markersize": 5, "label": f"{words}, full model"}
        aligned.plot(drive, found.aligned_learning_time, "o", **style)
        aligned.plot(drive, found.predicted_learning_time, "k--", linewidth=1.2)
        low, middle, high = _spread(found.learning_time.values)
        random.errorbar(
            drive, middle, yerr=[middle - low, high - middle], fmt="o", color=COLOURS[name], markersize=4, linewidth=1.1
        )
        label = f"{words}, median and range of {found.sizes['seed']} seeds"
        random.plot([], [], "o", color=COLOURS[name], label=label)
        low, middle, high = _spread(found.learning_time_ratio.values)
        number = np.arange(1, len(drive) + 1)
        ratios.fill_between(number, low, high, color=COLOURS[name], alpha=0.18, linewidth=0)
        ratios.plot(number, middle, "o-", color=COLOURS[name], markersize=3.5, linewidth=1.1, label=words)
    aligned.plot([], [], "k--", linewidth=1.2, label="reduced map")
    aligned.set(title="Aligned heads: learning times")
    random.plot(drive[1:], _slope_line(data), "k:", linewidth=1.4, label="∝ $1/a_d$")
    random.set(title="Random starts, 64 heads: learning times")
    for axis in (aligned, random):
        axis.set(
            xscale="log", yscale="log", xlabel="drive $a_d$ (simple features on the right)", ylabel="learning time"
        )
        axis.legend(loc="lower left")
    ratios.set(title="Random starts: $t_d / t_1$ (median, range)", xscale="log", yscale="log", xlabel="feature d")
    ratios.set(ylabel="$t_d / t_1$, log scale")
    ratios.set_xticks([1, 2, 4, 8, 16, 32], labels=["1", "2", "4", "8", "16", "32"])
    ratios.minorticks_off()
    ratios.legend(loc="upper left")
    return figure


def _spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return least, median and largest value over runs; NaN for a feature that some run never learned."""
    finite = np.where(np.isfinite(values).all(axis=0), values, np.nan)
    return finite.min(axis=0), np.median(finite, axis=0), finite.max(axis=0)


def _slope_line(data: xr.Dataset) -> np.ndarray:
    """Return `C/a_d` through the median of the fourth feature under gradient descent."""
    times, drive = np.median(data.learning_time.sel(optimizer="gd").values, axis=0), data.drive.values
    return times[3] * drive[3] / drive[1:]


FIGURE = FigureSpec(
    "many_features",
    "Thirty-two features with a power-law spectrum",
    "λ_d ∝ 1/d, D = 32, N = 127. Upper left: one feature after another, gradient descent from random starts. Upper "
    "right: with a head aligned with each feature the reduced map (dashed) gives every learning time, under gradient "
    "descent and SAM. Below: from random starts (64 heads, 8 seeds) features are learned in the order of their "
    "drives, from the second on at times ∝ 1/a_d, and SAM lowers the ratios by delaying the first; shown where every "
    "seed learned the feature in this time (under SAM 26 of 32).",
    ("many_features",),
    draw,
)
