"""The smallest decoder by kind of problem: where upsampling the late gains."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from figures.language_models import COLOURS, FOLDER, MEASURED, NAMES, STUDIES, TITLES, Mark, draw_marks
from icl_theory.llm.evaluation.study import load_study, paired
from icl_theory.plotting import GD, new_panels, styled, text_colour

FILE = STUDIES["Decoder of 0.1 M"]
KINDS = {"a+b": "one digit", "ab+cd": "two digits", "abc+def": "three digits", "product": "products"}
SHIFTS = {"late": -0.25, "random": 0.0, "early": 0.25}  # of the arms of a kind, in rows
LIMITS = (-0.85, 0.7)


@styled
def draw(study: dict[str, Any]) -> Figure:
    """Draw the change of accuracy by kind of problem, a panel for each optimizer.

    Args:
        study: the saved study.
    """
    figure, panels = new_panels(2, height=2.5)
    for axis, (optimizer, name) in zip(panels, TITLES.items(), strict=True):
        plain = study["arms"][f"{optimizer} plain"]["by_kind"]
        axis.axvline(0, color=GD, linewidth=0.9, zorder=0.9)
        marks = {
            (kind, arm): _mark(study["arms"][f"{optimizer} {arm}"]["by_kind"][kind], plain[kind], row, arm)
            for row, kind in enumerate(KINDS)
            for arm in SHIFTS
        }
        draw_marks(axis, list(marks.values()), LIMITS, tick=0.1)
        for arm in SHIFTS:
            _name(axis, marks["product", arm], NAMES[arm])
        labels = [f"{text}\nplain {np.mean(plain[kind]):.2f}" for kind, text in KINDS.items()]
        axis.set_yticks(range(len(KINDS)), labels)
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.grid(visible=False, axis="y")
        axis.set(title=f"{name}: products gain most", xlabel="accuracy − that of plain")
        axis.set(xlim=LIMITS, ylim=(len(KINDS) - 0.5, -0.5))
    return figure


def _mark(own: list[float], plain: list[float], row: int, arm: str) -> Mark:
    """Return the difference of an arm from plain on one kind of problem."""
    values = np.array(own) - plain
    middle, half = paired(values)
    return Mark(row + SHIFTS[arm], values, middle, middle - half, middle + half, COLOURS[arm], "o", True)


def _name(axis: Axes, mark: Mark, text: str) -> None:
    """Write the name of an arm beside everything that is drawn of it, on the side away from plain."""
    left = mark.high < 0
    end = min(mark.low, mark.seeds.min()) if left else max(mark.high, mark.seeds.max())
    at: Any = {"xytext": (-4 if left else 4, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
    axis.annotate(text, (float(end), mark.place), color=text_colour(mark.colour), ha="right" if left else "left", **at)


def _draw_saved(path: Path) -> Figure:
    return draw(load_study(path))


FIGURE = FigureSpec(
    "language_models_details",
    "In the smallest decoder, upsampling what is learned late gains most on products",
    "Decoder of 0.1 M weights, twelve seeds: accuracy minus that of plain training with the same seed, for sums of one "
    "to three digits and products. Dots are means, lines 95 % intervals, ticks single seeds; plain's own accuracy "
    "stands below each kind. Late, random and early are the upsampled examples. a: AdamW; b: Muon.",
    (),
    partial(_draw_saved, MEASURED / FILE),
    saved=f"{FOLDER}/{FILE}",
)
