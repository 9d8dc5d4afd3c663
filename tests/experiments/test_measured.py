"""Results on language models are what the saved studies hold."""

from pathlib import Path

import numpy as np
import pytest

from figures import FIGURES
from figures.language_models import arm_text, bias_of
from icl_theory.llm.evaluation.study import HALF, load_study, paired
from icl_theory.plotting import EARLY, FUNCTIONAL_SAM, LATE, RANDOM, SAM

ROOT = Path(__file__).parents[2]
README = (ROOT / "experiments" / "language_models" / "RESULTS.md").read_text()
RHO = {
    "arithmetic-cpu": "0.02",
    "arithmetic-h200": "0.02",
    "checkpoint-sums-cpu": "0.05",
    "checkpoint-words-h200": "0.05",
}
COLUMNS = [(study, optimizer) for study in RHO for optimizer in ("adamw", "muon")]
SMALL, CHECKPOINT = COLUMNS[:4], COLUMNS[4:]  # of the two tables
STUDIES = {
    name: load_study(ROOT / "experiments" / "language_models" / "measured" / f"{name}.json")["arms"] for name in RHO
}


def arm(study, optimizer, name):
    return STUDIES[study][f"{optimizer} {name.replace('RHO', RHO[study])}"]


def against(column, name, other="plain", measured="accuracy", seeds=slice(None)):
    """By how much an arm exceeds another, paired by seed: mean and half a 95 % interval."""
    return paired(np.subtract(*(arm(*column, one)[measured] for one in (name, other)))[seeds])


def cell(column, name, measured="accuracy", other="plain"):
    """Plain as it is, the others against another arm; a dash where it was not measured."""
    values = arm(*column, name).get(measured)
    if values is None:
        return "–"
    if name == "plain":
        return f"{np.mean(values):.3f}"
    return "{:+.3f} ± {:.3f}".format(*against(column, name, other, measured)).replace("-", "−")


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


def lines(columns):
    for name in ARMS:
        yield row(arm_text(name), (cell(column, name) for column in columns))
    yield row("late × κ, minus random × κ", (cell(column, "late", other="random") for column in columns))
    for name in ("plain", "late", "random", "early") if columns == SMALL else ():  # the others ask unseen ones alone
        yield row(f"{arm_text(name)}, unseen problems", (cell(column, name, "unseen") for column in columns))
    for name in ("plain", "late", "random", "sam RHO", "fsam RHO"):
        yield row(f"{arm_text(name)}, mean loss", (cell(column, name, "loss") for column in columns))
    yield row("late × κ, minus random × κ, mean loss", (cell(column, "late", "loss", "random") for column in columns))
    if columns == CHECKPOINT:
        yield row("late × κ, minus early × κ", (cell(column, "late", other="early") for column in columns))
        return  # R is no learning time there
    for name, other in BIASES.items():
        yield row(f"*R* of {arm_text(name)}, over {other}'s", (bias(*column, name, other) for column in columns))


def row(text, cells):
    return f"| {text.replace(' RHO', '')} | " + " | ".join(cells) + " |"


@pytest.mark.parametrize("line", [*lines(SMALL), *lines(CHECKPOINT)])
def test_the_table_of_the_studies_is_what_was_measured(line):
    assert line in README


@pytest.mark.parametrize("column", SMALL[:2])
def test_the_rule_gains_at_this_size(column):
    """Over plain and over random copies, in accuracy and in loss, each beyond its interval; the early lose."""
    for other in ("plain", "random"):
        mean, half = against(column, "late", other)
        assert mean > half
        mean, half = against(column, "late", other, "loss")
        assert mean < -half
    mean, half = against(column, "early")
    assert mean < -half


def test_what_is_said_of_seeds_and_kinds_is_what_was_measured():
    said = " ".join(README.split())
    fresh = ["{:+.3f} ± {:.3f}".format(*against(column, "late", seeds=slice(5, None))) for column in SMALL[:2]]
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


SUMS_ADAMW, SUMS_MUON, WORDS_ADAMW, WORDS_MUON = CHECKPOINT


@pytest.mark.parametrize("column", CHECKPOINT)
def test_no_gain_is_shown_on_the_checkpoint(column):
    """The rule lies within its interval of plain and of random copies; no arm is ahead but one, in loss."""
    for other in ("plain", "random"):
        mean, half = against(column, "late", other)
        assert abs(mean) < half
    ahead = []
    for name in ARMS[1:]:
        mean, half = against(column, name)
        assert mean < half
        mean, half = against(column, name, measured="loss")
        ahead += [name] if mean < -half else []
    assert ahead == (["random"] if column == SUMS_ADAMW else [])


def test_what_the_checkpoint_excludes():
    """On sums a gain of five points is within the interval; with Muon on words the early are ahead of the late."""
    for column in (SUMS_ADAMW, SUMS_MUON):
        assert sum(against(column, "late")) > 0.05
    mean, half = against(WORDS_MUON, "late", "early")
    assert mean < -half
    mean, half = against(WORDS_MUON, "late", measured="loss")
    assert mean > half


def test_sam_is_behind_on_the_checkpoint():
    """With Muon at equal steps, at equal compute everywhere; with AdamW on words SAM in loss alone, functional SAM is
    level.
    """
    for column in CHECKPOINT:
        for name in ARMS[6:] if column[1] == "adamw" else ARMS[4:]:
            mean, half = against(column, name)
            assert mean < -half
    for column in (SUMS_ADAMW, WORDS_ADAMW):
        for name in ARMS[4:6]:
            mean, half = against(column, name)
            assert abs(mean) < half
    mean, half = against(WORDS_ADAMW, "sam RHO", measured="loss")
    assert mean > half
    mean, half = against(WORDS_ADAMW, "fsam RHO", measured="loss")
    assert abs(mean) < half


