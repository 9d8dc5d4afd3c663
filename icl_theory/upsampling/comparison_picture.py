"""Picture of two compared loss records: changes in tenths of the examples, and contrast and losses over training."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from icl_theory.plotting import FEATURE_COLOURS, label_ends, new_panels, styled
from icl_theory.upsampling.comparison_summary import spread_out
from icl_theory.upsampling.loss_record import step_text
from icl_theory.upsampling.record_comparison import TENTHS, LossComparison

PANELS = 3
WIDTH = 88  # of the title, in characters
COLOURS = {"A": FEATURE_COLOURS[1], "B": FEATURE_COLOURS[3], "both": "#222222", "third": FEATURE_COLOURS[5]}
LABELS = {"A": "tenths of A", "B": "tenths of B", "both": "tenths of both", "third": "tenths of a third run"}


@styled
def draw_loss_comparison(found: LossComparison, *, title: str) -> Figure:
    """Draw the result of `compare_losses`: up to three steps above, the course of training below."""
    shown = spread_out(len(found.steps), PANELS)
    figure, panels = new_panels(len(shown) + 3, PANELS if len(shown) > 1 else 2, height=2.2)
    above, below = panels[: len(shown)], panels[len(shown) :]
    for axis, place in zip(above, shown, strict=True):
        if axis is not above[0]:
            axis.sharey(above[0])
        _tenths(axis, found, place)
    above[0].set_ylabel("loss of B against A, %")
    figure.legend(*above[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(found.rankings))
    _contrast(below[0], found)
    _moments(below[1], found)
    _reach(below[2], found)
    for axis in below:
        axis.set_xlabel("step")
        axis.margins(x=0.08)
        axis.xaxis.set_major_locator(MaxNLocator(4) if len(found.steps) > 1 else FixedLocator(found.steps.tolist()))
    figure.suptitle("\n".join(textwrap.wrap(title, WIDTH)), x=0.01, ha="left", parse_math=False)
    return figure


def _tenths(axis: Axes, found: LossComparison, place: int) -> None:
    """Draw the change in each tenth, with intervals, for every ranking."""
    tenths = np.arange(1, TENTHS + 1)
    for rank, name in enumerate(found.rankings):
        value, low, high = (100 * values[place, rank] for values in found.change)
        axis.fill_between(tenths, low, high, color=COLOURS[name], alpha=0.25, linewidth=0)
        axis.plot(tenths, value, color=COLOURS[name], marker="o", markersize=3, label=LABELS[name])
    axis.axhline(0, color="#999999", linewidth=0.8)
    axis.set(title=f"Step {step_text(found.steps[place])}", xticks=[1, 4, 7, 10], xlabel="tenth of the examples")
    axis.set_xticklabels(["easiest", "4th", "7th", "hardest"])


def _contrast(axis: Axes, found: LossComparison) -> None:
    """Draw the contrast over training."""
    for rank, name in enumerate(found.rankings):
        value, low, high = (100 * values[:, rank] for values in found.contrast)
        axis.errorbar(found.steps, value, [value - low, high - value], color=COLOURS[name], marker="o", markersize=3)
    axis.axhline(0, color="#999999", linewidth=0.8)
    axis.set(title="Contrast of easiest\nto hardest tenth", ylabel="%; above 0, B is less biased")


def _moments(axis: Axes, found: LossComparison) -> None:
    """Draw how mean and standard deviation of the losses change from A to B."""
    curves = {}
    for estimate, name, colour in (
        (found.mean_change, "mean", "#222222"),
        (found.spread_change, "standard\ndeviation", "#999999"),
    ):
        value, low, high = (100 * values for values in estimate)
        axis.errorbar(found.steps, value, [value - low, high - value], color=colour, marker="o", markersize=3)
        curves[name] = (found.steps, value, colour)
    label_ends(axis, curves)
    axis.axhline(0, color="#999999", linewidth=0.8)
    axis.set(title="Losses of all examples", ylabel="B against A, %")


def _reach(axis: Axes, found: LossComparison) -> None:
    """Draw how far the losses of each run lie apart."""
    curves = {name: (found.steps, found.reach[:, run], COLOURS[name]) for run, name in enumerate("AB")}
    for steps, ratio, colour in curves.values():
        axis.plot(steps, ratio, color=colour, marker="o", markersize=3)
    label_ends(axis, curves)
    axis.set(title="Hardest tenth\nover easiest", ylabel="ratio of mean losses")
