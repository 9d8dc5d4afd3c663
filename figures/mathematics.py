"""The registered study of upsampling on mathematical problems as a forest plot: gains of accuracy, by comparison."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.language_models import QUIET, Mark, arm_text, draw_marks
from icl_theory.plotting import GD, LATE, NOTE, new_figure, styled

SMALLEST = 2.0  # points: the least gain that the protocol calls worth a second run
ROW, HEADING, LINE = 0.25, 0.85, 0.72  # inches of a comparison; of a heading, and of a mark below its words, in rows
SPAN = 1.05  # the axis ends at so many times the largest difference
TITLES = {True: "Primary, judged by Holm's procedure", False: "Secondary, without a verdict"}


@styled
def draw(study: dict[str, Any]) -> Figure:
    """Draw the gain of each comparison with its interval, and the verdict on the primary ones.

    Args:
        study: the saved study.
    """
    width = matplotlib.rcParams["figure.figsize"][0]
    found = [one for one in study["comparisons"] if len(one["differences"]) > 1]
    figure, ((axis,),) = new_figure(width, ROW * (len(found) + 2 * HEADING) + 0.45)
    marks, above = [], 0.0
    for primary, title in TITLES.items():
        _write(axis, above + HEADING / 2, title, fontweight="bold")
        above += HEADING
        for one in (one for one in found if one["primary"] == primary):
            _write(axis, above + LINE / 2, f"{arm_text(one['arm'])} − {arm_text(one['other'])}")
            _write(axis, above + LINE / 2, one.get("verdict", ""), right=True, color=QUIET)
            marks.append(_mark(one, above + LINE))
            above += 1
    end = SPAN * max(SMALLEST, *(abs(value) for mark in marks for value in (mark.low, mark.high, *mark.seeds)))
    axis.set_ylim(above, 0.0)
    axis.set_yticks([])
    axis.axvline(0.0, color=GD, linewidth=0.9, zorder=0.9)
    axis.axvline(SMALLEST, color=GD, linewidth=0.7, linestyle=":", zorder=0.9)
    axis.spines["left"].set_visible(False)
    draw_marks(axis, marks, (-end, end), tick=0.1)
    axis.set(xlim=(-end, end), xlabel="gain of accuracy (points)")
    return figure


def _mark(one: dict[str, Any], place: float) -> Mark:
    middle, half = 100 * one["mean"], 100 * one["half"]
    return Mark(
        place=place,
        seeds=100 * np.array(one["differences"]),
        middle=middle,
        low=middle - half,
        high=middle + half,
        colour=LATE if one["primary"] else GD,
        style="o",
        filled=True,
    )


def _write(axis: Axes, height: float, words: str, *, right: bool = False, **style: Any) -> None:
    """Write words at one end of a row, on white."""
    axis.text(
        1.0 if right else 0.0,
        height,
        words,
        transform=axis.get_yaxis_transform(),
        ha="right" if right else "left",
        va="center",
        fontsize=NOTE,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        **style,
    )