def test_what_is_said_of_the_checkpoint_is_what_was_measured():
    said = " ".join(README.split())
    said = said[said.index("A pretrained model, SmolLM2") :]
    saved = {
        name: load_study(ROOT / "experiments" / "language_models" / "measured" / f"{name}.json")
        for name, _ in CHECKPOINT
    }
    sums, words = saved.values()
    assert not any(np.any(study["before"]["accuracy"]) for study in (sums, words))
    losses = [f"{np.mean(study['before']['loss']):.1f}" for study in (words, sums)]
    assert "{} before training on words and {} on sums".format(*losses) in said
    right = [f"{np.mean(study['before']['by_template']['all']):.3f}" for study in (sums, words)]
    assert f"it solves {right[0]} of the sums and {right[1]} of the word problems" in said
    for study, seeds, text in (
        (sums, "three", "{} to train on, {} steps of AdamW or {} of Muon, {} seeds"),
        (words, "eight", "{} to train on, {} steps or {}, {} seeds"),
    ):
        settings = study["settings"]
        assert settings["seeds"] == {"three": 3, "eight": 8}[seeds]
        assert text.format(settings["train"], settings["adamw_steps"], settings["muon_steps"], seeds) in said
        assert (settings["batch_size"], settings["rhos"]) == (16, [0.05])
        assert (settings["adamw_rate"], settings["muon_rate"]) == (1e-4, 2e-4)
    epochs = {
        (name, optimizer): study["settings"][f"{optimizer}_steps"] * 16 / study["settings"]["train"]
        for name, study in saved.items()
        for optimizer in ("adamw", "muon")
    }
    passes = [f"{epochs[column]:.1f}" for column in (SUMS_ADAMW, WORDS_ADAMW, SUMS_MUON)]
    assert "AdamW passes {} times through the sums and {} through the words, Muon {}.".format(*passes) in said
    assert epochs[SUMS_MUON] == epochs[WORDS_MUON]
    for study, text in ((sums, "{} problems are asked"), (words, "or {} of")):
        counts = [n for n in range(1, 301) if all(_whole(n * np.array(a["accuracy"])) for a in study["arms"].values())]
        assert text.format(counts[0]) in said
    factors = [np.concatenate([one["factors"] for one in study["arms"].values()]) for study in (sums, words)]
    ends = [f"{end:.1f}" for one in factors for end in (one.min(), one.max())]
    assert "{} to {} on sums, {} to {} on words".format(*ends) in said
    kinds = [words["arms"][f"{optimizer} plain"]["by_kind"] for optimizer in ("adamw", "muon")]
    for kind, text in {
        "relations": "relations are learned ({} with AdamW, {} with Muon)",
        "legs": "legs of animals ({}, {})",
        "grade school": "grade school ({}, {})",
    }.items():
        assert text.format(*(f"{np.mean(one[kind]):.3f}" for one in kinds)) in said
    assert max(np.mean(one["by_kind"][kind]) for one in words["arms"].values() for kind in list(kinds[0])[1:]) < 0.1
    for study, record in ((sums, 2), (words, 1)):  # by which plain has halved the loss of both groups
        for optimizer in ("adamw", "muon"):
            groups = (study["arms"][f"{optimizer} plain"][name] for name in ("early", "late"))
            assert max(losses[record] for group in groups for losses in group) <= HALF


COLOURS = {"late": LATE, "random": RANDOM, "early": EARLY, "sam": SAM, "fsam": FUNCTIONAL_SAM}


def test_the_figure_draws_what_was_measured():
    """The means of every arm in its colour, and R that is a lower bound as an arrow without an interval."""
    gains, ratios = FIGURES["language_models"].draw().axes
    for kind, colour in COLOURS.items():
        marks = [line for line in gains.lines if line.get_marker() == "o" and line.get_color() == colour]
        drawn = np.concatenate([line.get_xdata() for line in marks])
        expected = [
            against((study, optimizer), name.partition(" ")[2])[0]
            for study, optimizer in COLUMNS
            for name in STUDIES[study]
            if name.split()[:2] == [optimizer, kind]
        ]
        np.testing.assert_allclose(np.sort(drawn), np.sort(expected), atol=1e-12)
    bounds = [line for line in ratios.lines if line.get_marker() == ">" and len(line.get_xdata())]
    assert {line.get_color() for line in bounds} == {SAM, FUNCTIONAL_SAM}
    for line in bounds:  # sums, Muon, half the steps
        (place,) = line.get_ydata()
        ends = [one.get_xdata()[one.get_ydata() == place] for one in ratios.lines if one.get_label() != "_seeds"]
        assert np.isnan(np.concatenate(ends)).sum() == 2


def test_the_figure_of_kinds_draws_what_was_measured():
    """Mean changes on products, late, random and early, in the lowest row of each panel."""
    panels = FIGURES["language_models_details"].draw().axes
    for axis, optimizer in zip(panels, ("adamw", "muon"), strict=True):
        for kind in ("late", "random", "early"):
            own, plain = (arm("arithmetic-cpu", optimizer, name)["by_kind"]["product"] for name in (kind, "plain"))
            (dots,) = (one for one in axis.lines if one.get_marker() == "o" and one.get_color() == COLOURS[kind])
            assert dots.get_xdata()[np.argmax(dots.get_ydata())] == pytest.approx(np.mean(np.subtract(own, plain)))


def _whole(values):
    return np.allclose(values, np.rint(values), atol=1e-6)


if __name__ == "__main__":
    print("\n".join([*lines(SMALL), "", *lines(CHECKPOINT)]))
