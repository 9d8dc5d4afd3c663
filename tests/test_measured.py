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
)
RHO = {"arithmetic-cpu": "0.02", "arithmetic-h200": "0.02"}
STUDIES = {name: load_study(ROOT / "experiments" / "measured" / f"{name}.json")["arms"] for name in RHO}


def arm(study, optimizer, name):
    return STUDIES[study][f"{optimizer} {name.replace('RHO', RHO[study])}"]


def cell(study, optimizer, name, other="plain"):
    """Accuracy of plain, and of the others the difference from it, paired by seed."""
    accuracy = np.array(arm(study, optimizer, name)["accuracy"])
    if name == "plain":
        return f"{accuracy.mean():.3f}"
    return difference(accuracy - np.array(arm(study, optimizer, other)["accuracy"]))


def difference(values):
    mean, half = paired(values)
    return f"{mean:+.3f} ± {half:.3f}".replace("-", "−")


def other_cell(study, optimizer, name, measured, other="plain"):
    """`cell` of accuracy on problems that do not occur in training, or of mean loss, where that was measured."""
    values = [arm(study, optimizer, one).get(measured) for one in (name, other)]
    if values[0] is None:
        return "–"
    if name == "plain":
        return f"{np.mean(values[0]):.3f}"
    return difference(np.subtract(*values))


def bias(study, optimizer, name, other):
    """R of an arm over that of another of the same seed, geometric mean and interval."""
    ratios = [bias_of(arm(study, optimizer, one))[0] for one in (name, other)]
    mean, half = paired(np.log(ratios[0] / ratios[1]))
    return f"{np.exp(mean):.2f} ({np.exp(mean - half):.2f}–{np.exp(mean + half):.2f})"


ARMS = (
    "plain",
    "late",
    "random",
    "early",
    "sam RHO",
    "fsam RHO",
    "sam RHO, half the steps",
    "fsam RHO, half the steps",
)
BIASES = {"late": "random", "early": "random", "sam RHO": "plain", "fsam RHO": "plain"}


def lines():
    for name in ARMS:
        yield row(arm_text(name), (cell(*column, name) for column in COLUMNS))
    yield row("late × κ, minus random × κ", (cell(*column, "late", "random") for column in COLUMNS))
    for name in ("plain", "late", "random", "early"):
        yield row(f"{arm_text(name)}, unseen problems", (other_cell(*column, name, "unseen") for column in COLUMNS))
    for name in ("plain", "late", "random", "sam RHO", "fsam RHO"):
        yield row(f"{arm_text(name)}, mean loss", (other_cell(*column, name, "loss") for column in COLUMNS))
    yield row(
        "late × κ, minus random × κ, mean loss", (other_cell(*column, "late", "loss", "random") for column in COLUMNS)
    )
    for name, other in BIASES.items():
        yield row(f"*R* of {arm_text(name)}, over {other}'s", (bias(*column, name, other) for column in COLUMNS))


def row(text, cells):
    return f"| {text.replace(' RHO', '')} | " + " | ".join(cells) + " |"


@pytest.mark.parametrize("line", list(lines()))
def test_the_table_of_the_studies_is_what_was_measured(line):
    assert line in README


def gain(optimizer, name, other="plain", measured="accuracy", seeds=slice(None)):
    """Over another arm, paired by seed: mean and half an interval."""
    arms = [np.array(arm("arithmetic-cpu", optimizer, one)[measured]) for one in (name, other)]
    return paired((arms[0] - arms[1])[seeds])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_rule_gains_at_this_size(optimizer):
    """Over plain and over random copies, in accuracy and in loss, each beyond its interval; the early lose."""
    for other in ("plain", "random"):
        mean, half = gain(optimizer, "late", other)
        assert mean > half
        mean, half = gain(optimizer, "late", other, "loss")
        assert mean < -half
    mean, half = gain(optimizer, "early")
    assert mean < -half


def test_what_is_said_of_seeds_and_kinds_is_what_was_measured():
    said = " ".join(README.split())
    fresh = [
        "{:+.3f} ± {:.3f}".format(*gain(optimizer, "late", seeds=slice(5, None))) for optimizer in ("adamw", "muon")
    ]
    assert f"{fresh[0]} (AdamW) and {fresh[1]} (Muon)" in said
    kinds = {
        (optimizer, name, kind): f"{np.mean(values):.2f}"
        for optimizer in ("adamw", "muon")
        for name in ("plain", "late")
        for kind, values in arm("arithmetic-cpu", optimizer, name)["by_kind"].items()
    }
    for words, kind in (
        ("products are right in {} and {} of cases instead of {} and {}", "product"),
        ("sums of three digits in {} and {} instead of {} and {}", "abc+def"),
    ):
        assert (
            words.format(
                *(kinds[optimizer, name, kind] for name in ("late", "plain") for optimizer in ("adamw", "muon"))
            )
            in said
        )


def test_what_is_said_of_the_checkpoint_is_what_was_measured():
    study = load_study(ROOT / "experiments" / "measured" / "checkpoint-cpu.json")
    accuracy = {name.removeprefix("adamw "): np.array(found["accuracy"]) for name, found in study["arms"].items()}
    said = " ".join(README.split())
    said = said[said.index("On a pretrained model") : said.index("A first run was withdrawn")]

    assert f"plain ends at {accuracy['plain'].mean():.3f}" in said
    for name, words in {"late": "late × κ ", "random": "random × κ ", "early": "early × κ "}.items():
        assert words + difference(accuracy[name] - accuracy["plain"]) in said
    for words, end in (("at equal steps", ""), ("at equal compute", ", half the steps")):
        pair = [difference(accuracy[f"{name} 0.05{end}"] - accuracy["plain"]) for name in ("sam", "fsam")]
        assert f"{pair[0]} and{'' if end else ' functional SAM'} {pair[1]} {words}" in said
    asked = [n for n in range(1, 301) if all(np.allclose(n * a, np.rint(n * a), atol=1e-6) for a in accuracy.values())]
    assert f"asked {asked[0]} problems" in said


if __name__ == "__main__":
    print("\n".join(lines()))
