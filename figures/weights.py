"""Value, key and query weights on every plateau, and what gradient flow conserves of them."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import GD, LONGEST, NOTE, PAGE, SAM, THEORY, ShownFigure, draw_letter, label_end, styled

BLOCKS = {"key": "keys", "query": "queries", "value": "values"}


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw a column for each plateau with keys, queries and values; imbalance of heads under GD and SAM; its drift."""
    width = matplotlib.rcParams["figure.figsize"][0]
    columns = 3 if width > PAGE - 1.0 else 1
    heights = 3.0 if columns > 1 else 3.4, 2.1 if columns > 1 else LONGEST - 3.4
    figure = ShownFigure(figsize=(width, sum(heights)))
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    top, bottom = parts
    _pictures(top, data, wide=columns > 1)
    panels = bottom.subplots(3 // columns, columns).ravel()
    _balance(panels[0], data, "rank 1", "Rank one: SAM moves what\nthe flow conserves")
    _balance(panels[1], data, "merged", "Merged heads: SAM\nmoves it too")
    _drift(panels[2], data)
    for axis, letter in zip(panels, "bcd", strict=True):
        draw_letter(axis, letter)
    return figure


def _pictures(figure: Any, data: xr.Dataset, *, wide: bool) -> None:
    """Draw keys, queries and values as rows, points in time as columns, all on one colour scale."""
    times = data.picture_time.values
    limit = max(np.abs(data[block].values).max() for block in BLOCKS)
    halves = ("Each head grows along one feature,", "with key and query together")
    title = "$\\mathbf{a}$   " + (" " if wide else "\n     ").join(halves)
    figure.suptitle(title, x=0.05, ha="left", fontsize=matplotlib.rcParams["axes.titlesize"])
    axes = figure.subplots(3, len(times), squeeze=False, height_ratios=[5, 5, 1.2])
    image = None
    for column, time in enumerate(times):
        for axis, (block, words) in zip(axes[:, column], BLOCKS.items(), strict=True):
            weights = data[block].values[column]
            image = _picture(axis, weights[None] if block == "value" else weights, limit)
            if column > 0 or block == "value":
                axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(words if block == "value" else f"{words}\nof head")
        axes[0, column].set_xticks([])
        learned = int((data.strength[column] > 0.5).sum())
        axes[0, column].set_title(f"{learned} learned\nat {time:,.0f}".replace(",", " "), fontsize=NOTE)
    axes[1, len(times) // 2].set_xlabel("feature")
    axes[2, len(times) // 2].set_xlabel("head")
    place: Any = {"location": "right", "pad": 0.01} if wide else {"location": "bottom", "pad": 0.03}
    figure.colorbar(image, ax=axes, aspect=30, label="weight, in the features’ basis", **place)


def _picture(axis: Axes, weights: np.ndarray, limit: float) -> Any:
    image = axis.imshow(weights, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axis.grid(visible=False)
    axis.tick_params(length=0, pad=2)
    rows, columns = weights.shape
    axis.set_xticks(range(columns), labels=[str(d) for d in range(1, 1 + columns)])
    axis.set_yticks(range(rows), labels=[str(h) for h in range(1, 1 + rows)])
    return image


def _balance(axis: Axes, data: xr.Dataset, model: str, title: str) -> None:
    """Draw the change of each head's imbalance since the start, measured and as derived."""
    chosen = data.sel(conserved=(data.model == model) & (data.quantity == "value"))
    chosen = (chosen - chosen.isel(snapshot=0)).isel(snapshot=slice(None, None, 2))
    time = data.time[::2]
    for name, colour, words in (("gd", GD, "GD"), ("sam", SAM, "SAM")):
        found = chosen.sel(optimizer=name)
        axis.plot(time, found.imbalance, color=colour, linewidth=2.2)
        axis.plot(time, found.predicted_imbalance, color=THEORY, linestyle=(0, (3, 5)), linewidth=0.8)
        last = found.imbalance.values[-1]
        label_end(axis, time[-1], last[np.argmax(np.abs(last))], words, colour)
    size = "|k|" if model == "rank 1" else "‖U‖"
    axis.set(xlabel="time (learning rate × step)", ylabel=f"change of $v^2 - {size}^2$")
    axis.set_title(title)


def _drift(axis: Axes, data: xr.Dataset) -> None:
    rates, drifts = data.learning_rate.values, data.drift.values
    axis.plot(rates, drifts[-1] * rates / rates[-1], "--", color=THEORY, linewidth=0.9)
    axis.plot(rates, drifts, "o", color=GD)
    axis.set(xlabel="learning rate η", ylabel="largest change, GD", xscale="log", yscale="log")
    axis.set_yticks([0.001, 0.002, 0.004, 0.008], labels=["0.001", "0.002", "0.004", "0.008"])
    axis.set_xticks(rates, labels=[f"{rate:g}" for rate in rates])
    axis.minorticks_off()
    axis.set_title("The drift of GD is\nproportional to η (dashed)")


FIGURE = FigureSpec(
    "weights",
    "Heads grow one after another, each along one feature; SAM moves what gradient flow conserves",
    "a: keys, queries and values of rank-one attention (D = 4, H = 5) in the basis of the features, one seed, "
    "gradient descent from a small start. The columns’ times (learning rate × step) are the start, half-way between "
    "learning times, and the end. Key and query of a head grow together along one feature, and one head stays empty. "
    "b, c: imbalance of each head less its start, one seed, under gradient descent (grey) and SAM with ρ = 0.05 "
    "(orange). Gradient flow conserves it, gradient descent hardly moves it, and SAM does. Dashed is the change "
    "derived step by step. d: largest change under gradient descent in a fixed time, at rank one. Dashed is "
    "proportionality to η.",
    ("weights",),
    draw,
)
