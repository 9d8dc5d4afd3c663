"""The registered study of upsampling on mathematical problems as a forest plot: gains of accuracy, by comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from figures.language_models import QUIET, Mark, draw_marks
from icl_theory.plotting import GD, LATE, NOTE, RANDOM, new_figure, styled

FILE = "mathematics-0.4M.json"
SMALLEST = 2.0  # points: the least gain that the protocol calls worth a second run
ROW, HEADING = 0.165, 1.3  # height of a comparison in inches, and of a heading in rows
SPAN = 1.15  # the axis ends at so many times the largest end of an interval
TITLES = {True: "primary, judged by Holm's procedure", False: "secondary, without a verdict"}


@styled
def draw(study: dict[str, Any]) -> Figure:
    """Draw the gain of each comparison with its interval, and the verdict on the primary ones.

    Args:
        study: the saved study.
    """
    width = matplotlib.rcParams["figure.figsize"][0]
    found = study["comparisons"]
    figure, ((axis,),) = new_figure(width, ROW * (len(found) + 2 * HEADING) + 0.65)
    marks, ticks, above = [], {}, 0.0
    for primary, title in TITLES.items():
        axis.annotate(
            title, (0, above + HEADING / 2), (3, 0), axis.get_yaxis_transform(), "offset points", va="center",
            fontsize=NOTE, color=QUIET,
        )  # fmt: skip
        above += HEADING
        for one in (one for one in found if one["primary"] == primary):
            middle, half = 100 * one["mean"], 100 * one["half"]
            marks.append(
                Mark(
                    place=above + 0.5,
                    seeds=100 * np.array(one["differences"]),
                    middle=middle,
                    low=middle - half,
                    high=middle + half,
                    colour=LATE if primary else RANDOM,
                    style="o",
                    filled=True,
                )
            )
            ticks[above + 0.5] = f"{one['arm']} − {one['other']}"
            if primary:
                axis.annotate(
                    one["verdict"], (1, above + 0.5), (-2, 0), axis.get_yaxis_transform(), "offset points", ha="right",
                    va="center", fontsize=NOTE, color=QUIET,
                )  # fmt: skip
            above += 1
    end = SPAN * max(abs(value) for mark in marks for value in (mark.low, mark.high))
    axis.set_ylim(above, 0.0)
    axis.set_yticks(list(ticks), list(ticks.values()))
    axis.axvline(0.0, color=GD, linewidth=0.9, zorder=0.9)
    axis.axvline(SMALLEST, color=GD, linewidth=0.7, linestyle=":", zorder=0.9)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(visible=False, axis="y")
    draw_marks(axis, marks, (-end, end))
    axis.set(xlim=(-end, end), xlabel="gain of accuracy (points)")
    return figure


def _draw_saved(path: Path) -> Figure:
    return draw(json.loads(path.read_text()))
