"""Fixed points of rank-one ATTN_S, one manifold per subset of features, and their losses (theory notes, §4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np

from icl_theory.errors import InputError, check_number
from icl_theory.tasks.features import Features


def subsets(dim: int) -> Iterator[tuple[int, ...]]:
    """Yield all 2^D subsets of the features, smallest first.

    Examples:
        >>> list(subsets(2))
        [(), (0,), (1,), (0, 1)]
    """
    check_number("dim", dim, minimum=1, integer=True)
    for size in range(dim + 1):
        yield from combinations(range(dim), size)


def fixed_point_strengths(features: Features, subset: Iterable[int]) -> np.ndarray:
    """Return `w_d = w_d*` for d in S and 0 elsewhere, shape (D,): the strengths of `W_S = Σ_{d∈S} w_d* e_d e_dᵀ`."""
    strengths = np.zeros_like(features.drive)
    index = _checked(features, subset)
    strengths[index] = features.optimum[index]
    return strengths


def plateau_loss(features: Features, subset: Iterable[int]) -> float:
    """Return `L_S = energy − Σ_{d∈S} a_d²/c_d`, the loss on the manifold of S.

    Reference: theory notes, §4; ZSLS25, Sec. 4.
    """
    return float(features.energy - features.gain[_checked(features, subset)].sum())


def nested_plateau_losses(features: Features) -> np.ndarray:
    """Return the losses with the first 0, 1, …, D features learned, (D+1,): the plateaus from small initialisation."""
    return features.energy - np.concatenate([[0.0], np.cumsum(features.gain)])


def isotropic_task_gain(eigenvalues: np.ndarray, num_context: int) -> np.ndarray:
    """Return `a_d²/c_d = λ_d / (1 + (1 + tr Λ/λ_d)/N)` for Γ = I, σ = 0 and λ_d > 0, in the order given."""
    check_number("num_context", num_context, minimum=1, integer=True)
    values = np.asarray(eigenvalues, dtype=float)
    if np.any(values <= 0):
        raise InputError("eigenvalues", values, "every eigenvalue must be positive")
    return values / (1.0 + (1.0 + values.sum() / values) / num_context)


def _checked(features: Features, subset: Iterable[int]) -> list[int]:
    index = list(subset)
    dim = len(features.drive)
    if any(not 0 <= d < dim for d in index) or len(set(index)) != len(index):
        raise InputError("subset", index, f"give different feature numbers between 0 and {dim - 1}")
    return index
