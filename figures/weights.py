"""Value, key and query weights on every plateau, and what gradient flow conserves of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import GD, SAM, styled

BLOCKS = {"key": "keys", "query": "queries", "value": "values"}


@styled
def draw(data: xr.Dataset) -> Figure:
    """A column for each plateau with keys, queries and values; imbalance of heads under GD and SAM; its drift in η."""
    figure = Figure(figsize=(13.0, 9.0))
    parts: Any = figure.subfigures(2, 1, height_ratios=[1.55, 1.0])
    top, bottom = parts
    _pictures(top, data)
    separate, merged, drift = bottom.subplots(1, 3)
    _balance(separate, data, "rank 1", "Rank one: $v^2 - |k|^2$ of each head", (0.55, 0.45))
    _balance(merged, data, "merged", "Merged: $v^2 - ‖U‖^2$ of each head", (0.5, 0.7))
    rates, drifts = data.learning_rate.values, data.drift.values
    drift.plot(rates, drifts, "o", color=GD, label="measured")
    drift.plot(rates, drifts[-1] * rates / rates[-1], "k--", linewidth=1.2, label="slope 1")
    drift.set(title="Drift under GD in a fixed time", xlabel="learning rate η", ylabel="largest change", xscale="log")
    drift.set(yscale="log")
    drift.set_yticks([0.001, 0.002, 0.004, 0.008], labels=["0.001", "0.002", "0.004", "0.008"])
    drift.set_xticks(rates, labels=[f"{rate:g}" for rate in rates])
    drift.minorticks_off()
    drift.legend(loc="upper left")
    return figure


def _pictures(figure: Any, data: xr.Dataset) -> None:
    """Draw keys, queries and values as rows, points in time as columns, all on one colour scale."""
    times = data.picture_time.values
    limit = max(np.abs(data[block].values).max() for block in BLOCKS)
    axes = figure.subplots(3, len(times), squeeze=False, height_ratios=[5, 5, 1.6])
    image = None
    for column, time in enumerate(times):
        for row, (block, words) in enumerate(BLOCKS.items()):
            axis = axes[row, column]
            weights = data[block].values[column]
            shown = weights[None] if block == "value" else weights
            image = axis.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
            axis.grid(visible=False)
            heads = len(weights)
            if block == "value":
                axis.set(yticks=[], xticks=range(heads), xlabel="head")
            else:
                axis.set(xticks=range(shown.shape[1]), yticks=range(heads))
                if row == 1:
                    axis.set(xlabel="feature")
            axis.set_xticklabels(range(1, 1 + shown.shape[1]))
            if block != "value":
                axis.set_yticklabels(range(1, 1 + heads) if column == 0 else [])
            if column == 0:
                axis.set_ylabel(f"{words}\nhead" if block != "value" else words)
        learned = int((data.strength[column] > 0.5).sum())
        when = "start" if time == 0 else f"t = {time:,.0f}"
        axes[0, column].set_title(f"{when}: {learned} learned", fontsize=10.5)
    figure.colorbar(image, ax=axes, shrink=0.8, label="weight, in the features' basis")


def _balance(axis: Axes, data: xr.Dataset, model: str, title: str, place: tuple[float, float]) -> None:
    chosen = data.sel(conserved=(data.model == model) & (data.quantity == "value"))
    for name, colour, words in (("gd", GD, "GD"), ("sam", SAM, "SAM, ρ = 0.05")):
        found = chosen.sel(optimizer=name)
        axis.plot(data.time, found.imbalance, color=colour, linewidth=2.4, alpha=0.7)
        axis.plot(data.time, found.predicted_imbalance, color="black", linestyle="--", linewidth=0.9)
        axis.plot([], [], color=colour, linewidth=2.4, label=words)
    axis.plot([], [], color="black", linestyle="--", linewidth=0.9, label="derived, step by step")
    axis.set(title=title, xlabel="time (learning rate × step)", ylabel="imbalance")
    axis.legend(loc=place, fontsize=8.5)


FIGURE = FigureSpec(
    "weights",
    "The weights themselves, and what the flow conserves",
    "Top: rank-one attention (D = 4, H = 5) under gradient descent from a small start, keys, queries and values in "
    "the basis of the features, half-way between learning times: one head after another grows along one feature, its "
    "key and query together (a head may hold nothing). Below: the imbalance of each head, conserved by gradient flow; "
    "gradient descent hardly moves it, SAM does; both as derived (dashed). Lower right: in a fixed time gradient "
    "descent's drift is proportional to η.",
    ("weights",),
    draw,
)
