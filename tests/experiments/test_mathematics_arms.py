"""The arms of the study of mathematical problems: who is late, and how often each example is drawn."""

import numpy as np
import pytest

from experiments.language_models.mathematics_arms import NAMES, arms, find, mixed, recipe_steps, with_fresh
from experiments.language_models.packed_trainer import record_steps

COUNT = 60
KINDS = [f"k {place % 3}" for place in range(COUNT)]
FRESH = [f"k {place % 3}" for place in range(2 * COUNT)]
STEPS = np.array(sorted({0, *record_steps(480, 12), *recipe_steps(480)}))


@pytest.fixture(scope="module")
def found():
    """A pilot run whose second half is learned three times as slowly."""
    pace = np.where(np.arange(COUNT) < 30, 40.0, 120.0) * (1 + np.arange(COUNT) / 1000)
    sources = ["big"] * 25 + ["small"] * 5 + ["big"] * 30
    return find(STEPS, np.exp(-STEPS[:, None] / pace), sources, 0.5)


@pytest.fixture(scope="module")
def made(found):
    return arms(found, KINDS, FRESH, draws=4800, seed=0)


def share(rows, group):
    """Share of the draws of a set that fall into a group."""
    return np.isin(rows, np.flatnonzero(group)).mean()


def test_the_pilot_run_says_who_is_late_by_both_rules(found):
    assert found.rule.late.tolist() == [False] * 30 + [True] * 30
    assert 2.9 < found.rule.factor <= 3.0
    assert found.recipe.factor == 2.0
    assert found.recipe.late[25:30].all()  # the small source
    assert found.recipe.late[30:].all()
    assert not found.recipe.late[:25].any()


def test_arms_have_the_names_of_the_protocol(made):
    assert tuple(made) == NAMES
    assert {name for name, arm in made.items() if arm.sharpness != "none"} == {"fsam", "fsam, half the steps"}
    assert made["fsam, half the steps"].length == 0.5
    size = len(made["recipe"].course.indices) / COUNT
    assert made["recipe, equal epochs"].length == made["plain, longer"].length == size == 95 / 60


def test_late_and_controls_are_copied_as_often(found, made):
    late, random, early = (made[name].course.indices for name in ("late", "random", "early"))
    assert len(late) == len(random) == len(early)
    factor = found.rule.factor
    assert share(late, found.rule.late) == pytest.approx(factor / (1 + factor), abs=0.01)
    assert share(early, found.rule.late) == pytest.approx(1 / (1 + factor), abs=0.01)
    assert len(made["recipe"].course.indices) == len(made["recipe, random"].course.indices)


def test_halves_draw_the_late_as_often_as_the_late_arm(found, made):
    whole = share(made["late"].course.indices, found.rule.late)
    first, second = (made[f"late, {half} half"].course for half in ("first", "second"))
    for course, moved, plain in ((first, first.indices, first.later), (second, second.later, second.indices)):
        assert len(moved) == 2400
        assert (share(moved, found.rule.late) + share(plain, found.rule.late)) / 2 == pytest.approx(whole, abs=0.005)
        counts = np.bincount(course.indices if moved is course.indices else course.later, minlength=COUNT)[30:]
        assert np.ptp(counts) <= 1


def test_weights_draw_alike_and_weigh_the_late(found, made):
    course = made["late, by weight"].course
    assert course.indices.tolist() == course.later.tolist() == list(range(COUNT))
    assert course.weights[:30].tolist() == [1.0] * 30
    assert course.weights[30:COUNT].tolist() == [found.rule.factor] * 30


@pytest.mark.parametrize("name", ["late", "random"])
def test_fresh_examples_take_the_place_of_copies(made, name):
    copied, fresh = made[name].course.indices, made[f"fresh {name}"].course.indices
    assert len(copied) == len(fresh) == len(set(fresh.tolist()))
    assert set(range(COUNT)) <= set(fresh.tolist())
    kinds = [*KINDS, *FRESH]
    assert sorted(kinds[row] for row in fresh) == sorted(kinds[row] for row in copied)


def test_copies_without_fresh_examples_left():
    with pytest.raises(IndexError):
        with_fresh(np.array([0, 0, 0]), ["a"], ["a"])


def test_a_phase_may_be_of_late_examples_alone():
    rows = mixed(np.array([4, 5]), np.array([0, 1]), 1.2, 6, 0)
    assert sorted(rows) == [4, 4, 4, 5, 5, 5]
