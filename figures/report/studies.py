"""Claim D: gains of accuracy in the saved studies of language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from figures.report.effects import Effect, gain
from icl_theory.llm.evaluation.study import load_study

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "experiments" / "language_models" / "measured"
FILES = ("arithmetic-cpu", "arithmetic-h200", "checkpoint-sums-cpu", "checkpoint-words-h200")
HALF = ", half the steps"  # how the names of arms at equal compute end
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}
Studies = dict[str, dict[str, Any]]


class Setting(NamedTuple):
    """Model and test on which a gain was looked for.

    Attributes:
        place: model and test as words of a sentence, such as "at 0.8 M weights".
        parts: file and measured quantity of each of its studies.
    """

    place: str
    parts: tuple[tuple[str, str], ...]


SETTINGS = (
    Setting("in a decoder of 0.1 M weights", (("arithmetic-cpu", "accuracy"),)),
    Setting("on its unseen problems alone", (("arithmetic-cpu", "unseen"),)),
    Setting("at 0.8 M weights", (("arithmetic-h200", "accuracy"),)),
    Setting("on SmolLM2-135M", (("checkpoint-sums-cpu", "accuracy"), ("checkpoint-words-h200", "accuracy"))),
)
ROWS = {
    "0.1 M weights": ("arithmetic-cpu", "accuracy"),
    "0.1 M weights, unseen problems": ("arithmetic-cpu", "unseen"),
    "0.8 M weights": ("arithmetic-h200", "accuracy"),
    "SmolLM2-135M, sums": ("checkpoint-sums-cpu", "accuracy"),
    "SmolLM2-135M, word problems": ("checkpoint-words-h200", "accuracy"),
}
COMPARED = {
    "late × κ": ("late", "plain"),
    "late over random × κ": ("late", "random"),
    "SAM": ("sam", "plain"),
    "functional SAM": ("fsam", "plain"),
}


def load_studies() -> Studies:
    """Load the saved studies by the name of their file."""
    return {name: load_study(MEASURED / f"{name}.json") for name in FILES}


def gains(studies: Studies, setting: Setting) -> list[Effect]:
    """Return the gains of upsampling late over plain training in one setting, for each study and optimizer."""
    return [
        gain(studies[name], f"{optimizer} late", measured=measured)
        for name, measured in setting.parts
        for optimizer in OPTIMIZERS
    ]


class Line(NamedTuple):
    """One line of the table of gains.

    Attributes:
        where: study and optimizer.
        seeds: number of paired seeds.
        plain: accuracy of plain training.
        gains: for each of `COMPARED` its gains by ρ as text, such as `0.02`; without a ρ the text is empty.
    """

    where: str
    seeds: int
    plain: float
    gains: list[dict[str, Effect]]


def table(studies: Studies) -> list[Line]:
    """Return the gains in accuracy by setting and optimizer, all at equal steps."""
    return [
        _line(f"{where}, {title}", studies[name], optimizer, measured)
        for where, (name, measured) in ROWS.items()
        for optimizer, title in OPTIMIZERS.items()
    ]


def column(lines: list[Line], heading: str) -> list[Effect]:
    """Return all gains of a column of the table, for each line and each ρ."""
    place = list(COMPARED).index(heading)
    return [effect for line in lines for effect in line.gains[place].values()]


def half_the_steps(studies: Studies) -> dict[str, list[Effect]]:
    """Return the gains of SAM and functional SAM over plain training at equal compute, half of the steps, by file."""
    return {name: [gain(study, arm) for arm in study["arms"] if arm.endswith(HALF)] for name, study in studies.items()}


def _line(where: str, study: dict[str, Any], optimizer: str, measured: str) -> Line:
    arms = study["arms"]
    plain = arms[f"{optimizer} plain"][measured]
    found = [
        {" ".join(name.split()[2:]): gain(study, name, other, measured) for name in _arms(arms, optimizer, arm)}
        for arm, other in COMPARED.values()
    ]
    return Line(where, len(plain), float(np.mean(plain)), found)


def _arms(arms: dict[str, Any], optimizer: str, kind: str) -> list[str]:
    """Return the full names of the arms of a kind that take all steps, one for each ρ."""
    return [name for name in arms if name.split()[:2] == [optimizer, kind] and not name.endswith(HALF)]
