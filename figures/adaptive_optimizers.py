"""Effect of upsampling against batch size, under four optimizers, and a map of the exponent under Adam."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import FEATURE_COLOURS, GD, new_figure, styled
from icl_theory.verification.changes import median_change
from icl_theory.verification.claims.adaptive_optimizers_statements import exponent

WORDS = {"gd": "gradient descent", "sign": "sign descent", "adam": "Adam", "muon": "Muon"}
COLOURS = {"gd": GD, "sign": FEATURE_COLOURS[2], "adam": FEATURE_COLOURS[0], "muon": FEATURE_COLOURS[1]}
MARKERS = {"gd": "s", "sign": "^", "adam": "o", "muon": "D"}
FULL = 384.0  # where the full batch stands on the axis of batch sizes
SMALL: Any = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.3,
    "axes.linewidth": 0.7,
}


@styled
@matplotlib.rc_context(SMALL)
def draw(data: xr.Dataset) -> Figure:
    """Exponent of the odds against batch size, measured and predicted; the map of Adam's exponent."""
    figure, ((curves, plane),) = new_figure(6.8, 3.1, 1, 2, width_ratios=(1.15, 1.0))
    _curves(curves, data)
    _plane(figure, plane, data)
    return figure


def _curves(axis: Axes, data: xr.Dataset) -> None:
    measured = exponent(data.learning_time, data.odds)
    predicted = exponent(data.predicted_learning_time, data.odds)
    law = exponent(data.law_learning_time, data.odds)
    for name, words in WORDS.items():
        runs = measured.sel(optimizer=name).dropna("batch", how="all")
        middle, low, high = np.array([median_change(each.values)[:3] for each in runs]).T
        style: Any = {"fmt": MARKERS[name], "color": COLOURS[name], "markersize": 4, "linewidth": 1.0, "label": words}
        axis.errorbar(runs.batch, middle, yerr=[middle - low, high - middle], **style)
        line = predicted.sel(optimizer=name).dropna("batch")
        axis.plot(line.batch, line, color="black", linestyle="--", linewidth=1.0)
        if name != "gd":
            times = data[f"{name}_time"]
            whole = exponent(times.isel(rho=0) if "rho" in times.dims else times, data.full_odds)
            axis.plot(FULL, whole, MARKERS[name], color=COLOURS[name], markersize=4, fillstyle="none")
    axis.plot(data.batch, law.sel(optimizer="adam"), color="black", linestyle=":", linewidth=1.0)
    axis.plot([], [], color="black", linestyle="--", linewidth=1.0, label="theory")
    axis.plot([], [], color="black", linestyle=":", linewidth=1.0, label="Adam, closed form")
    axis.axhline(0.0, color="#999999", linewidth=0.6)
    ticks = [1, 4, 16, 64, FULL]
    axis.set(xscale="log", xlabel="batch size b", ylim=(-0.12, 1.12))
    axis.set_xticks(ticks, labels=["1", "4", "16", "64", "full"])
    axis.minorticks_off()
    axis.set_ylabel("exponent of the odds in $t_2/t_1$")
    axis.set_title("Under Adam upsampling acts\nin small batches only")
    axis.legend(loc="upper right", bbox_to_anchor=(1.0, 0.93), handlelength=1.6, labelspacing=0.25)


def _plane(figure: Figure, axis: Axes, data: xr.Dataset) -> None:
    style: Any = {"cmap": "viridis", "vmin": 0.0, "vmax": 0.6}
    batch, share, values = data.map_batch.values, data.map_share.values, data.map_exponent.values
    shown = axis.pcolormesh(batch, share, values, shading="gouraud", rasterized=True, **style)
    lines = axis.contour(batch, share, values, levels=[0.1, 0.2, 0.3, 0.4], colors="white", linewidths=0.7)
    axis.clabel(lines, fmt="%.1f", fontsize=7)
    found = exponent(data.learning_time.sel(optimizer="adam"), data.odds).median("seed")
    middle = np.full(found.size, np.sqrt(np.prod(data.share.values)))
    others = exponent(data.plane_time, data.plane_odds).median("seed")
    for at, share_at, value in ((found.batch, middle, found), (data.plane_batch, data.plane_share, others)):
        axis.scatter(at, share_at, c=value, s=26, edgecolors="white", linewidths=0.8, zorder=3, clip_on=False, **style)
    axis.plot(batch, 1.0 / batch, color="white", linestyle="--", linewidth=0.8)
    axis.text(40.0, 7.5e-3, "πb = 1", color="white", fontsize=7, rotation=-38)
    axis.set(xscale="log", yscale="log", xlabel="batch size b", ylabel="share π of the late group")
    axis.set(
        ylim=(share[0], share[-1]),
        xlim=(batch[0], batch[-1]),
        title="What decides is πb, the late\nexamples of a batch",
    )
    axis.grid(False)
    figure.colorbar(shown, ax=axis, label="exponent", pad=0.02)


FIGURE = FigureSpec(
    "adaptive_optimizers",
    "Adaptive optimizers: upsampling against batch size",
    "Two aligned heads, λ = (2, 1), N = 31, a group for each feature; the late group has 2 % of the examples, 7.5 "
    "% when drawn four times as often. Left: the power of the change of the odds by which t_2/t_1 falls (1 under "
    "gradient descent), medians of 32 seeds with 99 % intervals; open markers are full batches. Muon moves keys "
    "and queries, Adam the values beside them. Dashed: the reduced maps (Adam, Muon) and closed forms; dotted: "
    "Adam's closed form, without the growth of its gradient. Right: that closed form for every share and batch "
    "size; dots are measured exponents.",
    ("adaptive_optimizers",),
    draw,
)
