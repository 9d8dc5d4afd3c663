"""Held-out loss over training, for every method."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.plotting import GD, SAM, new_figure, styled
from icl_theory.verification.claims.generalisation_readings import only

STYLES = {
    "gd": (GD, "-", 2.4, "GD"),
    "sam": (SAM, "-", 1.8, "SAM, ρ = 0.05"),
    "late": ("#0072B2", "-", 1.8, "late upsampled"),
    "two-phase": ("#0072B2", ":", 1.8, "late upsampled, then returned"),
    "residual": ("#56B4E9", "-", 1.3, "late by residual upsampled"),
    "fresh late": ("#009E73", "-", 1.8, "augmented with fresh late"),
    "fresh random": ("#009E73", ":", 1.8, "control: fresh of any kind"),
    "random": ("#999999", "--", 1.4, "control: random upsampled"),
    "early": ("#E69F00", "--", 1.4, "control: early upsampled"),
}
PANELS = (
    ("one group", 100, "training", "One group, P = 100"),
    ("one group", 5000, "training", "One group, P = 5000"),
    ("two groups", 5000, "training", "Two groups, P = 5000"),
    ("one group", 5000, "reversed", "One group, P = 5000, reversed spectrum"),
    ("two groups", 5000, "reversed", "Two groups, P = 5000, reversed spectrum"),
)


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw the mean held-out loss over the seeds, relative to gradient descent's at the same step."""
    figure, axes = new_figure(14.5, 7.6, 2, 3)
    panels = list(axes.ravel())
    time = data.time.values
    for axis, (mixture, size, test, title) in zip(panels, PANELS, strict=False):
        losses = only(data.held_out_loss, mixture=mixture, num_prompts=size, noise_std=0.0, shown_test=test).squeeze(
            "case"
        )
        base = losses.sel(arm="gd").values.astype(float)
        for arm, (colour, line, width, _) in STYLES.items():
            change = 100.0 * (losses.sel(arm=arm).values - base) / base.mean(axis=0)
            middle, half = change.mean(axis=0)[1:], 1.96 * change.std(axis=0, ddof=1)[1:] / np.sqrt(len(change))
            if arm in ("sam", "late"):
                axis.fill_between(time[1:], middle - half, middle + half, color=colour, alpha=0.15, linewidth=0)
            axis.plot(time[1:], middle, line, color=colour, linewidth=width)
        axis.set(xscale="log", xlim=(15, time[-1]), title=title, xlabel="time (learning rate × step)")
        axis.set_xticks([20, 50, 100, 200, 500, 1000], labels=["20", "50", "100", "200", "500", "1000"])
        axis.minorticks_off()
        axis.set_ylabel("held-out loss against GD, %")
    _legend(panels[-1])
    return figure


def _legend(axis: Axes) -> None:
    axis.axis("off")
    for colour, line, width, label in STYLES.values():
        axis.plot([], [], line, color=colour, linewidth=width, label=label)
    axis.legend(loc="center left", fontsize=11)


FIGURE = FigureSpec(
    "generalisation",
    "Held-out loss over training",
    "Mean held-out loss over 40 seeds (so that single runs without a feature show) relative to that of gradient "
    "descent at the same step on the same data from the same starts; no label noise; 95 % intervals of the paired "
    "difference shaded for SAM and late upsampling. Upper row: on the training distribution. Lower row: on a reversed "
    "spectrum, which one group never shows and the minority of the two groups has. Held-out losses are closed forms "
    "of the model's W. Below zero is better than gradient descent.",
    ("generalisation",),
    draw,
)
