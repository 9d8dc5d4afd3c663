"""Studies of language models: losses of early and late examples, accuracies arm by arm, simplicity bias."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.figure import FigureSpec
from icl_theory.llm.evaluation.study import HALF, bias_of, load_study, paired
from icl_theory.llm.optimizers.adamw_muon import OPTIMIZERS
from icl_theory.plotting import FEATURE_COLOURS, GD, new_figure, styled

MEASURED = Path(__file__).parents[1] / "experiments" / "language_models" / "measured"
FOLLOWED = {"plain": GD, "late": FEATURE_COLOURS[1], "random": FEATURE_COLOURS[0], "fsam": FEATURE_COLOURS[2]}
LEAST = 0.001  # smallest share of the first loss that is drawn; shares are saved to 0.0001
NAMES = {"plain": "plain", "late": "late × κ", "random": "random × κ", "early": "early × κ"}
TITLES = {"adamw": "AdamW", "muon": "Muon"}


@styled
def draw(study: dict[str, Any]) -> Figure:
    """Draw a row for each optimizer: trajectories, accuracies, learning-time ratios, progress."""
    optimizers = [optimizer for optimizer in OPTIMIZERS if f"{optimizer} plain" in study["arms"]]
    widths = {"width_ratios": (2.2, 1.6, 1.7, 1.1, 1.1)}
    figure, axes = new_figure(15.0, 4.3 * len(optimizers), len(optimizers), 5, **widths)
    for row, optimizer in zip(axes, optimizers, strict=True):
        arms = {
            name.removeprefix(f"{optimizer} "): arm
            for name, arm in study["arms"].items()
            if name.startswith(f"{optimizer} ")
        }
        _trajectories(row[0], arms, TITLES[optimizer])
        _differences(row[1], arms)
        _kinds(row[2], arms)
        _bias(row[3], row[4], arms)
        for axis in row[1:]:
            axis.set_ylim(len(arms) + 0.6, -0.6)  # room for a legend below
            axis.set_yticks(range(len(arms)), [arm_text(name) for name in arms] if axis is row[1] else [])
    return figure


def arm_text(name: str) -> str:
    """Return the name of an arm for the reader: `f-SAM 0.02, ½ steps` for `fsam 0.02, half the steps`."""
    if name in NAMES:
        return NAMES[name]
    text = name.replace("fsam", "f-SAM").replace(", half the steps", ", ½ steps")
    return text if text.startswith("f-") else text.replace("sam", "SAM")


def _trajectories(axis: Axes, arms: dict[str, Any], title: str) -> None:
    for kind, colour in FOLLOWED.items():
        name = next((name for name in arms if name.split()[0] == kind and "half" not in name), None)
        if name is None:
            continue
        arm = arms[name]
        for group, line in (("early", ":"), ("late", "-")):
            losses = np.array([one for one in arm[group] if one is not None])  # None for a seed without this group
            if not len(losses):
                continue
            middle, half = np.array([paired(one) for one in losses.T]).T
            label = arm_text(name) if group == "late" else None
            axis.plot(arm["steps"], middle, line, color=colour, label=label)
            if kind in ("plain", "late") and group == "late":
                axis.fill_between(arm["steps"], middle - half, middle + half, color=colour, alpha=0.15, linewidth=0)
    axis.plot([], [], "-", color="#999999", label="late examples")
    axis.plot([], [], ":", color="#999999", label="early examples")
    axis.axhline(HALF, color="#999999", linewidth=0.7)
    axis.set(title=title, xlabel="step", ylabel="share of the first loss left", yscale="log")
    low = max(axis.get_ylim()[0], LEAST)
    axis.set_ylim(low, 1.05 * low ** (-1 / 3))  # a quarter of the height for the legend
    ticks = [tick for tick in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1) if tick >= low]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.legend(ncols=2, loc="upper right", fontsize=8.5)


def _differences(axis: Axes, arms: dict[str, Any]) -> None:
    plain = np.array(arms["plain"]["accuracy"])
    for place, (name, arm) in enumerate(arms.items()):
        accuracy = np.array(arm["accuracy"])
        if name == "plain":
            axis.text(0, place, f" {accuracy.mean():.3f}", va="center", fontsize=9)
            continue
        _interval(axis, place, accuracy - plain, GD if name in ("random", "early") else FEATURE_COLOURS[1])
    axis.axvline(0, color="#999999", linewidth=0.8)
    axis.set(title="Accuracy − plain", xlabel="paired by seed, 95 %")


def _kinds(axis: Axes, arms: dict[str, Any]) -> None:
    for index, kind in enumerate(next(iter(arms.values()))["by_kind"]):
        values = [np.mean(arm["by_kind"][kind]) for arm in arms.values()]
        axis.plot(values, range(len(arms)), "o", color=FEATURE_COLOURS[index], markersize=6, label=kind)
    axis.set(title="Accuracy by difficulty", xlabel="mean over seeds", xlim=(-0.04, 1.04))
    axis.legend(ncols=2, loc="lower center", fontsize=8, columnspacing=0.6, handletextpad=0.2, borderaxespad=0.1)


def _bias(left: Axes, right: Axes, arms: dict[str, Any]) -> None:
    for place, arm in enumerate(arms.values()):
        ratios, bounds, progress = bias_of(arm)
        known = np.isfinite(ratios)
        if known.any():
            bound = bool(bounds[known].any())
            _interval(left, place, ratios[known], FEATURE_COLOURS[0], marker=">" if bound else "o")
            _interval(right, place, progress[known], FEATURE_COLOURS[0])
            if not place:  # the plain arm
                for axis, values in ((left, ratios), (right, progress)):
                    axis.axvline(values[known].mean(), color="#999999", linewidth=0.8, linestyle=":")
    left.set(title="$R$, late / early", xlabel="learning steps")
    right.set(title="Progress of late", xlabel="when early learned")


def _interval(axis: Axes, place: int, values: np.ndarray, colour: str, marker: str = "o") -> None:
    """Draw single seeds faintly, and their mean with a 95 % interval."""
    axis.plot(values, np.full(len(values), place + 0.22), "|", color=colour, alpha=0.45, markersize=5)
    middle, half = paired(values)
    axis.errorbar(middle, place, xerr=half, fmt=marker, color=colour, markersize=5.5, capsize=2.5, linewidth=1.4)


def _spec(name: str, file: str, title: str, caption: str) -> FigureSpec:
    return FigureSpec(
        name,
        title,
        caption,
        (),
        partial(_draw_saved, MEASURED / file),
        saved=f"experiments/language_models/measured/{file}",
    )


def _draw_saved(path: Path) -> Figure:
    return draw(load_study(path))


COLUMNS = (
    "Columns, from the left: mean share of the first loss left, late examples solid and early ones dotted (mean over "
    "seeds, 95 % bands of plain and of the rule); accuracy on problems drawn anew minus that of the plain arm, paired "
    "by seed (its own is written); accuracy of each kind of problem; R, the step at which the mean loss of the late "
    "has halved over that of the early; the share of their loss that the late have lost by the latter step. Ticks are "
    "seeds, bars 95 % intervals of single comparisons, triangles lower bounds, dotted lines plain's mean."
)
FIGURE = _spec(
    "arithmetic_study",
    "arithmetic-cpu.json",
    "Claim D in small: a decoder learns easy and hard arithmetic",
    "0.1 million weights from scratch, twelve seeds; make study makes five anew. A pilot run says who is late. "
    "Upsampling them lowers R and gains accuracy, over random copies too; upsampling the early does the opposite. "
    "Functional SAM (f-SAM) lowers R "
    "and, with AdamW, gains; SAM does neither beyond its interval, and at half the steps both are behind. " + COLUMNS,
)
LARGER = _spec(
    "arithmetic_study_larger",
    "arithmetic-h200.json",
    "Claim D in small, with eight times the weights",
    "0.8 million weights, eight seeds, on a GPU, from a start of one deviation whatever the width. Who is late was "
    "picked by the plain run itself here, whose luck makes its R too high: compare the upsampled arms with random × "
    "κ; SAM and plain share that luck. SAM at ρ = 0.1 raises R with Muon. Columns as before.",
)
CHECKPOINT_SUMS = _spec(
    "checkpoint_sums",
    "checkpoint-sums-cpu.json",
    "Claim D on a pretrained model: SmolLM2-135M learns sums",
    "24 steps of AdamW, 16 of Muon, three seeds, 240 problems to train on, 146 others asked, on two cores. No gain of "
    "the rule or of SAM is shown in so short a training; SAM and functional SAM learn less, beyond the interval with "
    "Muon and at half the steps. Plain halves the loss of both groups by the second record: R says how far they are "
    "by then. Columns as before.",
)
CHECKPOINT_WORDS = _spec(
    "checkpoint_words",
    "checkpoint-words-h200.json",
    "Claim D on a pretrained model: SmolLM2-135M learns word problems",
    "64 steps of AdamW, 32 of Muon, eight seeds, 480 problems to train on, 240 others asked, on a GPU. Only questions "
    "of relations are learned, of which 84 % differ from one of training in names alone; legs and grade school stay "
    "out of reach. No arm gains accuracy beyond its interval; with Muon SAM and functional SAM lose some, and at half "
    "the steps both do with either optimizer. R lies before the first record: it says how far both groups are by "
    "then. Columns as before.",
)
