"""Problems of a study as tokens: stacked over seeds, in the order in which they are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr


class Problems(NamedTuple):
    """Attributes: tokens (P, T); learned (P, T), those of the answers; kind (P,), places in a list of names."""

    tokens: np.ndarray
    learned: np.ndarray
    kind: np.ndarray


def order(indices: np.ndarray, length: int, seed: int, draw: int = 0) -> np.ndarray:
    """Epochs of a set, each in an order of its own, up to a length."""
    random = np.random.default_rng([11 + draw, seed])
    return np.concatenate([random.permutation(indices) for _ in range(-(-length // len(indices)))])[:length]


def agreement(times: np.ndarray, others: np.ndarray) -> float | None:
    """Rank correlation of learning steps; None where all of one are equal."""
    if np.ptp(times) == 0 or np.ptp(others) == 0:
        return None
    return round(float(spearmanr(times, others).statistic), 3)


def unseen(tokens: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(P,) True for rows of tokens that are none of the known ones."""
    seen = {row.tobytes() for row in known}
    return np.array([row.tobytes() not in seen for row in tokens])


def stacked(parts: Sequence[Problems]) -> Problems:
    """Problems of several seeds along a first axis."""
    return Problems(*map(np.stack, zip(*parts, strict=True)))
