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
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}
Studies = dict[str, dict[str, Any]]


class Setting(NamedTuple):
    """Where a gain was looked for.

    Attributes:
        place: the same as words of a sentence, such as "at 0.8 M weights".
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
    """One line of the table of gains: where, number of seeds, plain accuracy, one gain for each of `COMPARED`."""

    where: str
    seeds: int
    plain: float
    gains: list[Effect]


def table(studies: Studies) -> list[Line]:
    """Return the gains in accuracy by setting and optimizer, all at equal steps."""
    return [
        _line(f"{where}, {title}", studies[name], optimizer, measured)
        for where, (name, measured) in ROWS.items()
        for optimizer, title in OPTIMIZERS.items()
    ]


def _line(where: str, study: dict[str, Any], optimizer: str, measured: str) -> Line:
    arms = study["arms"]
    plain = arms[f"{optimizer} plain"][measured]
    found = [
        gain(study, _arm(arms, optimizer, arm), other=other, measured=measured) for arm, other in COMPARED.values()
    ]
    return Line(where, len(plain), float(np.mean(plain)), found)


def _arm(arms: dict[str, Any], optimizer: str, kind: str) -> str:
    """Return the full name of an arm, that of its first ρ."""
    return next(name for name in arms if name.split()[:2] == [optimizer, kind] and "half" not in name)
