"""Sets of mathematical problems of one mixture: to train on, to test on, and fresh ones.

A row holds `prompt`, `completion`, `answer` (by which replies are judged), `source` (the family) and `kind` (family and
level). Two prompts are the same problem if they differ in names, in the variable or in the order of terms alone. One
problem in ten, by a hash, is for tests alone, whatever the seed: no set trains on a problem that another tests.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from experiments.language_models.families import FAMILIES, LEVEL_SHARES, kind_name, shares
from icl_theory.errors import InputError

Row = dict[str, Any]
LONGEST = 500_000  # entries of a stream; entry i is drawn from its seed + i, so seeds lie as far apart
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


def draw(
    seed: int,
    families: tuple[str, ...],
    *,
    test: int,
    train: int,
    fresh: int,
    fits: Callable[[Row], bool] = lambda row: True,
) -> dict[str, list[Row]]:
    """Draw the sets of one seed, `test`, `train` and `fresh`, each with every kind in its share and in random order.

    The problems for tests are in `test` alone. Others may come again, as in real sets.

    Args:
        seed: seed of the problems.
        families: families of the mixture.
        test: number of problems for tests.
        train: number of problems to train on.
        fresh: fresh problems of each kind, as a multiple of those to train on.
        fits: whether a problem is wanted.

    Raises:
        InputError: too few problems come.
    """
    sets: dict[str, list[Row]] = {TEST: [], "train": [], "fresh": []}
    for kind, share in shares(families).items():
        family, level = kind.split()
        rows, trained = stream(family, int(level) - 1, seed), round(share * train)
        for part, count in ((TEST, round(share * test)), ("train", trained), ("fresh", fresh * trained)):
            wanted = (row for row in rows if row and for_tests(row) == (part == TEST) and fits(row))
            sets[part] += (found := list(itertools.islice(wanted, count)))
            if len(found) < count:
                raise InputError("problems", count, f"only {len(found)} for {part} came of {kind}; give fewer")
    random = np.random.default_rng([23, seed])
    return {part: [rows[place] for place in random.permutation(len(rows))] for part, rows in sets.items()}
