"""Heads with keys and queries of rank R: how the features that a head holds speed up the next (theory notes, §11)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icl_theory.errors import InputError
from icl_theory.tasks.features import Features


def head_value(features: Features, held: Sequence[int]) -> float:
    """Return `v = (Σ_{d held} w_d*)^{1/3}`, the value of a balanced head that holds these features at their optimum.

    Feature d takes one rank of the head, with key and query of length s_d, so `w_d = v s_d²`. Balance means
    `v² = Σ_d s_d²`.

    Raises:
        InputError: A feature number does not exist or occurs twice.
    """
    held = list(held)
    if len(set(held)) != len(held) or any(not 0 <= d < len(features.drive) for d in held):
        raise InputError("held", held, f"give different feature numbers between 0 and {len(features.drive) - 1}")
    return float(np.cbrt(features.optimum[held].sum()))


def growth_rate(features: Features, held: Sequence[int], feature: int) -> float:
    """Return `4 v a_d`, the growth rate of `ln w_d` in a free rank of a head that holds others, per unit of η × step.

    Key and query of the free rank obey `k̇ = 2 v a_d q`, `q̇ = 2 v a_d k`, which is exponential growth. A head that
    holds nothing escapes only as `u̇ = 2 a_d u²`. So a head fills its ranks in quick succession, and a long plateau
    comes after every R features.

    Reference: theory notes, §11 (derived there; ZSLS25, Sec. 5, describes the shorter plateaus).
    """
    return 4.0 * head_value(features, held) * float(features.drive[feature])
