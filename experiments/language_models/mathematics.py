"""Sets of mathematical problems: training, test and fresh ones of one mixture, which share no problem.

A row holds `prompt`, `completion`, `answer` (by which replies are judged), `source` (the family) and `kind` (family and
level). Two prompts are the same problem if they differ in names, in the variable or in the order of terms alone. One
problem in ten, by a hash, is for tests alone, whatever the seed: no set trains on a problem that another tests.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from experiments.language_models.families import FAMILIES, LEVEL_SHARES, kind_name, shares
from icl_theory.errors import InputError

Row = dict[str, Any]
LONGEST = 500_000  # entries of a stream; entry i is drawn from its seed + i, so seeds lie as far apart
TRIES = 60  # entries drawn for each problem that is wanted, before a kind counts as exhausted
TEST = "test"
HELD_OUT = 10  # one in so many problems is for tests


def identity(family: str, prompt: str) -> str:
    """Return a text that is equal for prompts which ask the same: without names, and sorted if order does not matter.

    Examples:
        >>> identity("sums", "12 + 30 =") == identity("sums", "30 + 12 =")
        True
        >>> identity("stories", "Ann has 3 figs.") == identity("stories", "Bob has 3 figs.")
        True
    """
    if family == "stories":
        return re.sub(r"\b[A-Z]\w*", "", prompt)
    return prompt if FAMILIES[family].ordered else " ".join(sorted(re.findall(r"[\d.]+|[^\s\d.]+", prompt)))


def for_tests(row: Row) -> bool:
    """Return whether a problem is for tests alone."""
    return zlib.crc32(identity(row["source"], row["prompt"]).encode()) % HELD_OUT == 0


def stream(family: str, level: int, seed: int) -> Iterator[Row | None]:
    """Yield problems of one kind, None for a drawn entry that is left out.

    Raises:
        InputError: reasoning-gym is not installed.
    """
    try:
        import reasoning_gym
    except ImportError:
        raise InputError("problems", family, "install it: pip install 'icl-theory[generators]'") from None
    found = FAMILIES[family]
    ask = found.ask[level] if isinstance(found.ask, tuple) else found.ask
    generator, settings = found.levels[level]
    number = (seed * len(FAMILIES) + list(FAMILIES).index(family)) * len(LEVEL_SHARES) + level
    entries = reasoning_gym.create_dataset(generator, size=LONGEST, seed=number * LONGEST, **settings)
    for place in range(LONGEST):
        asked = ask(entries[place])
        if asked is None:
            yield None
            continue
        prompt, completion, answer = asked
        yield {
            "prompt": prompt,
            "completion": completion,
            "answer": answer,
            "source": family,
            "kind": kind_name(family, level),
        }


def take(rows: Iterator[Row | None], count: int, known: set[str], fits: Callable[[Row], bool]) -> list[Row]:
    """Take `count` problems that fit and whose identity is not known; add theirs to the known ones.

    Raises:
        InputError: too few new problems come.
    """
    taken: list[Row] = []
    for row in itertools.islice(rows, TRIES * max(count, HELD_OUT) if count else 0):
        if row is None or (own := identity(row["source"], row["prompt"])) in known or not fits(row):
            continue
        known.add(own)
        taken.append(row)
        if len(taken) == count:
            return taken
    if count:
        raise InputError("problems", count, f"only {len(taken)} new ones of a kind came; give fewer")
    return taken


def draw(
    seed: int,
    families: tuple[str, ...],
    *,
    test: int,
    train: int,
    fresh: int,
    fits: Callable[[Row], bool] = lambda row: True,
) -> dict[str, list[Row]]:
    """Draw the sets of one seed, `test`, `train` and `fresh`; no two share a problem.

    Every set has each kind in its share, rounded to whole problems, in random order. The problems for tests are in
    `test` alone.

    Args:
        seed: seed of the problems.
        families: families of the mixture.
        test: number of problems for tests.
        train: number of problems to train on.
        fresh: fresh problems of each kind, as a multiple of those to train on.
        fits: whether a problem is wanted.
    """
    sets: dict[str, list[Row]] = {TEST: [], "train": [], "fresh": []}
    for kind, share in shares(families).items():
        family, level = kind.split()
        rows, known = stream(family, int(level) - 1, seed), known_of(sets, family)
        trained = round(share * train)
        for part, count in ((TEST, round(share * test)), ("train", trained), ("fresh", fresh * trained)):
            own = lambda row, part=part: for_tests(row) == (part == TEST) and fits(row)  # noqa: E731
            sets[part] += take(rows, count, known, own)
    random = np.random.default_rng([23, seed])
    return {part: [rows[place] for place in random.permutation(len(rows))] for part, rows in sets.items()}


def known_of(sets: Mapping[str, list[Row]], family: str) -> set[str]:
    """Return the identities of a family's problems in all sets: levels of a family may draw the same problem."""
    return {identity(family, row["prompt"]) for rows in sets.values() for row in rows if row["source"] == family}


def draw_freely(
    seed: int,
    families: tuple[str, ...],
    levels: tuple[float, ...],
    count: int,
    fits: Callable[[Row], bool] = lambda row: True,
) -> list[Row]:
    """Draw problems of all kinds, repeated ones too, but none that is for tests; kind after kind.

    Args:
        seed: seed of the problems.
        families: families of the mixture.
        levels: share of each level.
        count: number of problems.
        fits: whether a problem is wanted.
    """
    found: list[Row] = []
    for kind, share in shares(families, levels).items():
        family, level = kind.split()
        rows = (row for row in stream(family, int(level) - 1, seed) if row and not for_tests(row) and fits(row))
        found += itertools.islice(rows, round(share * count))
    return found
