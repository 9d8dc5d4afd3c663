"""Order of learning and accuracy of small decoders under upsampling, by batch size and optimizer, beside two laws."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from figures.language_models import FOLDER, MEASURED
from icl_theory.llm.evaluation.study import paired
from icl_theory.plotting import GD, LATE, NOTE, RANDOM, THEORY, new_panels, styled, text_colour
from icl_theory.upsampling.optimizer_rule import NAMES

FILE = "batch-sizes-cpu.json"
FOUND = {  # by the laws, which the tests hold against the study
    "adamw": "as noise foretells",
    "muon": "no law",
    "sgd": "more than noise says",
}
LAWS = {  # line, name, and where it stands
    "noise": ("--", "law, measured noise", 0.38),
    "sparse": (":", "law, groups that share nothing", 1.08),
}
# limits of the axes: R over R, and points of accuracy
RATIOS = (0.22, 1.35)
GAINS = {"adamw": (-14.0, 14.0), "muon": (-14.0, 14.0), "sgd": (-38.0, 22.0)}
Cells = list[list[dict[str, Any]]]  # seeds with late examples, by batch size


@styled
def draw(study: dict[str, Any]) -> Figure:
    """Draw the change of R and the gain of accuracy against batch size, for each optimizer.

    Args:
        study: the saved study.
    """
    figure, panels = new_panels(2 * len(FOUND), len(FOUND), height=2.1)
    sizes = np.array([int(size) for size in study["settings"]["batches"]])
    for place, (optimizer, found) in enumerate(FOUND.items()):
        cells = [[seed for seed in study["cells"][f"{optimizer}-{size}"] if seed] for size in sizes]
        above, below = panels[place], panels[place + len(FOUND)]
        _ratios(above, sizes, cells, named=place == 0)
        _gains(below, sizes, cells, named=place == 0)
        above.set_title(f"{NAMES[optimizer]}: {found}")
        below.set_title(f"{NAMES[optimizer]}: accuracy")
        below.set_ylim(GAINS[optimizer])
        for axis in (above, below):
            axis.set(xscale="log", xlabel="batch size (examples)", xlim=(sizes[0] / 1.5, sizes[-1] * 1.5))
            axis.set_xticks(sizes, labels=list(map(str, sizes)))
            axis.minorticks_off()
    return figure


def _ratios(axis: Axes, sizes: np.ndarray, cells: Cells, *, named: bool) -> None:
    """Draw R of late × κ over R of random × κ, measured and by the laws."""
    axis.axhline(1.0, color=GD, linewidth=0.6)
    for law, (line, words, height) in LAWS.items():
        known = [[one["predicted"][law] for one in seeds if one["predicted"][law]] for seeds in cells]
        if all(known):
            values = [np.exp(np.mean(np.log(one))) for one in known]
            axis.plot(sizes, values, line, color=THEORY, linewidth=1.0)
            if named:
                axis.text(sizes[0] / 1.3, height, words, color=THEORY, fontsize=NOTE)
    middle, half = np.array(
        [paired(np.log([one["late"]["R"] / one["random"]["R"] for one in seeds])) for seeds in cells]
    ).T
    ends = [np.exp(middle) - np.exp(middle - half), np.exp(middle + half) - np.exp(middle)]
    axis.errorbar(sizes, np.exp(middle), ends, fmt="o", color=LATE, linewidth=1.0)
    axis.set(yscale="log", ylim=RATIOS, ylabel="R over random's")
    axis.set_yticks([0.25, 0.35, 0.5, 0.7, 1.0], labels=["0.25", "0.35", "0.5", "0.7", "1"])
    axis.minorticks_off()


def _gains(axis: Axes, sizes: np.ndarray, cells: Cells, *, named: bool) -> None:
    """Draw by how many points late × κ is ahead of plain and of random × κ."""
    axis.axhline(0.0, color=GD, linewidth=0.6)
    for other, colour, shift in (("plain", GD, 0.92), ("random", RANDOM, 1.08)):
        gains = [[one["late"]["accuracy"] - one[other]["accuracy"] for one in seeds] for seeds in cells]
        middle, half = 100 * np.array([paired(np.array(each)) for each in gains]).T
        axis.errorbar(sizes * shift, middle, half, fmt="o", color=colour, linewidth=1.0)
        if named:
            words, height = ("over plain", 0.85) if other == "plain" else ("over random × κ", 0.55)
            axis.text(sizes[0], -14.0 * height, words, color=text_colour(colour), fontsize=NOTE)
    axis.set(ylabel="gain (points)")


def _draw_saved(path: Path) -> Figure:
    return draw(json.loads(path.read_text()))


FIGURE = FigureSpec(
    "batch_sizes",
    "Under AdamW, Muon and SGD upsampling the late acts in batches of 8 to 512, not as groups that share nothing would",
    "Decoder of 0.1 M weights on arithmetic, 153 600 examples in every run, eight seeds. Late are the quarter that a "
    "pilot run learns last; they, or as many random ones, are drawn four times as often. a to c: R, the learning step "
    "of the late over that of the early, of late × κ over random × κ. Lines predict it from the pilot run: dashed by "
    "the measured signal and noise of gradients, dotted for groups that share no feature; there is no law for Muon. d "
    "to f: accuracy of late × κ minus that of plain (black) and of random × κ (grey); f has another scale. Dots are "
    "means, bars 95 % intervals over seeds.",
    (),
    partial(_draw_saved, MEASURED / FILE),
    saved=f"{FOLDER}/{FILE}",
)
