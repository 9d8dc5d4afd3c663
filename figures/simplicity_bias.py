"""Simplicity bias against SAM's radius, with the region where runs are trapped at the saddle."""

from __future__ import annotations

import numpy as np
import scipy.stats
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.analysis.intervals import median_interval
from icl_theory.plotting import SAM, feature_colour, new_figure, styled
from icl_theory.theory.sam_dynamics import two_phase_ratio
from icl_theory.verification.claims.sam_simplicity_bias_statements import REFERENCE_LEARNED, REFERENCE_MEDIANS

MOSTLY_LEARNED = 0.95


@styled
def draw(sharpness: xr.Dataset, phase: xr.Dataset) -> Figure:
    """Aligned starts against the flow; random starts with intervals; the share that learns."""
    figure, ((aligned, random, share),) = new_figure(13.5, 4.4, 1, 3)
    _aligned(aligned, phase)
    rhos, times, ratios = (sharpness[name].values for name in ("rho", "learning_time", "learning_time_ratio"))
    learned = np.isfinite(times.min(axis=-1)).mean(axis=-1)
    trap = rhos[learned < MOSTLY_LEARNED].min(initial=np.inf)
    shown = np.flatnonzero(learned >= 0.5)
    for d in (1, 2, 3):
        middle, low, high = np.asarray([median_interval(ratios[i, np.isfinite(times[i, :, 0]), d]) for i in shown]).T
        colour = feature_colour(d)
        random.fill_between(rhos[shown], low, np.minimum(high, 1e3), color=colour, alpha=0.2, linewidth=0)
        random.plot(rhos[shown], middle, "o-", color=colour, markersize=4, label=f"$t_{d + 1}/t_1$")
        theory = sharpness.predicted_learning_time.values
        known = [np.isfinite(theory[i, :, d]) for i in shown]
        predicted = [np.median(theory[i, k, d] / theory[i, k, 0]) for i, k in zip(shown, known, strict=True)]
        random.plot(rhos[shown], predicted, "--", color=colour, linewidth=1.2)
        reference = [row[d - 1] for row in REFERENCE_MEDIANS.values()]
        random.plot(list(REFERENCE_MEDIANS), reference, "x", color="black", markersize=7)
    random.plot([], [], "--", color="#555555", linewidth=1.2, label="theory (notes, §16)")
    random.plot([], [], "x", color="black", label="notes' medians")
    random.set(title="Random starts: learning-time ratios", yscale="log", ylim=(1, 60), ylabel="ratio, log scale")
    random.set_yticks([1, 2, 5, 10, 20, 50], labels=["1", "2", "5", "10", "20", "50"])
    random.minorticks_off()
    seeds = times.shape[1]
    counts = np.round(learned * seeds).astype(int)
    intervals = np.asarray([scipy.stats.binomtest(int(k), seeds).proportion_ci(0.95) for k in counts])
    share.fill_between(rhos, intervals[:, 0], intervals[:, 1], color=SAM, alpha=0.2, linewidth=0)
    share.plot(rhos, learned, "o-", color=SAM, markersize=4, label=f"{seeds} seeds, 95 % interval")
    share.plot(
        list(REFERENCE_LEARNED), list(REFERENCE_LEARNED.values()), "x", color="black", markersize=7, label="notes"
    )
    share.set(title="Random starts: share that learns", ylim=(-0.02, 1.04), ylabel="share of runs")
    for axis in (random, share):
        axis.axvspan(
            trap,
            rhos[-1] + 0.004,
            color="#D9D9D9",
            alpha=0.6,
            linewidth=0,
            label="saddle trap:\n< 95 % learn",
            zorder=0,
        )
        axis.set(xlabel="ρ", xlim=(-0.004, rhos[-1] + 0.004), xticks=np.arange(0, 0.21, 0.05))
    random.legend(loc="center right", fontsize=8.5)
    share.legend(loc="lower left", fontsize=8.5)
    return figure


def _aligned(axis: Axes, phase: xr.Dataset) -> None:
    deltas = phase.delta
    for index, ratio in enumerate((3.0, 2.0, 1.5)):
        row = phase.sel(eigenvalue_ratio=ratio, method="nearest")
        colour = feature_colour(index)
        simulated, predicted = row.learning_time.isel(learning_rate=0), row.predicted_learning_time
        axis.plot(deltas, predicted[:, 1] / predicted[:, 0], color=colour, linestyle="--", linewidth=1.4)
        axis.plot(
            deltas, simulated[:, 1] / simulated[:, 0], "o", color=colour, markersize=4, label=f"λ₁/λ₂ = {ratio:g}"
        )
        alpha = 1.0 / ratio**2
        fine = np.linspace(0, 0.6 * (1 - alpha), 50)
        axis.plot(fine, two_phase_ratio(alpha, fine), color=colour, linestyle=":", linewidth=1.2)
    axis.plot([], [], "k--", linewidth=1.4, label="reduced flow")
    axis.plot([], [], "k:", linewidth=1.2, label="two-phase formula")
    axis.axvline(np.sqrt(2.0), color="#7F7F7F", linewidth=1.0)
    axis.text(np.sqrt(2.0) - 0.02, 6.4, "ρ = ‖θ(0)‖", rotation=90, ha="right", va="top", fontsize=8.5, color="#555555")
    axis.set(title="Aligned starts: $t_2/t_1$", xlabel="δ = ρ / (√3 u₀)", ylabel="$t_2 / t_1$", ylim=(0.8, 9.6))
    axis.set(xlim=(deltas[0], deltas[-1]))
    axis.legend(loc="upper right", fontsize=8.5)


FIGURE = FigureSpec(
    "simplicity_bias",
    "Simplicity bias against ρ",
    "Left: aligned, equal starts: t₂/t₁ of the full model (dots, η = 0.002) on the reduced flow (dashed); the "
    "two-phase formula (dotted) is a reading for moderate δ. Middle: medians of t_d/t₁ over 64 random starts, among "
    "the runs that learn, with 95 % intervals, and the theory of each start (dashed). Right: share of runs that learn "
    "at all. Grey: the saddle trap, where fewer than 95 % learn. Crosses: values measured independently for the "
    "theory notes.",
    ("sam_simplicity_bias", "phase_diagram"),
    draw,
)
