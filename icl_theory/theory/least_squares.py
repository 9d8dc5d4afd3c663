"""The optimum of linear attention with enough heads: least squares on the cubic features (theory notes, §9, §13)."""

from __future__ import annotations

import numpy as np

from icl_theory.errors import InputError, check_number
from icl_theory.models.cubic_features import token_pairs
from icl_theory.moments.empirical import Moments


def best_tensor(moments: Moments) -> np.ndarray:
    """`T* = M⁺ c`, the coefficients of least loss, (F,); of several the shortest. In float64."""
    mean = moments.mean()
    return np.linalg.lstsq(np.asarray(mean.gram, float), np.asarray(mean.cross, float), rcond=1e-12)[0]


def tensor_loss(tensors: np.ndarray, moments: Moments) -> np.ndarray:
    """`TᵀMT − 2cᵀT + e` of coefficients (..., F) on any data, shape (...)."""
    mean = moments.mean()
    gram, cross = np.asarray(mean.gram, float), np.asarray(mean.cross, float)
    quadratic = np.einsum("...f,fg,...g->...", tensors, gram, tensors)
    return np.asarray(quadratic - 2.0 * tensors @ cross + float(mean.energy))


def escape_rate(moments: Moments, learning_rate: float = 0.0) -> float:
    """`4 σ₁`, or `2 ln(1 + 2ησ₁)/η` in steps of η > 0: the rate at which `ln |T|` of merged attention with full blocks
    grows from zero, per unit of η × step.

    Near zero `v̇_i = 2 C U_i`, `U̇_i = 2 Cᵀ v_i` with `C_(e)(fd) = E[y_q φ_(ef)d]` as a (D+1) × (D+1)D matrix, of which
    only the largest singular value σ₁ survives; T is a product of both.

    Raises:
        InputError: moments of reduced features, a negative learning rate.

    Reference: theory notes, §13.
    """
    if moments.blocks != "full":
        raise InputError("moments.blocks", moments.blocks, "the rate is that of full blocks")
    check_number("learning_rate", learning_rate, minimum=0.0)
    dim, mean = moments.dim, moments.mean()
    cross = np.asarray(mean.cross, float).reshape(-1, dim)
    matrix = np.zeros((dim + 1, dim + 1, dim))
    for (e, f), row in zip(token_pairs(dim), cross, strict=True):
        matrix[e, f] = matrix[f, e] = row
    largest = float(np.linalg.norm(matrix.reshape(dim + 1, -1), 2))
    return 2.0 * float(np.log1p(2.0 * learning_rate * largest)) / learning_rate if learning_rate else 4.0 * largest
