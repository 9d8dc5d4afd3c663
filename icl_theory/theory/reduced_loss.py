"""The losses that gradient descent and SAM see on the manifolds on which training stays (theory notes, §5 and §6).

On such a manifold the parameters are fewer coordinates, rotated. Gradient descent and SAM are equivariant to rotations,
so the same optimizer with the same η and ρ on the reduced loss takes the same steps as on the full one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from icl_theory.numerics.contraction import contract


class ReducedLoss(NamedTuple):
    """The loss `L = energy + Σ_d (c_d w_d² − 2 a_d w_d)`, where `strength` maps the coordinates to the w_d.

    Attributes:
        strength: The manifold, `AlignedStrength()` or `MergedStrength()`. It also serves as what is tracked.
        drive: a_d, (D,).
        curvature: c_d, (D,).
        energy: The loss of the zero model.
    """

    strength: Any
    drive: Float[Any, " D"]
    curvature: Float[Any, " D"]
    energy: float | Float[Any, ""]

    def __call__(self, params: PyTree) -> Float[Array, ""]:
        w = self.strength(params)
        return self.energy + contract("d,d->", w, self.curvature * w - 2.0 * self.drive)


class AlignedStrength(NamedTuple):
    """Rank-one ATTN_S with head d aligned with feature d and balanced: `w_d = u_d³ = (s_d/√3)³`.

    v_d, k_d and q_d all have length u_d, so together they are one coordinate of length `s_d = √3 u_d`. Descent on it
    takes the steps of `AlignedDescent`.
    """

    def __call__(self, params: PyTree) -> Float[Array, " D"]:
        return (params["root"] / 3.0**0.5) ** 3


class MergedStrength(NamedTuple):
    """ATTN_M as one balanced head, `U = Σ_d s_d e_d e_dᵀ`: `w_d = v s_d`. The gradient flow is that of `MergedFlow`."""

    def __call__(self, params: PyTree) -> Float[Array, " D"]:
        return params["value"] * params["merged"]


def aligned_start(u: Any, dim: int) -> dict[str, Array]:
    """Return the coordinates of `AlignedStrength` with every `u_d = u`."""
    return {"root": jnp.full(dim, u * 3.0**0.5)}
