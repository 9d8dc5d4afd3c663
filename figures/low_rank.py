"""Heads of rank R: loss curves, how long training waits between features, and when each is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures.figure import FigureSpec
from figures.light_marks import few_of
from icl_theory.plotting import NOTE, THEORY, label_end, new_panels, ordered_colours, styled
from icl_theory.verification.changes import known_median
from icl_theory.verification.claims.low_rank import relative_waits

RANKS = (1, 2, 4, 8)


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw losses with the plateaus of rank one, a map of the waits between features, and learning times in order."""
    figure, (loss, waits, times) = new_panels(3, 3, height=2.5, width_ratios=[1.15, 1.0, 1.0])
    colours = dict(zip(RANKS, ordered_colours(len(RANKS)), strict=True))
    _losses(loss, data, colours)
    _waits(waits, data)
    _times(times, data, colours)
    return figure


def _losses(axis: Axes, data: xr.Dataset, colours: dict[int, Any]) -> None:
    shown = few_of(data.time.values, 400, start=6.0)
    time = data.time.values[shown]
    for rank, colour in colours.items():
        low, middle, high = np.quantile(data.loss.sel(rank=rank)[:, shown], (0.25, 0.5, 0.75), axis=0)
        axis.fill_between(time, low, high, color=colour, alpha=0.18, linewidth=0)
        axis.plot(time, middle, color=colour, label=f"R = {rank}")
    axis.hlines(data.plateau_loss, 200.0, time[-1], colors=THEORY, linestyles=(0, (4, 3)), linewidth=0.8)
    axis.set(xscale="log", xlim=(35.0, time[-1]), ylim=(0.15, 1.04))
    axis.set(xlabel="time (learning rate × step)", ylabel="mean square error")
    axis.set_title("Rank R rests on every\nR-th predicted plateau (dashed)")
    axis.legend(loc="lower left", borderaxespad=0.1)


def _waits(axis: Axes, data: xr.Dataset) -> None:
    """Draw median waits as a map of rank and feature, framed where heads are full: m a multiple of the rank."""
    middle = np.exp([_known_by_half(relative_waits(data.learning_time.sel(rank=rank))) for rank in RANKS])
    axis.imshow(middle, cmap="Greys", norm=LogNorm(1.0, 4.0), aspect="auto")
    axis.grid(visible=False)
    for row, rank in enumerate(RANKS):
        for column, wait in enumerate(middle[row]):
            words, colour = (f"{wait:.1f}", "white" if wait > 1.9 else "black") if np.isfinite(wait) else ("–", "black")
            axis.text(column, row, words, ha="center", va="center", fontsize=NOTE, color=colour)
            if (column + 1) % rank == 0 and np.isfinite(wait):
                frame: Any = {"fill": False, "edgecolor": THEORY, "linewidth": 1.3}
                axis.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, **frame))
    axis.set_xticks(range(middle.shape[1]), labels=[str(m) for m in range(1, middle.shape[1] + 1)])
    axis.set_yticks(range(len(RANKS)), labels=[f"R = {rank}" for rank in RANKS])
    axis.tick_params(length=0)
    axis.set(
        title="Wait for the next, $t_{m+1}/t_m$:\nlong at full heads (framed)", xlabel="m, features learned so far"
    )


def _times(axis: Axes, data: xr.Dataset, colours: dict[int, Any]) -> None:
    number = np.arange(1, data.sizes["feature"] + 1)
    for rank, colour in colours.items():
        ordered = np.sort(data.learning_time.sel(rank=rank), axis=1)
        middle = _known_by_half(ordered)
        low, high = np.quantile(ordered, (0.25, 0.75), axis=0, method="nearest")
        seen = np.isfinite(middle) & np.isfinite(high)
        axis.fill_between(number[seen], low[seen], high[seen], color=colour, alpha=0.18, linewidth=0)
        axis.plot(number, middle, "o-", color=colour)
        last = np.flatnonzero(np.isfinite(middle))[-1]
        beside: Any = {"side": "left", "lift": 4.0} if rank == 1 else {}
        label_end(axis, number[last], middle[last], f"R = {rank}", colour, **beside)
    axis.set(
        yscale="log",
        xlabel="m, in order of learning",
        ylabel="time when feature m is learned\n(learning rate × step)",
        xticks=number,
    )
    axis.set_yticks([200, 500, 1000, 2000, 5000], labels=["200", "500", "1000", "2000", "5000"])
    axis.minorticks_off()
    axis.set_title("Every rank above one\nlearns the sixth sooner")


def _known_by_half(values: np.ndarray) -> np.ndarray:
    """Return medians of (seeds, m) values over the finite ones; NaN unless more than half are finite."""
    finite = np.where(np.isfinite(values), values, np.nan)
    return np.where(np.isfinite(finite).mean(axis=0) > 0.5, known_median(finite), np.nan)


FIGURE = FigureSpec(
    "low_rank",
    "A head of rank R learns up to R features in quick succession, then training waits",
    "Gradient descent on 80 000 prompts (D = 8, H = 9, N = 31) from 16 random starts at each rank R of keys and "
    "queries. a: loss over training, medians and quartiles. Dashed are the plateaus predicted for rank one, with 0 "
    "to 8 features learned. Ranks above one end at the loss of least squares. b: time of the next feature over that "
    "of the m-th, medians. Frames mark where heads are full, m a multiple of R. Among the first six features "
    "training waits there. The last waits grow at every rank. c: learning times in order, medians and quartiles. "
    "Medians in b and c are over the runs that learned that feature, and are shown where more than half of them did.",
    ("low_rank",),
    draw,
)
