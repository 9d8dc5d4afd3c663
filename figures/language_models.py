"""Studies of language models as one forest plot: gains of accuracy and learning-time ratios, arm by arm."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.figure import FigureSpec
from icl_theory.llm.evaluation.study import bias_of, load_study, paired
from icl_theory.llm.optimizers.adamw_muon import OPTIMIZERS
from icl_theory.plotting import EARLY, FUNCTIONAL_SAM, GD, LATE, PAGE, RANDOM, SAM, draw_letter, new_figure, styled

FOLDER = "experiments/language_models/measured"
MEASURED = Path(__file__).parents[1] / FOLDER
STUDIES = {
    "Decoder of 0.1 M": "arithmetic-cpu.json",
    "Decoder of 0.8 M": "arithmetic-h200.json",
    "SmolLM2, sums": "checkpoint-sums-cpu.json",
    "SmolLM2, words": "checkpoint-words-h200.json",
}
COLOURS = {"late": LATE, "random": RANDOM, "early": EARLY, "sam": SAM, "fsam": FUNCTIONAL_SAM}
NAMES = {"plain": "plain", "late": "late × κ", "random": "random × κ", "early": "early × κ"}
TITLES = {"adamw": "AdamW", "muon": "Muon"}
HALF_STEPS = ", half the steps"
GAINS, RATIOS = (-0.41, 0.26), (0.35, 3.0)  # limits of the axes: change of accuracy, and R over plain's
ROW = 0.115  # height of an arm, in inches
HEADING, GAP, SHIFT = 1.2, 0.4, 0.22  # of a group's heading, below a group, and between two arms of a row, in rows
QUIET = "#666666"


class Mark(NamedTuple):
    """One arm in one panel.

    Attributes:
        place: height, in rows from the top.
        seeds: values of single seeds.
        middle: their mean.
        low: lower end of its interval.
        high: upper end.
        colour: colour of the arm.
        style: format of the mean's marker; a `>` is a lower bound.
        filled: whether the arm has as many steps as plain.
    """

    place: float
    seeds: np.ndarray
    middle: float
    low: float
    high: float
    colour: str
    style: str
    filled: bool


@styled
def draw(studies: dict[str, dict[str, Any]]) -> Figure:
    """Draw each arm against the plain arm of the same seeds, in groups by study and optimizer.

    Args:
        studies: saved studies by what is trained.
    """
    width = matplotlib.rcParams["figure.figsize"][0]
    wide = width > PAGE - 1.0
    groups = [
        (f"{name}, {TITLES[optimizer]}", arms, "before" in study)
        for name, study in studies.items()
        for optimizer in OPTIMIZERS
        if (arms := _arms_of(study, optimizer))
    ]
    height = sum(HEADING + GAP + len(_rows_of(arms)) for _, arms, _ in groups)
    figure, ((gains, ratios),) = new_figure(width, ROW * height + 1.05, 1, 2, sharey=True, width_ratios=(1.5, 1.0))
    above, ticks, spans = 0.0, {}, []
    marks: tuple[list[Mark], list[Mark]] = ([], [])
    for heading, arms, pretrained in groups:
        plain = np.array(arms["plain"]["accuracy"])
        _draw_heading(gains, above, f"{heading}, {len(plain)} seeds", f"plain {plain.mean():.3f}" if wide else "")
        bias = "no learning time" if pretrained else f"plain {np.nanmean(bias_of(arms['plain'])[0]):.2f}"
        _draw_heading(ratios, above, "", bias)
        for place, name in enumerate(_rows_of(arms)):
            row = above + HEADING + place + 0.5
            ticks[row] = arm_text(name)
            for found, some in zip(marks, _row(arms, name, row), strict=True):
                found += some
        spans.append((above + HEADING, above + HEADING + len(_rows_of(arms))))
        above = spans[-1][1] + GAP
    gains.set_ylim(above, 0.0)
    gains.set_yticks(list(ticks), list(ticks.values()))
    for axis, letter, some, reference, limits in ((gains, "a", marks[0], 0, GAINS), (ratios, "b", marks[1], 1, RATIOS)):
        axis.vlines([reference] * len(spans), *np.transpose(spans), color=GD, linewidth=0.9, zorder=0.9)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.grid(visible=False, axis="y")
        draw_marks(axis, some, limits)
        axis.set_xlim(limits)
        draw_letter(axis, letter)
    gains.set(title="Late × κ gains accuracy\nat 0.1 M weights …", xlabel="accuracy − that of plain")
    ratios.set(title="… and lowers R\nin all decoders", xlabel="R / R of plain, log", xscale="log")
    shown = (0.5, 0.7, 1.0, 1.4, 2.0) if wide else (0.5, 1.0, 2.0)
    ratios.set_xticks(shown, [f"{tick:g}" for tick in shown])
    ratios.minorticks_off()
    _draw_legend(figure, wide=wide)
    return figure


def arm_text(name: str) -> str:
    """Return the name of an arm for the reader: `f-SAM 0.02, ½ steps` for `fsam 0.02, half the steps`."""
    if name in NAMES:
        return NAMES[name]
    text = name.replace("fsam", "f-SAM").replace(HALF_STEPS, ", ½ steps")
    return text if text.startswith("f-") else text.replace("sam", "SAM")


def _arms_of(study: dict[str, Any], optimizer: str) -> dict[str, Any]:
    """Return the arms of one optimizer by their names without it."""
    parts = ((name.partition(" "), arm) for name, arm in study["arms"].items())
    return {name: arm for (kind, _, name), arm in parts if kind == optimizer}


def _rows_of(arms: dict[str, Any]) -> list[str]:
    """Return the names of the rows: all arms but plain, with those of half the steps in the row of the full ones."""
    return [name for name in arms if name != "plain" and not name.endswith(HALF_STEPS)]


def _row(arms: dict[str, Any], name: str, place: float) -> tuple[list[Mark], list[Mark]]:
    """Return the marks of a row: gains of accuracy, and R over that of plain where both have one."""
    plain, (reference, _, _) = arms["plain"], bias_of(arms["plain"])
    pair = [one for one in (name, name + HALF_STEPS) if one in arms]
    gains, ratios = [], []
    for one, shift in zip(pair, (-SHIFT, SHIFT) if len(pair) > 1 else (0.0,), strict=True):
        rest: Any = {"place": place + shift, "colour": COLOURS[name.split()[0]], "filled": one == name}
        values = np.array(arms[one]["accuracy"]) - plain["accuracy"]
        middle, half = paired(values)
        gains.append(Mark(seeds=values, middle=middle, low=middle - half, high=middle + half, style="o", **rest))
        ratio, bound, _ = bias_of(arms[one])
        known = np.isfinite(ratio) & np.isfinite(reference)
        if known.any():
            values = ratio[known] / reference[known]
            middle, half = paired(np.log(values))
            lower = bool(bound[known].any())  # an interval of lower bounds says nothing
            low, high = (np.nan, np.nan) if lower else np.exp([middle - half, middle + half])
            style = ">" if lower else "o"
            ratios.append(Mark(seeds=values, middle=np.exp(middle), low=low, high=high, style=style, **rest))
    return gains, ratios


def draw_marks(axis: Axes, marks: list[Mark], limits: tuple[float, float], tick: float = 0.18) -> None:
    """Draw single seeds faintly, and means with their intervals; few artists, so that the file stays small.

    Args:
        axis: the panel.
        marks: what is drawn.
        limits: ends of the axis; an arrow shows that an interval goes on.
        tick: half the height of the tick of a seed, in rows.
    """
    kind = lambda mark: (mark.colour, mark.style, mark.filled)  # noqa: E731
    for (colour, style, filled), group in groupby(sorted(marks, key=kind), key=kind):
        some = list(group)
        seeds = [(value, value, mark.place) for mark in some for value in mark.seeds]
        axis.plot(*_segments(seeds, tick), color=colour, alpha=0.45, linewidth=0.7, zorder=1.5, label="_seeds")
        axis.plot(*_segments([(mark.low, mark.high, mark.place) for mark in some], 0.0), color=colour, linewidth=1.1)
        middle, places = ([getattr(mark, name) for mark in some] for name in ("middle", "place"))
        face: Any = {"markerfacecolor": colour if filled else "white", "markeredgewidth": 0.9, "markersize": 3.4}
        axis.plot(middle, places, style, color=colour, zorder=3, **face)
    for mark in marks:
        for end, outside, style in ((limits[0], mark.low < limits[0], "<"), (limits[1], mark.high > limits[1], ">")):
            if outside:
                axis.plot(end, mark.place, style, color=mark.colour, markersize=3, clip_on=False)


def _segments(pieces: list[tuple[float, float, float]], half: float) -> tuple[np.ndarray, np.ndarray]:
    """Return one line of separate pieces, each from (left, place − half) to (right, place + half)."""
    left, right, place = np.array(pieces, float).T
    gap = np.full(len(left), np.nan)
    return np.ravel(np.stack([left, right, gap], axis=1)), np.ravel(np.stack([place - half, place + half, gap], axis=1))


def _draw_heading(axis: Axes, above: float, left: str, right: str) -> None:
    """Write above a group: one text from the names of its rows on, in bold, and another at the right end."""
    at: Any = {"xycoords": axis.get_yaxis_transform(), "textcoords": "offset points", "va": "center", "fontsize": 7}
    line = above + HEADING / 2
    name = axis.annotate(left, (0, line), xytext=(-46, 0), fontweight="bold", **at)
    note = axis.annotate(right, (1, line), xytext=(-2, 0), ha="right", color=QUIET, **at)
    for text in (name, note):
        text.set_in_layout(False)  # it may pass the axes


def _draw_legend(figure: Figure, *, wide: bool) -> None:
    marks: dict[str, Any] = {
        "as many steps as plain": {"marker": "o", "linestyle": "-"},
        "half the steps (equal compute)": {"marker": "o", "linestyle": "-", "markerfacecolor": "white"},
        "single seed": {"marker": "|", "linestyle": "", "alpha": 0.6},
        "lower bound": {"marker": ">", "linestyle": ""},
    }
    handles = [Line2D([], [], color=QUIET, linewidth=1.1, label=text, **mark) for text, mark in marks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if wide else 1)


def _draw_saved(paths: dict[str, Path]) -> Figure:
    return draw({name: load_study(path) for name, path in paths.items()})


FIGURE = FigureSpec(
    "language_models",
    "Upsampling what is learned late gains accuracy beyond its interval in the smallest decoder only",
    "Each arm against plain training of the same seeds: means, 95 % intervals of single comparisons, and single seeds "
    "as ticks; an arrow at the edge is an interval that goes on. Grey numbers are plain's own. a: accuracy on problems "
    "drawn anew. b: R, the step at which the mean loss of the late examples has halved over that of the early ones. "
    "Decoders learn arithmetic from scratch, SmolLM2-135M is pretrained. Late, random or early examples are drawn κ "
    "times as often, κ by the rule; the number after SAM and functional SAM (f-SAM) is ρ. At 0.8 M weights plain "
    "itself chose who is late, which raises its R: compare with random there. SmolLM2 halves its losses by the first "
    "records, so its R is no learning time.",
    (),
    partial(_draw_saved, {name: MEASURED / file for name, file in STUDIES.items()}),
    saved=FOLDER,
)
