"""The arms of the study of mathematical problems: what each is trained on, in order of importance (PROTOCOL.md).

The late are found in a pilot run of the same seed, in an order of its own. They are those of our rule (κ at most
`MOST`), or of the published recipe (taken twice).

Three arms part how upsampling helps. `late, first half` and `late, second half` draw the late as often as `late` does,
but within one half of the steps: only the first can change who is learned first. `late, by weight` draws every example
alike, and gives the late κ times the weight in the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import icl_theory as icl
from experiments.language_models.packed_trainer import Course
from icl_theory.upsampling.settings import RECIPES

MOST = 3.0  # largest κ of the rule: with half of the examples late, one half of the steps can hold all extra draws
RECIPE_RECORDS = 6  # checkpoints whose ratios the recipe reads
RECIPE_SPACING = 48  # one of them every 1/48 of the run, as in the published runs
PLAIN = "plain"
NAMES = (
    PLAIN,
    "late",
    "random",
    "recipe",
    "recipe, random",
    "fresh late",
    "plain, longer",
    "recipe, equal epochs",
    "late, first half",
    "late, second half",
    "late, by weight",
    "fresh random",
    "early",
    "fsam",
    "fsam, half the steps",
)
APART = 10_000  # between the seeds of the two random groups


class Arm(NamedTuple):
    """One way to train a seed.

    Attributes:
        course: what is trained on.
        length: steps as a multiple of those of the plain arm.
        sharpness: "none" or "fsam".
    """

    course: Course
    length: float = 1.0
    sharpness: str = "none"


class Found(NamedTuple):
    """Findings of the pilot run of one seed.

    Attributes:
        rule: the late by our rule.
        recipe: the late by the published recipe.
    """

    rule: icl.Upsampling
    recipe: icl.Upsampling


def recipe_steps(num_steps: int) -> list[int]:
    """Return the steps at which the recipe reads losses."""
    return [round(num_steps * place / RECIPE_SPACING) for place in range(1, RECIPE_RECORDS + 1)]


def find(steps: np.ndarray, losses: np.ndarray, sources: Sequence[str], remaining: float) -> Found:
    """Find the late of a pilot run.

    Args:
        steps: (T,) steps of its records, those of `recipe_steps` among them.
        losses: (T, P) losses.
        sources: (P,) source of each example.
        remaining: share of its first loss at which our rule counts an example as learned.
    """
    at = np.searchsorted(steps, recipe_steps(int(steps[-1])))
    record = icl.LossRecord(steps[at], losses[at], gaps=True)
    published: Any = RECIPES["vattheuer2025"]
    return Found(
        icl.upsample(icl.LossRecord(steps, losses), remaining=remaining, max_factor=MOST),
        icl.upsample(record, by=np.array(sources), **published),
    )


def arms(found: Found, kinds: Sequence[str], fresh: Sequence[str], draws: int, seed: int) -> dict[str, Arm]:
    """Return the arms of one seed by name.

    Args:
        found: what its pilot run says.
        kinds: (P,) kind of each training example.
        fresh: kinds of the fresh examples, which have the numbers P, P + 1, ….
        draws: examples drawn in a run of the plain arm's length.
        seed: seed of the random groups.
    """
    count = len(kinds)
    whole = np.arange(count)
    rule, recipe = found.rule, found.recipe
    late, early = np.flatnonzero(rule.late), np.flatnonzero(~rule.late)
    share = rule.factor * len(late) / (rule.factor * len(late) + len(early))  # of the draws, in the arm `late`
    moved = mixed(late, early, 2 * share - len(late) / count, draws // 2, seed)
    weights = np.ones(count + len(fresh))
    weights[late] = rule.factor
    sets = {
        "late": copies(rule.late, rule.factor, seed),
        "random": copies(icl.random_group(rule.late, seed=seed), rule.factor, seed),
        "recipe": copies(recipe.late, recipe.factor, seed),
        "recipe, random": copies(icl.random_group(recipe.late, seed=seed + APART), recipe.factor, seed),
    }
    sets |= {f"fresh {name}": with_fresh(sets[name], kinds, fresh) for name in ("late", "random")}
    plain = steady(whole)
    longer = len(sets["recipe"]) / count
    made = {
        PLAIN: Arm(plain),
        **{name: Arm(steady(rows)) for name, rows in sets.items()},
        "late, first half": Arm(Course(moved, whole)),
        "late, second half": Arm(Course(whole, moved)),
        "late, by weight": Arm(Course(whole, whole, weights)),
        "plain, longer": Arm(plain, longer),
        "recipe, equal epochs": Arm(steady(sets["recipe"]), longer),
        "early": Arm(steady(copies(icl.early_group(rule.times, rule.late), rule.factor, seed))),
        "fsam": Arm(plain, sharpness="fsam"),
        "fsam, half the steps": Arm(plain, 0.5, "fsam"),
    }
    return {name: made[name] for name in NAMES}


def steady(rows: np.ndarray) -> Course:
    """Return a course with one set throughout."""
    return Course(rows, rows)


def copies(chosen: np.ndarray, factor: float, seed: int) -> np.ndarray:
    """Return the rows of a set in which the chosen examples occur `factor` times on average."""
    return np.repeat(np.arange(len(chosen)), icl.example_copies(chosen, factor, seed=seed))


def mixed(late: np.ndarray, early: np.ndarray, share: float, count: int, seed: int) -> np.ndarray:
    """Return `count` rows of which a share is late; all late occur equally often (± 1), and all early."""
    random = np.random.default_rng([19, seed])
    number = round(min(share, 1.0) * count) if len(early) else count
    parts = [np.resize(random.permutation(rows), size) for rows, size in ((late, number), (early, count - number))]
    return np.concatenate(parts)


def with_fresh(rows: np.ndarray, kinds: Sequence[str], fresh: Sequence[str]) -> np.ndarray:
    """Replace each copy beyond the first by a fresh example of the same kind, each used once.

    Args:
        rows: a set with copies next to each other.
        kinds: (P,) kind of each training example.
        fresh: kinds of the fresh examples.
    """
    waiting: dict[str, list[int]] = {}
    for place in range(len(fresh) - 1, -1, -1):
        waiting.setdefault(fresh[place], []).append(len(kinds) + place)
    found = rows.copy()
    for place in np.flatnonzero(np.append(False, rows[1:] == rows[:-1])).tolist():
        found[place] = waiting[kinds[rows[place]]].pop()
    return found
