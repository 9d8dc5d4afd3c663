"""Problems of a study as tokens, how they are stacked over seeds, and the order in which they are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr


class Problems(NamedTuple):
    """Problems as tokens.

    Attributes:
        tokens: (P, T) tokens of each problem.
        learned: (P, T) True for tokens of answers.
        kind: (P,) index of each problem's kind in a list of names.
    """

    tokens: np.ndarray
    learned: np.ndarray
    kind: np.ndarray


def order(indices: np.ndarray, length: int, seed: int, draw: int = 0) -> np.ndarray:
    """Return `length` indices: successive epochs of a set, each in an order of its own."""
    random = np.random.default_rng([11 + draw, seed])
    return np.concatenate([random.permutation(indices) for _ in range(-(-length // len(indices)))])[:length]


def agreement(times: np.ndarray, others: np.ndarray) -> float | None:
    """Return the rank correlation of two sets of learning steps; None if all steps of one are equal."""
    if np.ptp(times) == 0 or np.ptp(others) == 0:
        return None
    return round(float(spearmanr(times, others).statistic), 3)


def unseen(tokens: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return (P,) True for rows of tokens that are not among the known ones."""
    seen = {row.tobytes() for row in known}
    return np.array([row.tobytes() not in seen for row in tokens])


def stacked(parts: Sequence[Problems]) -> Problems:
    """Stack the problems of several seeds along a first axis."""
    return Problems(*map(np.stack, zip(*parts, strict=True)))
