"""Softmax attention near zero weights: linear attention on centred contexts (theory notes, §14)."""

from __future__ import annotations

import numpy as np

from icl_theory.errors import check_number
from icl_theory.tasks.features import Features


def small_weight_drive(features: Features, num_context: int) -> np.ndarray:
    """Return `a_d (N/(N+1))²`, (D,): the drive of feature d in softmax attention near zero weights, one prompt group.

    To first order in the scores `ŷ = Σ_i v_i (ȳ + x_qᵀ U_iᵀ β̃)` with `β̃ = Σ_n y_n (x_n − x̄)/(N+1)`, where
    averages run over the context and the query token (x_q, 0). Then `E[β̃ y_q x_qᵀ] = (N/(N+1))² ΛΓΛ`: including the
    query in the average costs one factor N/(N+1), subtracting the mean costs the other.

    Reference: theory notes, §14 (derived there).
    """
    check_number("num_context", num_context, minimum=1, integer=True)
    return features.drive * (num_context / (num_context + 1.0)) ** 2
