"""Training over many context lengths: its plateaus, and the loss at lengths that were and were not trained on."""

from __future__ import annotations

from typing import Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from figures.light_marks import few_of
from icl_theory.plotting import THEORY, draw_levels, label_end, new_panels, ordered_colours, styled

ONE, MANY, _ = ordered_colours(3)
TRAINED = {"one_length": ("trained at\nN = 31", "o", ONE), "many_lengths": ("trained at\n1 to 31", "s", MANY)}


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw loss curves with the plateaus of the mixture, and the loss against context length."""
    figure, (loss, lengths) = new_panels(2, height=2.6)
    _losses(loss, data.sel(trained="many_lengths"))
    _lengths(lengths, data)
    return figure


def _losses(axis: Axes, data: xr.Dataset) -> None:
    shown = few_of(data.time.values, 600, start=90.0)
    for curve in data.loss.values:
        axis.plot(data.time[shown], curve[shown], color=MANY, linewidth=0.6, alpha=0.6)
    draw_levels(axis, data.plateau_loss)
    for learned, level in enumerate(data.plateau_loss.values):
        words = "nothing\nlearned" if learned == 0 else f"{learned} learned"
        label_end(axis, data.time[-1], level, words, THEORY, lift={3: 1.5, 4: -1.5}.get(learned, 0.0))
    axis.set(xscale="log", xlim=(100.0, data.time[-1]), ylim=(0.35, 1.06))
    axis.set(xlabel="time (learning rate × step)", ylabel="mean square error,\nmean over lengths 1 to 31")
    axis.set_title("Trained over lengths 1 to 31, it rests\non the predicted plateaus (dashed)")


def _lengths(axis: Axes, data: xr.Dataset) -> None:
    for trained, (label, marker, colour) in TRAINED.items():
        found = data.sel(trained=trained)
        axis.plot(data.length, found.predicted_end_loss, "--", color=THEORY, linewidth=0.9)
        bars: Any = {"fmt": marker, "color": colour, "markersize": 4}
        axis.errorbar(data.length, found.fresh_loss, yerr=4.0 * found.fresh_loss_error, **bars)
        label_end(axis, data.length[-1], found.fresh_loss[-1], label, colour)
    axis.axvspan(1, 31, color="#F0F0F0", zorder=0, linewidth=0)
    axis.set(xscale="log", yscale="log", xlabel="context length N of fresh prompts", ylabel="mean square error")
    axis.set_xticks([1, 4, 16, 64, 256, 1024], labels=["1", "4", "16", "64", "256", "1024"])
    axis.set_yticks([0.03, 0.1, 0.3, 1.0, 3.0], labels=["0.03", "0.1", "0.3", "1", "3"])
    axis.minorticks_off()
    axis.set_title("It gains on short contexts and loses\non long ones, as predicted (dashed)")


FIGURE = FigureSpec(
    "context_lengths",
    "Short contexts in training lower the loss on short contexts and raise it on long ones, as predicted",
    "Rank-one attention (D = 4, H = 5), gradient descent from 16 random starts. a: loss of training on the mean over "
    "context lengths 1 to 31. Each line is a seed, and dashed are the plateaus predicted for that mixture. b: loss "
    "at the end of training on 20 000 fresh prompts of each of ten lengths. Lengths from 1 to 31 are shaded, and "
    "longer ones were never trained on. Bars are 4 standard errors over prompts, and dashed is the prediction. One "
    "matrix serves all lengths, and it shrinks where contexts are short.",
    ("context_lengths",),
    draw,
)
