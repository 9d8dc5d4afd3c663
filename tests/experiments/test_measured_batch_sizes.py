"""The study of batch sizes: RESULTS.md and the figure are what its saved file holds."""

from pathlib import Path

import numpy as np
import pytest

from experiments.language_models.batch_size_runs import Settings
from experiments.language_models.batch_size_study import load_study, table
from figures import FIGURES
from icl_theory.llm.evaluation.study import paired
from icl_theory.plotting import LATE

FOLDER = Path(__file__).parents[2] / "experiments" / "language_models"
TEXT = (FOLDER / "RESULTS.md").read_text()
STUDY = load_study(FOLDER / "measured" / "batch-sizes-cpu.json", Settings())
CELLS = STUDY["cells"]
WITH_LAW = [name for name in CELLS if not name.startswith("muon")]


def change(name):
    """R of late × κ over random × κ: mean of its logarithm, and half a 95 % interval."""
    return paired(np.log([one["late"]["R"] / one["random"]["R"] for one in CELLS[name]]))


def foretold(which):
    """Cells in whose interval a law lies."""
    found = []
    for name in WITH_LAW:
        middle, half = change(name)
        law = np.mean(np.log([one["predicted"][which] for one in CELLS[name]]))
        if abs(law - middle) <= half:
            found.append(name)
    return found


def gain(name, other):
    """Gain of accuracy of late × κ, and half its interval."""
    return paired(np.array([one["late"]["accuracy"] - one[other]["accuracy"] for one in CELLS[name]]))


def beyond(other, sign=1):
    """Cells in which late × κ is ahead (or behind) beyond its interval."""
    return {name for name in CELLS if (found := gain(name, other))[0] * sign > found[1]}


def test_the_table_is_that_of_the_saved_study():
    assert "\n".join(table(STUDY)) in TEXT
    assert len(CELLS) == 12
    assert all(len(seeds) == 8 and None not in seeds for seeds in CELLS.values())


def test_what_is_said_of_the_order_holds():
    assert all(middle + half < 0 for middle, half in map(change, CELLS))
    assert foretold("noise") == ["adamw-8", "adamw-32", "adamw-128", "sgd-128", "sgd-512"]
    assert foretold("sparse") == []
    assert "five of eight rows: with AdamW at 8, 32 and 128, with SGD at 128 and 512" in TEXT
    assert "in none of\n  eight rows" in TEXT


def test_what_is_said_of_accuracy_holds():
    adamw = {"adamw-8", "adamw-32", "adamw-128"}
    assert beyond("plain") == adamw | {"sgd-32", "sgd-128"}
    assert beyond("random") == adamw | {"sgd-32"}
    assert beyond("plain", -1) == {"muon-512"}
    assert beyond("random", -1) == {"sgd-512"}
    assert {round(100 * gain(name, "plain")[0]) for name in adamw} == {4}
    assert sorted(round(100 * gain(name, "random")[0]) for name in adamw) == [4, 5, 6]
    assert (round(100 * gain("muon-512", "plain")[0]), round(100 * gain("sgd-512", "random")[0])) == (-3, -18)
    kinds = {
        arm: np.array([np.mean([one[arm]["by_kind"] for one in CELLS[name]], axis=0) for name in sorted(adamw)])
        for arm in ("plain", "late")
    }
    ends = [(kinds[arm][:, kind].min(), kinds[arm][:, kind].max()) for kind in (3, 2) for arm in ("late", "plain")]
    several = "{} to {} of cases instead of {} to {}, sums of three digits in {} to {} instead of {} to {}"
    assert f"products are right in {several}".format(*(f"{end:.2f}" for pair in ends for end in pair)) in " ".join(
        TEXT.split()
    )
    accuracy = {arm: [[one[arm]["accuracy"] for one in CELLS[f"sgd-{size}"]] for size in (8, 512)] for arm in kinds}
    first, *others = sorted(accuracy["late"][0])
    assert f"ends at {first:.2f}, the others between {others[0]:.2f} and {others[-1]:.2f}" in TEXT
    ends = [
        value for arm in ("plain", "late", "random") for value in (one[arm]["accuracy"] for one in CELLS["sgd-512"])
    ]
    assert f"runs end between {min(ends):.2f} and {max(ends):.2f}" in TEXT


def test_the_figure_draws_what_was_measured():
    panels = FIGURES["batch_sizes"].draw().axes
    assert len(panels) == 6
    for place, optimizer in enumerate(("adamw", "muon", "sgd")):
        (drawn,) = (line for line in panels[place].get_lines() if line.get_marker() == "o" and line.get_color() == LATE)
        expected = [np.exp(change(f"{optimizer}-{size}")[0]) for size in (8, 32, 128, 512)]
        assert drawn.get_ydata() == pytest.approx(expected)
