"""Heads of rank R: loss curves, how long training waits between features, and when each is learned."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import draw_levels, new_figure, ordered_colours, styled
from icl_theory.verification.claims.low_rank import relative_waits

RANKS = (1, 2, 4, 8)


@styled
def draw(data: xr.Dataset) -> Figure:
    """Median losses with the plateaus of rank one; waits between features; learning times in order."""
    figure, ((loss, waits, times),) = new_figure(13.5, 4.4, 1, 3, width_ratios=[1.2, 1.0, 1.0])
    for rank, colour in zip(RANKS, ordered_colours(len(RANKS)), strict=True):
        of_rank = data.sel(rank=rank)
        low, middle, high = np.quantile(of_rank.loss[:, 1:], (0.25, 0.5, 0.75), axis=0)
        loss.fill_between(data.time[1:], low, high, color=colour, alpha=0.15, linewidth=0)
        loss.plot(data.time[1:], middle, color=colour, label=f"R = {rank}")
        _by_feature(times, np.sort(of_rank.learning_time, axis=1), colour, rank, first=1)
        _by_feature(waits, np.exp(relative_waits(of_rank.learning_time)), colour, rank, first=1)
    draw_levels(loss, data.plateau_loss, label="plateaus of rank one")
    loss.axhline(float(data.best_loss), color="#999999", linestyle=":", linewidth=1.2, label="least squares")
    loss.set(title="Loss (median and quartiles)", xlabel="time (learning rate × step)", ylabel="mean square error")
    loss.set(xscale="log", xlim=(30, None), ylim=(0.1, 1.06))
    loss.legend(loc="lower left", fontsize=8.5)
    waits.set(title="The wait after feature m", xlabel="m, in order of learning", ylabel="$t_{m+1} / t_m$, log scale")
    waits.set(yscale="log", xticks=range(1, 8))
    waits.set_yticks([1, 1.5, 2, 3], labels=["1", "1.5", "2", "3"])
    times.set(title="When feature m is learned", xlabel="m, in order of learning", ylabel="learning time, log scale")
    times.set(yscale="log", xticks=range(1, 9))
    times.set_yticks([200, 500, 1000, 2000], labels=["200", "500", "1000", "2000"])
    for axis in (waits, times):
        axis.minorticks_off()
        axis.legend(loc="upper left")
    return figure


def _by_feature(axis: Axes, values: np.ndarray, colour, rank: int, *, first: int) -> None:
    """Draw medians of (seeds, m) values against m, with filled dots where m is a multiple of the rank."""
    finite = np.where(np.isfinite(values), values, np.nan)
    shown = np.isfinite(finite).mean(axis=0) > 0.5
    number = np.arange(first, first + values.shape[1])[shown]
    middle = np.nanmedian(finite[:, shown], axis=0)
    axis.plot(number, middle, "-", color=colour, linewidth=1.4)
    full = number % rank == 0
    axis.plot(number[full], middle[full], "o", color=colour, markersize=7, label=f"R = {rank}")
    axis.plot(number[~full], middle[~full], "o", color=colour, markersize=6, markerfacecolor="white")


FIGURE = FigureSpec(
    "low_rank",
    "Keys and queries of rank R",
    "Gradient descent on 80 000 prompts (D = 8, H = 9, N = 31), 16 random starts. Left: rank one rests on the "
    "predicted plateaus (dashed); rank R rests near every R-th. Middle: a head fills its R ranks in quick succession, "
    "and among the first six training waits longer where heads are full (filled dots: m a multiple of R) than rank 8, "
    "never full before, does there; the last waits grow at every rank. Right: every rank above one learns the later "
    "features sooner. Dotted: least squares, the loss that all can reach. Medians over seeds, shown where more than "
    "half of the seeds learned that feature.",
    ("low_rank",),
    draw,
)
