"""Picture of two compared loss records: changes in tenths of the examples, and contrast and losses over training."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from icl_theory.plotting import FEATURE_COLOURS, GD, SAM, new_figure, styled
from icl_theory.upsampling.comparison_summary import spread_out
from icl_theory.upsampling.loss_record import step_text
from icl_theory.upsampling.record_comparison import TENTHS, LossComparison

PANELS = 3
WIDTH = 118  # of the title, in characters
COLOURS = {"A": FEATURE_COLOURS[4], "B": FEATURE_COLOURS[5], "both": "#000000", "third": FEATURE_COLOURS[2]}
LABELS = {"A": "tenths of A", "B": "tenths of B", "both": "tenths of both", "third": "tenths of a third run"}


@styled
def draw_loss_comparison(found: LossComparison, *, title: str) -> Figure:
    """Draw the result of `compare_losses`: up to three steps above, the course of training below."""
    figure, (above, below) = new_figure(11, 7, 2, PANELS)
    shown = spread_out(len(found.steps), PANELS)
    for axis in above[len(shown) :]:
        axis.axis("off")
    for axis, place in zip(above, shown, strict=False):
        if axis is not above[0]:
            axis.sharey(above[0])
        _tenths(axis, found, place)
    above[0].set_ylabel("loss of B against A, %")
    above[0].legend()
    _contrast(below[0], found)
    _moments(below[1], found)
    _reach(below[2], found)
    for axis in below:
        axis.set_xlabel("step")
        axis.margins(x=0.08)
        axis.xaxis.set_major_locator(MaxNLocator(4))
    figure.suptitle("\n".join(textwrap.wrap(title, WIDTH)), fontsize=11, x=0.01, ha="left", parse_math=False)
    return figure


def _tenths(axis: Axes, found: LossComparison, place: int) -> None:
    """Draw the change in each tenth, with intervals, for every ranking."""
    tenths = np.arange(1, TENTHS + 1)
    for rank, name in enumerate(found.rankings):
        value, low, high = (100 * values[place, rank] for values in found.change)
        axis.fill_between(tenths, low, high, color=COLOURS[name], alpha=0.25, linewidth=0)
        axis.plot(tenths, value, color=COLOURS[name], marker="o", markersize=4, label=LABELS[name])
    axis.axhline(0, color="#999999", linewidth=0.8)
    axis.set(title=f"Step {step_text(found.steps[place])}", xticks=[1, 4, 7, 10], xlabel="tenth of the examples")
    axis.set_xticklabels(["easiest", "4th", "7th", "hardest"])


def _contrast(axis: Axes, found: LossComparison) -> None:
    """Draw the contrast over training."""
    for rank, name in enumerate(found.rankings):
        value, low, high = (100 * values[:, rank] for values in found.contrast)
        axis.errorbar(found.steps, value, [value - low, high - value], color=COLOURS[name], marker="o", markersize=4)
    axis.axhline(0, color="#999999", linewidth=0.8)
    axis.set(title="Contrast of easiest to hardest", ylabel="%; above 0, B is less biased")


def _moments(axis: Axes, found: LossComparison) -> None:
    """Draw how mean and standard deviation of the losses change from A to B."""
    for estimate, name, colour in ((found.mean_change, "mean", "#999999"), (found.spread_change, "spread", "#000000")):
        value, low, high = (100 * values for values in estimate)
        axis.errorbar(
            found.steps, value, [value - low, high - value], color=colour, marker="o", markersize=4, label=name
        )
    axis.axhline(0, color="#999999", linewidth=0.8)
    axis.set(title="All examples", ylabel="loss of B against A, %")
    axis.legend()


def _reach(axis: Axes, found: LossComparison) -> None:
    """Draw how far the losses of each run lie apart."""
    for run, (name, colour) in enumerate((("A", GD), ("B", SAM))):
        axis.plot(found.steps, found.reach[:, run], color=colour, marker="o", markersize=4, label=name)
    axis.set(title="Hardest tenth over easiest", ylabel="ratio of mean losses, own tenths")
    axis.legend()
