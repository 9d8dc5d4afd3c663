"""What README says of the saved studies is what they hold."""

from pathlib import Path

import numpy as np
import pytest

from experiments.study import load_study, paired
from figures.language_models import arm_text, bias_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COLUMNS = (
    ("arithmetic-cpu", "adamw"),
    ("arithmetic-cpu", "muon"),
    ("arithmetic-h200", "adamw"),
    ("arithmetic-h200", "muon"),
    ("checkpoint-h200", "adamw"),
)
RHO = {"arithmetic-cpu": "0.02", "arithmetic-h200": "0.02", "checkpoint-h200": "0.05"}
STUDIES = {name: load_study(ROOT / "experiments" / "measured" / f"{name}.json")["arms"] for name in RHO}


def arm(study, optimizer, name):
    return STUDIES[study][f"{optimizer} {name.replace('RHO', RHO[study])}"]


def cell(study, optimizer, name, other="plain"):
    """Accuracy of plain, and of the others the difference from it, paired by seed."""
    accuracy = np.array(arm(study, optimizer, name)["accuracy"])
    if name == "plain":
        return f"{accuracy.mean():.3f}"
    mean, half = paired(accuracy - np.array(arm(study, optimizer, other)["accuracy"]))
    return f"{mean:+.3f} ± {half:.3f}".replace("-", "−")


def bias(study, optimizer, name):
    """R of an arm over R of the random control of the same seed, geometric mean and interval."""
    ratios = [bias_of(arm(study, optimizer, one))[0] for one in (name, "random")]
    mean, half = paired(np.log(ratios[0] / ratios[1]))
    return f"{np.exp(mean):.2f} ({np.exp(mean - half):.2f}–{np.exp(mean + half):.2f})"


ROWS = {
    "plain": cell,
    "late": cell,
    "random": cell,
    "early": cell,
    "sam RHO": cell,
    "fsam RHO": cell,
    "sam RHO, half the steps": cell,
    "fsam RHO, half the steps": cell,
}


def lines():
    for name, of in ROWS.items():
        text = arm_text(name).replace(" RHO", "")
        yield f"| {text} | " + " | ".join(of(*column, name) for column in COLUMNS) + " |"
    yield "| late × κ, minus random × κ | " + " | ".join(cell(*column, "late", "random") for column in COLUMNS) + " |"
    for name in ("late", "early", "sam RHO", "fsam RHO"):
        text = arm_text(name).replace(" RHO", "")
        yield f"| *R* of {text}, over random's | " + " | ".join(bias(*column, name) for column in COLUMNS) + " |"


@pytest.mark.parametrize("line", list(lines()))
def test_the_table_of_the_studies_is_what_was_measured(line):
    assert line in README


if __name__ == "__main__":
    print("\n".join(lines()))
