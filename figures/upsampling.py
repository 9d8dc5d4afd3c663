"""Effect of upsampling late groups and late examples on learning times, beside theory, and its cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.analysis.intervals import median_interval
from icl_theory.plotting import GD, LATE, RANDOM, THEORY, feature_colour, label_end, new_panels, styled, text_colour
from icl_theory.verification.changes import CONFIDENCE, log_change

DASHED: Any = {"linestyle": "--", "color": THEORY, "linewidth": 1.0}
OPEN: Any = {"markerfacecolor": "white", "linewidth": 0.8}
ARMS = {
    "late": "late half",
    "threshold": "late by a threshold",
    "clusters": "late by two clusters",
    "random": "control: random",
    "early": "control: early",
}


@styled
def draw(data: xr.Dataset) -> Figure:
    """Draw ratios and times against the factor, then single examples, and the cost of the moved optimum."""
    figure, panels = new_panels(6, height=2.1)
    for axis, draw_panel in zip(panels, (_aligned, _random, _examples, _times, _errors, _cost), strict=True):
        draw_panel(axis, data)
    return figure


def _aligned(axis: Axes, data: xr.Dataset) -> None:
    every = data.isel(fine_factor=slice(None, None, 4))
    fine, pair, times = every.fine_factor, data.pair_learning_time, data.shared_learning_time
    predicted = every.fine_predicted_learning_time
    axis.plot(fine, data.pair_predicted_ratio / fine, **DASHED)
    axis.plot(data.pair_factor, pair[:, 1] / pair[:, 0], "o", color=feature_colour(1))
    for d in (2, 3):
        axis.plot(fine, predicted[:, d] / predicted[:, 0], **DASHED)
        axis.plot(data.shared_factor, times[:, d] / times[:, 0], "s", color=feature_colour(d))
    for d, height, lift in ((1, 8.1, 4.0), (3, 5.4, 0.0), (2, 3.2, -3.0)):
        label_end(axis, 0.5, height, f"$t_{d + 1}/t_1$", feature_colour(d), lift=lift, side="left")
    axis.plot([], [], "o", color=GD, label="a group for each feature")
    axis.plot([], [], "s", color=GD, label="two groups share all")
    axis.plot([], [], **DASHED, label="theory")
    axis.legend(loc="lower left", labelspacing=0.2, borderaxespad=0.3)
    _log_axes(axis, (0.5, 1, 2, 4, 8), (0.5, 1, 2, 4, 8), xlim=(0.32, 9.5), ylim=(0.05, 14))
    axis.set(
        title="Aligned starts: upsampling brings\nlate features closer, as predicted", ylabel="ratio of learning times"
    )


def _random(axis: Axes, data: xr.Dataset) -> None:
    ratios = data.learning_time_ratio.sel(groups="separate")
    theory = data.predicted_learning_time.sel(groups="separate")
    for d in (3, 4):
        colour = feature_colour(d - 1)
        for kind, style in (("late", {"linewidth": 0.8}), ("early", OPEN)):
            chosen = _arms(data, kind)
            kappa = data.factor[chosen]
            middle, low, high = _medians(ratios.sel(feature=d)[chosen])
            axis.errorbar(kappa, middle, [middle - low, high - middle], fmt="o-", color=colour, **style)
            if kind == "late":
                axis.plot(
                    kappa, _medians((theory.sel(feature=d) / theory.sel(feature=1))[chosen])[0], **DASHED, zorder=3
                )
                axis.plot(kappa, middle[0] / kappa, ":", color=colour, linewidth=1.0)
    for x, y, text, d in (
        (0.95, 4.0, "$t_4/t_1$", 3),
        (0.95, 1.74, "$t_3/t_1$", 2),
        (4.3, 13.0, "early", 3),
        (4.3, 4.3, "early", 2),
        (6.4, 1.6, "late", 3),
        (6.4, 0.82, "late", 2),
    ):
        axis.text(
            x, y, text, color=text_colour(feature_colour(d)), fontsize=7, ha="right" if x < 1 else "left", va="center"
        )
    axis.text(1.0, 0.35, "dotted: R/κ", fontsize=7, va="center")
    _log_axes(axis, (1, 2, 3, 4, 6), (0.5, 1, 2, 4, 8, 16), xlim=(0.72, 9), ylim=(0.2, 20))
    axis.set(title="Random starts: the ratios fall\nless than the rule R/κ", ylabel="ratio of learning times")


def _times(axis: Axes, data: xr.Dataset) -> None:
    chosen = _arms(data, "late")
    kappa = data.factor[chosen]
    for groups, marker in (("separate", "o"), ("sharing", "s")):
        for d in (1, 4):
            times, theory = (
                each.sel(groups=groups, feature=d)[chosen]
                for each in (data.learning_time, data.predicted_learning_time)
            )
            changes = np.exp([log_change(times[k], times[0])[:3] for k in range(len(chosen))]).T
            bars = np.abs(changes[1:] - changes[0])
            axis.errorbar(kappa, changes[0], bars, fmt=marker, color=feature_colour(d - 1))
            axis.plot(kappa, np.exp([log_change(theory[k], theory[0])[0] for k in range(len(chosen))]), **DASHED)
    for d, name, height in ((1, "", 2.65), (1, ", shared", 1.5), (4, "", 0.84), (4, ", shared", 0.3)):
        axis.text(6.5, height, f"$t_{d}${name}", color=text_colour(feature_colour(d - 1)), fontsize=7, va="center")
    _log_axes(axis, (1, 2, 3, 4, 6), (0.25, 0.5, 1, 2), xlim=(0.9, 9.5), ylim=(0.2, 3.6))
    axis.set(title="Random starts: the slowest is\nlearned sooner, the first later", ylabel="time relative to κ = 1")


def _examples(axis: Axes, data: xr.Dataset) -> None:
    ratios = data.example_learning_time_ratio
    for row, arm in enumerate(ARMS):
        for shift, d in ((-0.2, 2), (0.2, 3)):
            changes = log_change(ratios.sel(arm=arm, feature=d), ratios.sel(arm="plain", feature=d))
            middle, low, high = np.exp(changes[:3])
            bars = [[middle - low], [high - middle]]
            axis.errorbar(middle, row + shift, xerr=bars, fmt="o", color=feature_colour(d - 1))
            if row == 0:
                words: Any = {"color": text_colour(feature_colour(d - 1)), "fontsize": 7, "va": "center"}
                axis.text(1.05, 0.3 + 2.0 * shift, f"$t_{d}/t_1$", **words)
    axis.axvline(1.0, color=GD, linewidth=1.0)
    axis.set(
        xscale="log",
        xlabel="$t_d/t_1$ relative to plain data",
        title="Single examples: upsampling\nthe late lowers the ratios",
    )
    axis.set_xticks([0.5, 0.7, 1, 1.4], labels=["0.5", "0.7", "1", "1.4"])
    axis.minorticks_off()
    _rows(axis, list(ARMS.values()))


def _errors(axis: Axes, data: xr.Dataset) -> None:
    measured = data.example_aligned_learning_time
    arms = ["plain", *ARMS]
    errors = 100.0 * np.abs(measured / data.example_predicted_learning_time - 1.0).median("data_set").max("feature")
    for row, arm in enumerate(arms):
        without, coupled = (float(errors.sel(arm=arm, theory=name)) for name in ("drives", "coupled"))
        axis.plot([coupled, without], [row, row], color=RANDOM, linewidth=0.8, zorder=1)
        axis.plot(without, row, "o", color=THEORY, markerfacecolor="white")
        axis.plot(coupled, row, "o", color=THEORY)
    axis.set(
        xscale="log",
        xlabel="error of predicted times, %",
        title="The weighted moments predict\nwhen each feature is learned",
    )
    axis.set_xticks([0.3, 1, 3, 10], labels=["0.3", "1", "3", "10"])
    axis.minorticks_off()
    _rows(axis, ["plain", *ARMS.values()])
    axis.set(ylim=(5.5, -1.2), xlim=(0.15, 12))
    for name, text in (("drives", "drives alone"), ("coupled", "with couplings")):
        axis.text(float(errors.sel(arm="plain", theory=name)), -0.6, text, ha="center", va="center", fontsize=7)


def _cost(axis: Axes, data: xr.Dataset) -> None:
    theory, measured = (
        100 * data[f"{name}_excess_loss"] / data.shared_least_loss for name in ("fine_predicted", "shared")
    )
    axis.plot(data.fine_factor[::2], theory[::2], **DASHED)
    axis.plot(data.shared_factor, measured, "o", color=LATE)
    axis.set(xscale="log", title="The optimum moves, at the\npredicted cost", xlabel="factor κ")
    axis.set(ylabel="loss on the original data\nabove its optimum, %", ylim=(-0.3, 7))
    axis.set_xticks([0.5, 1, 2, 4, 8], labels=["½", "1", "2", "4", "8"])
    axis.minorticks_off()


def _arms(data: xr.Dataset, kind: str) -> np.ndarray:
    """Return the indices of the arms that upsample groups of a kind, after the arm that upsamples none."""
    of_kind = np.flatnonzero(data.upsampled.str.startswith(kind).values)
    return np.unique([0, *of_kind])


def _medians(values: xr.DataArray) -> np.ndarray:
    """Return medians over seeds and the ends of their intervals, (3, arm)."""
    return np.asarray([median_interval(each, confidence=CONFIDENCE) for each in values.values]).T


def _rows(axis: Axes, names: list[str]) -> None:
    axis.set_yticks(range(len(names)), labels=names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")


def _log_axes(axis: Axes, x: tuple[float, ...], y: tuple[float, ...], **limits: tuple[float, float]) -> None:
    axis.set(xscale="log", yscale="log", xlabel="factor κ", **limits)
    axis.set_xticks(x, labels=[f"{value:g}" for value in x])
    axis.set_yticks(y, labels=[f"{value:g}" for value in y])
    axis.minorticks_off()
    axis.axhline(1.0, color=RANDOM, linewidth=0.8, zorder=1)


FIGURE = FigureSpec(
    "upsampling",
    "Upsampling what is late lowers simplicity bias as theory predicts; upsampling random or early examples does not",
    "Learning times when a late group, or late examples, are drawn κ times as often; medians with 99 % intervals in "
    "b, c and d. a: two groups with a feature each, or two groups that share four features, from aligned starts; at κ"
    " = ½ the early group is drawn twice as often. b: 64 random starts, a group for each feature. The groups of "
    "features 3 and 4 are upsampled (full markers, with the theory of each start dashed) or, as a control, those of 1"
    " and 2 (open). Dotted: the rule, which divides the ratio R at κ = 1 by κ. c: 24 data sets of 5000 prompts from "
    "random starts, against the data as they are. Late examples are found in three ways and upsampled by the pilot's "
    "ratio of learning times; the controls are as many random or early ones. d: the runs of b and, shared, two groups "
    "that share all features, of which the minority is upsampled. e: the data sets of c from aligned starts: error of "
    "the predicted learning times, the median over data sets of the worst feature. Open: predicted from the drive of "
    "each feature alone; full: with couplings too, by which a finite data set lets features move each other. f: two "
    "groups that share all features: loss of the trained model on the mixture as it was.",
    ("upsampling",),
    draw,
)
