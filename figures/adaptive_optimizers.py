"""Effect of upsampling against batch size, under four optimizers, and a map of the exponent under Adam."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import GD, THEORY, new_panels, styled, text_colour
from icl_theory.verification.changes import median_change
from icl_theory.verification.claims.adaptive_optimizers_statements import exponent

# Marker, colour, name and its place beside the curve.
OPTIMIZERS: dict[str, tuple[str, str, str, tuple[float, float]]] = {
    "gd": ("s", GD, "gradient descent", (1.0, 1.06)),
    "sign": ("^", "#999933", "sign descent", (26.0, 0.66)),
    "adam": ("o", "#117733", "Adam", (5.0, 0.49)),
    "muon": ("D", "#882255", "Muon", (1.15, 0.16)),
}
FULL = 384.0  # where the full batch stands on the axis of batch sizes


@styled
def draw(data: xr.Dataset) -> Figure:
    """Exponent of the odds against batch size, measured and predicted; the map of Adam's exponent."""
    figure, (curves, plane) = new_panels(2, height=2.7, width_ratios=(1.15, 1.0))
    _curves(curves, data)
    _plane(figure, plane, data)
    return figure


def _curves(axis: Axes, data: xr.Dataset) -> None:
    measured = exponent(data.learning_time, data.odds)
    predicted = exponent(data.predicted_learning_time, data.odds)
    law = exponent(data.law_learning_time, data.odds)
    for name, (marker, colour, words, place) in OPTIMIZERS.items():
        runs = measured.sel(optimizer=name).dropna("batch", how="all")
        middle, low, high = np.array([median_change(each.values)[:3] for each in runs]).T
        axis.errorbar(runs.batch, middle, yerr=[middle - low, high - middle], fmt=marker, color=colour, linewidth=1.0)
        line = predicted.sel(optimizer=name).dropna("batch")
        axis.plot(line.batch, line, color=THEORY, linestyle="--", linewidth=1.0)
        axis.text(*place, words, color=text_colour(colour), fontsize=7)
        if name != "gd":
            times = data[f"{name}_time"]
            whole = exponent(times.isel(rho=0) if "rho" in times.dims else times, data.full_odds)
            axis.plot(FULL, whole, marker, color=colour, fillstyle="none")
    axis.plot(data.batch, law.sel(optimizer="adam"), color=THEORY, linestyle=":", linewidth=1.0)
    axis.axhline(0.0, color="#999999", linewidth=0.6)
    axis.set(xscale="log", xlabel="batch size b", ylim=(-0.12, 1.15), ylabel="effect of upsampling on $t_2/t_1$")
    axis.set_xticks([1, 4, 16, 64, FULL], labels=["1", "4", "16", "64", "full"])
    axis.minorticks_off()
    axis.set_title("Groups that share nothing: Adam feels\nupsampling in small batches only")


def _plane(figure: Figure, axis: Axes, data: xr.Dataset) -> None:
    style: Any = {"cmap": "viridis", "vmin": 0.0, "vmax": 0.6}
    batch, share, values = data.map_batch.values, data.map_share.values, data.map_exponent.values
    shown = axis.pcolormesh(batch, share, values, shading="nearest", rasterized=True, **style)
    for late, at in ((0.1, 6.0), (1.0, 45.0), (10.0, 200.0)):
        axis.plot(batch, late / batch, color="white", linestyle="--", linewidth=0.8)
        angle = np.degrees(np.arctan2(-late / at, at))
        axis.text(
            at,
            1.12 * late / at,
            f"πb = {late:g}",
            color="white",
            fontsize=7,
            rotation=angle,
            rotation_mode="anchor",
            transform_rotates_text=True,
        )
    found = exponent(data.learning_time.sel(optimizer="adam"), data.odds).median("seed")
    middle = np.full(found.size, np.sqrt(np.prod(data.share.values)))
    others = exponent(data.plane_time, data.plane_odds).median("seed")
    for at, share_at, value in ((found.batch, middle, found), (data.plane_batch, data.plane_share, others)):
        axis.scatter(at, share_at, c=value, s=26, edgecolors="white", linewidths=0.8, zorder=3, clip_on=False, **style)
    axis.set(xscale="log", yscale="log", xlabel="batch size b", ylabel="share π of the late group")
    axis.set(
        ylim=(share[0], share[-1]),
        xlim=(batch[0], batch[-1]),
        title="What decides is πb, the late\nexamples of a batch",
    )
    axis.grid(False)
    figure.colorbar(shown, ax=axis, label="effect of upsampling on $t_2/t_1$", pad=0.02)


FIGURE = FigureSpec(
    "adaptive_optimizers",
    "Where groups share no feature, upsampling brings the late one closer under Adam and Muon only in small batches",
    "Two aligned heads, λ = (2, 1), N = 31, a group for each feature. The late group has 2 % of the examples, and 7.5 "
    "% when drawn four times as often. The effect is the power p in t_2/t_1 ∝ (odds of the late group)^−p: 1 under "
    "gradient descent, 0 where upsampling does nothing. a: medians of 32 seeds with 99 % intervals; open markers are "
    "full batches from κ = 1 to 16. There upsampling raises t_2/t_1 by 4 to 13 % under Muon, as its five iterations "
    "wobble, and does nothing under the other two. Sign descent moves every weight by η times the sign of its gradient;"
    " it was not trained at b = 1 and 2, where its closed form puts t_2 beyond the runs. Muon moves keys and queries, "
    "Adam the values beside them. Dashed: reduced maps (Adam, Muon) and closed forms (gradient and sign descent); "
    "dotted: Adam's closed form, without the growth of its gradient. b: that closed form for every share and batch size"
    " (colour) and medians of 32 seeds (dots). The row at π = 0.039, the geometric mean of 2 and 7.5 %, is Adam in a; "
    "around each other dot the odds were halved and doubled. Dashed lines: as many late examples in a batch.",
    ("adaptive_optimizers",),
    draw,
)
