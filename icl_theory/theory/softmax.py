"""Softmax attention at small weights: linear attention on centred contexts, and a brake (theory notes, §14 and §16)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from icl_theory.errors import InputError, check_number
from icl_theory.tasks.features import Features
from icl_theory.theory.random_start_cascade import RandomStartCascade


def small_weight_drive(features: Features, num_context: int) -> np.ndarray:
    """Return `a_d (N/(N+1))²`, (D,): the drive of feature d in softmax attention near zero weights, one prompt group.

    To first order in the scores `ŷ = Σ_i v_i (ȳ + x_qᵀ U_iᵀ β̃)` with `β̃ = Σ_n y_n (x_n − x̄)/(N+1)`, where
    averages run over the context and the query token (x_q, 0). Then `E[β̃ y_q x_qᵀ] = (N/(N+1))² ΛΓΛ`: including the
    query in the average costs one factor N/(N+1), subtracting the mean costs the other.

    Reference: theory notes, §14 (derived there).
    """
    check_number("num_context", num_context, minimum=1, integer=True)
    return features.drive * (num_context / (num_context + 1.0)) ** 2


def value_brake(features: Features, num_context: int) -> float:
    """Return `s = N E[y²]/(N+1)²`, the rate at which softmax attention brakes the sum of its values.

    Every head adds `v_h ȳ` to the prediction, whatever its scores. That costs `(Σ_h v_h)² E[ȳ²]` and slows each value,
    `v̇_h = … − 2s Σ_i v_i`. It vanishes with 1/N, but not with the weights. For one group, without label noise.

    Reference: theory notes, §16 (derived there).
    """
    check_number("num_context", num_context, minimum=1, integer=True)
    return float(features.energy * num_context / (num_context + 1.0) ** 2)


def softmax_cascade(features: Features, params: Mapping[str, Any], num_context: int) -> RandomStartCascade:
    """Return the cascade of softmax attention, to leading order in scores and in 1/N.

    Drives and curvatures are those of linear attention times `(N/(N+1))²`, and `value_brake` is added. Strengths are to
    be read as shares `E[ŷ y_d]/E[y_d²] = λ_d w_d` of a feature in the predictions. The loss of `predict` is that of the
    linear model with these drives and curvatures, without the cost `(Σ_h v_h)² E[ȳ²]`. The features must be those of
    one group without label noise, which is not checked.

    Raises:
        InputError: As in `RandomStartCascade.from_params`; or the features have no curvature of entries.

    Reference: theory notes, §16.
    """
    if features.entry_curvature is None:
        raise InputError("features", "no entry_curvature", "give those of find_features or estimate_features")
    drive = small_weight_drive(features, num_context)
    share = (num_context / (num_context + 1.0)) ** 2
    slower = features._replace(
        drive=drive, curvature=features.curvature * share, entry_curvature=features.entry_curvature * share
    )
    return RandomStartCascade.from_params(slower, params)._replace(brake=value_brake(features, num_context))
