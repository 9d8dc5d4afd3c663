"""Softmax attention beside linear attention, under GD and SAM: share of each feature in predictions, ratios, losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from figures.light_marks import draw_dots, few_of
from icl_theory.plotting import GD, NOTE, SAM, THEORY, feature_colour, new_panels, styled, text_colour

OPTIMIZERS = {"gd": (GD, "GD"), "sam": (SAM, "SAM")}
SCORES = ("softmax", "linear")
NEVER = 100.0  # where ratios of features that are never learned are drawn


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw shares of features in softmax attention under GD and SAM, learning-time ratios, and losses at the end."""
    figure, (gd, sam, ratios, losses) = new_panels(4, 2, height=2.3)
    for axis, name in ((gd, "gd"), (sam, "sam")):
        _shares(axis, data.sel(scores="softmax", optimizer=name))
    gd.set_title("Under GD softmax attention\nlearns simple features first")
    sam.set_title("Under SAM too, with the slow\nfeatures closer to the first")
    _ratios(ratios, data.learning_time_ratio)
    _losses(losses, data)
    return figure


def _shares(axis: Axes, data: xr.Dataset) -> None:
    """Draw each feature's share in the predictions: median and quartiles over seeds."""
    shown = few_of(data.time.values, 60, start=10.0)
    time = data.time.values[shown]
    for d, optimum in enumerate(data.optimum.values):
        low, middle, high = np.quantile(data.share[:, shown, d] / optimum, (0.25, 0.5, 0.75), axis=0)
        axis.fill_between(time, low, high, color=feature_colour(d), alpha=0.2, linewidth=0)
        axis.plot(time, middle, color=feature_colour(d))
        half = int(np.argmax(middle > 0.5))
        words: Any = {"color": text_colour(feature_colour(d)), "fontsize": NOTE, "va": "center"}
        axis.text(
            time[half], 1.24, f"feature {d + 1}" if d == 0 else f"{d + 1}", ha="right" if d == 0 else "left", **words
        )
    axis.axhline(0.5, color=THEORY, linestyle=":", linewidth=0.8)
    axis.set(xscale="log", xlim=(10.0, time[-1]), ylim=(-0.1, 1.35), xlabel="time (learning rate × step)")
    axis.set_ylabel("share of the feature,\nrelative to the linear optimum")


def _columns(axis: Axes, values: np.ndarray, place: float, colour: Any) -> None:
    """Draw the seeds' values as a narrow column of dots, with their median as a bar; infinite ones at `NEVER`."""
    values, middle = np.minimum(values, NEVER), min(np.median(values), NEVER)
    axis.set_xlim(-1.0, 18.5)
    across = place + np.linspace(-0.22, 0.22, len(values))
    draw_dots(axis, across, values, colour)
    axis.plot([place - 0.36, place + 0.36], [middle] * 2, color=colour, linewidth=1.6)


def _ratios(axis: Axes, ratio: xr.DataArray) -> None:
    names, ticks = [], []
    for half, scores in enumerate(SCORES):
        for d in range(2, 1 + ratio.sizes["feature"]):
            place = 10.5 * half + 3.0 * (d - 2)
            for shift, (name, (colour, _)) in enumerate(OPTIMIZERS.items()):
                found = ratio.sel(scores=scores, optimizer=name, feature=d).values
                _columns(axis, np.where(np.isnan(found), np.inf, found), place + shift, colour)
            ticks.append(place + 0.5)
            names.append(f"$t_{d}/t_1$")
    axis.axhspan(NEVER / 1.35, NEVER * 1.35, color="#F0F0F0", zorder=0, linewidth=0)
    axis.text(0.01, NEVER, "never learned", transform=axis.get_yaxis_transform(), fontsize=NOTE, va="center")
    _optimizer_names(axis)
    axis.set(yscale="log", ylim=(0.4, NEVER * 1.35), ylabel="learning-time ratio")
    axis.set_yticks([0.5, 1, 2, 5, 10, 20, 50], labels=["0.5", "1", "2", "5", "10", "20", "50"])
    axis.set_xticks(ticks, labels=names)
    axis.minorticks_off()
    axis.grid(visible=False, axis="x")
    _halves(axis)
    axis.set_title("SAM lowers $t_3/t_1$ and $t_4/t_1$\nof softmax attention")


def _losses(axis: Axes, data: xr.Dataset) -> None:
    ticks = []
    for half, scores in enumerate(SCORES):
        for part, kind in enumerate(("loss", "held_out_loss")):
            place = 10.5 * half + 4.0 * part + 1.25
            for shift, (name, (colour, _)) in enumerate(OPTIMIZERS.items()):
                found = data[kind].isel(snapshot=-1).sel(scores=scores, optimizer=name).values
                _columns(axis, found, place + 1.3 * shift, colour)
            ticks.append(place + 0.65)
    axis.set(ylim=(0.0, 0.27), ylabel="mean square error at the end")
    axis.set_xticks(ticks, labels=["training", "held out"] * 2)
    axis.grid(visible=False, axis="x")
    _halves(axis)
    axis.set_title("Softmax fits its prompts better;\nheld-out losses overlap")


def _halves(axis: Axes) -> None:
    """Part the softmax half of a panel from the linear half, and name them below."""
    axis.axvline(8.75, color=THEORY, linewidth=0.6)
    for place, scores in zip((0.24, 0.76), SCORES, strict=True):
        axis.annotate(
            f"{scores} scores",
            (place, 0.0),
            xycoords="axes fraction",
            xytext=(0.0, -19.0),
            textcoords="offset points",
            ha="center",
            va="top",
        )


def _optimizer_names(axis: Axes) -> None:
    for height, (colour, words) in zip((0.16, 0.07), OPTIMIZERS.values(), strict=True):
        axis.text(
            0.47,
            height,
            words,
            color=text_colour(colour),
            fontsize=NOTE,
            transform=axis.transAxes,
            ha="right",
            va="center",
        )


FIGURE = FigureSpec(
    "softmax",
    "Softmax attention learns simple features first too, and SAM brings the slow ones closer",
    "Rank-one attention (D = 4, H = 5, N = 31), eight seeds with 256 prompts and a start of their own each. Grey is "
    "gradient descent, and orange is SAM with ρ = 0.05. a, b: share of features 1 to 4 in the predictions of softmax "
    "attention, E[ŷ y_d]/E[y_d²] on 2000 fresh prompts, over that of linear attention’s optimum. Lines are medians "
    "and bands quartiles. A feature counts as learned above the dotted line. c: learning times over that of the "
    "first feature. Dots are seeds and bars their medians. SAM lowers t_3/t_1 and t_4/t_1, mostly by delaying the "
    "first. d: losses at the end, on the 256 prompts and on fresh ones.",
    ("softmax",),
    draw,
)
