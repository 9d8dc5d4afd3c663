"""In-context against in-weight learning: both test losses over training, and where least squares says they end."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from figures.light_marks import few_of
from icl_theory.plotting import GD, NOTE, THEORY, label_end, new_panels, ordered_colours, styled

ENDS: dict[str, tuple[str, str, float]] = {  # marker, words, and where they stand
    "in_weight": ("fixed task after noise", "s", 1.5),
    "in_context": ("random tasks", "o", 0.29),
    "fixed": ("fixed task", "^", 0.017),
}


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw two test losses over training for each share of random tasks, and the ends of three against prediction."""
    figure, (in_context, in_weight, ends) = new_panels(3, 3, height=2.6)
    colours = ordered_colours(data.sizes["share"])
    for axis, test in ((in_context, "in_context"), (in_weight, "in_weight")):
        _curves(axis, data.test_loss.sel(test=test), data.time.values, colours)
    in_context.set(ylim=(0.12, 0.26), ylabel="mean square error on random tasks")
    in_context.set_title("In-context learning is\nbest on the way (rings)")
    _rises(in_context, data, colours)
    in_weight.set(ylim=(0.0, 1.2), ylabel="mean square error after noise")
    in_weight.axhline(1.0, color=THEORY, linestyle=":", linewidth=0.8)
    in_weight.text(data.time[-1], 0.98, "predicting zero", fontsize=NOTE, ha="right", va="top")
    in_weight.set_title("Weights forget the fixed task\nunless all prompts have it")
    last = data.test_loss.sel(test="in_weight").isel(snapshot=-1).median("seed").values
    label_end(in_weight, data.time[-1], last[0], "share 0", colours[0])
    label_end(in_weight, data.time[-1], last[1:].mean(), "0.2\nto 1", colours[3])
    _ends(ends, data)
    return figure


def _curves(axis: Axes, losses: xr.DataArray, time: np.ndarray, colours: list[Any]) -> None:
    shown = few_of(time, 400, start=1.0)
    for share, colour in zip(losses.share.values, colours, strict=True):
        axis.plot(time[shown], np.median(losses.sel(share=share)[:, shown], axis=0), color=colour)
    axis.set(xscale="log", xlim=(1.0, time[-1]), xlabel="time (learning rate × step)")


def _rises(axis: Axes, data: xr.Dataset, colours: list[Any]) -> None:
    """Mark the lowest in-context loss of each share, and write at the end by how much it has risen."""
    axis.text(data.time[-1], 0.256, "share of\nrandom tasks:\nrise since ring", fontsize=NOTE, ha="right", va="top")
    middle = data.test_loss.sel(test="in_context").median("seed").values
    lifts = (0.0, 0.0, 0.0, 0.0, 2.5, -2.5)
    for share, colour, curve, lift in list(zip(data.share.values, colours, middle, lifts, strict=True))[1:]:
        lowest = int(np.argmin(curve))
        rise = curve[-1] / curve[lowest] - 1.0
        if rise > 0.005:
            axis.plot(data.time[lowest], curve[lowest], "o", color=colour, markerfacecolor="white", markersize=5)
        label_end(axis, data.time[-1], curve[-1], f"{share:g}: +{100 * rise:.0f} %", colour, lift=lift)


def _ends(axis: Axes, data: xr.Dataset) -> None:
    """Draw the last test losses of every seed, and least squares, which jumps from share 0 to the next."""
    for test, (words, marker, height) in ENDS.items():
        found = data.sel(test=test)
        share, predicted = data.share.values, found.predicted_test_loss.values
        axis.plot(share[1:], predicted[1:], "--", color=THEORY, linewidth=0.9)
        axis.plot([-0.06, 0.06], predicted[[0, 0]], "--", color=THEORY, linewidth=0.9)
        last = found.test_loss.isel(snapshot=-1).values
        axis.plot(np.repeat(share, last.shape[1]), last.ravel(), marker, color=GD, markersize=4)
        axis.text(0.6, height, words, fontsize=NOTE, ha="center", color=GD)
    axis.set(yscale="log", xlim=(-0.1, 1.05), xlabel="share of random tasks", ylabel="mean square error at the end")
    axis.set_yticks([0.01, 0.03, 0.1, 0.3, 1.0, 3.0], labels=["0.01", "0.03", "0.1", "0.3", "1", "3"])
    axis.set_ylim(0.01, 3.0)
    axis.minorticks_off()
    axis.set_title("Training ends where least\nsquares says (dashed)")


FIGURE = FigureSpec(
    "in_weight_learning",
    "Where some tasks differ, in-context learning is best on the way and weights forget the shared task",
    "Merged attention with all its entries (D = 4, H = 8, N = 31, white inputs), trained by gradient descent on "
    "prompts of which a share has a random task vector and the rest one fixed vector. Eight seeds. Colours tell the "
    "share, in b as in a. a: loss on random tasks, medians. Rings are the lowest losses, and percentages the rises "
    "from there to the end. Share 0 lies above the panel and ends at 1.99. b: loss on the fixed task after contexts "
    "of noise, medians. Only weights can solve it. With a share between 0 and 1 it falls and comes back, to above "
    "the loss of predicting zero (dotted). c: losses at the end, each seed a mark. Dashed is least squares on the "
    "cubic features. The fixed task with contexts of its own ends the better the more prompts have it.",
    ("in_weight_learning",),
    draw,
)
