"""Softmax attention near zero weights: linear attention on centred contexts (theory notes, §14)."""

from __future__ import annotations

import numpy as np

from icl_theory.errors import check_number
from icl_theory.tasks.features import Features


def small_weight_drive(features: Features, num_context: int) -> np.ndarray:
    """`a_d (N/(N+1))²`, (D,): what drives feature d of softmax attention at vanishing weights; one group of prompts.

    To first order in the scores `ŷ = Σ_i v_i (ȳ + x_qᵀ U_iᵀ β̃)` with `β̃ = Σ_n y_n (x_n − x̄)/(N+1)`, the averages
    over context and query token (x_q, 0); and `E[β̃ y_q x_qᵀ] = (N/(N+1))² ΛΓΛ`: the query in the average and the mean
    that is taken off cost a factor N/(N+1) each.

    Reference: theory notes, §14 (derived there).
    """
    check_number("num_context", num_context, minimum=1, integer=True)
    return features.drive * (num_context / (num_context + 1.0)) ** 2
