"""Which further features a head takes that has learned one (theory notes, §16)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def keeps_out(
    drive: Float[np.ndarray, "*runs D"], entries: Float[np.ndarray, "*runs D D"]
) -> Bool[np.ndarray, "*runs D D"]:
    """Return whether a head that has learned feature d keeps out of feature e: `C_ed C_de w_d*² ≥ a_e²`, (D, D).

    Its entries on e follow `k̇_e = 2u (a_e q_e − α k_e)` and `q̇_e = 2u (a_e k_e − β q_e)` with `α = C_ed w_d*` and
    `β = C_de w_d*`, so they grow if `αβ < a_e²`. With one group of tasks that are equally likely in every direction
    heads keep out of all slower features and take every faster one. With a group of its own for each feature, `C_de` is
    0 and they take everything.

    Reference: theory notes, §16.
    """
    optimum = drive / np.diagonal(entries, axis1=-2, axis2=-1)
    product = np.swapaxes(entries, -2, -1) * entries * optimum[..., :, None] ** 2
    return np.asarray(product >= drive[..., None, :] ** 2)


def invasion_rate(drive: Float[np.ndarray, " D"], entries: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """Return the rate at which the entries of a head that has learned d grow on e, per unit of time, (D, D).

    It is `2u (√((α − β)²/4 + a_e²) − (α + β)/2)` with α and β of `keeps_out` and `u = w_d*^(1/3)`, and negative if they
    decay.

    Reference: theory notes, §16.
    """
    optimum = (drive / np.diagonal(entries))[:, None]
    alpha, beta = entries.T * optimum, entries * optimum
    root = np.sqrt((alpha - beta) ** 2 / 4.0 + drive[None, :] ** 2)
    return 2.0 * np.cbrt(optimum) * (root - (alpha + beta) / 2.0)
