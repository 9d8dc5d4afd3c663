"""The losses that gradient descent and SAM see on the manifolds on which training stays (theory notes, §5 and §6).

On such a manifold the parameters are a rotation of fewer coordinates. Gradient descent and SAM do not notice rotations,
so the same optimizer with the same η and ρ on the reduced loss takes the same steps as on the full one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from icl_theory.contraction import contract


class AlignedLoss(NamedTuple):
    """Rank-one ATTN_S with head d aligned with feature d and balanced: `s_d = √3 u_d`, `w_d = u_d³`.

    `L(s) = energy + Σ_d (c_d w_d² − 2 a_d w_d)`; v_d, k_d and q_d all have length u_d, so the three of them together
    move along one direction of length √3 u_d. Its descent is `AlignedDescent`.

    Attributes:
        drive, curvature: a_d and c_d, (D,).
        energy: loss of the zero model.
    """

    drive: Any
    curvature: Any
    energy: Any

    def __call__(self, params: Any) -> Float[Array, ""]:
        return _loss(AlignedStrength()(params), *self)


class AlignedStrength(NamedTuple):
    """`w_d = (s_d/√3)³`, what is tracked of `AlignedLoss`."""

    def __call__(self, params: Any) -> Float[Array, " D"]:
        return (params["root"] / 3.0**0.5) ** 3


class MergedLoss(NamedTuple):
    """ATTN_M as one balanced head, `U = Σ_d s_d e_d e_dᵀ`: `w_d = v s_d`. Its gradient flow is `MergedFlow`.

    Attributes: as for `AlignedLoss`.
    """

    drive: Any
    curvature: Any
    energy: Any

    def __call__(self, params: Any) -> Float[Array, ""]:
        return _loss(MergedStrength()(params), *self)


class MergedStrength(NamedTuple):
    """`w_d = v s_d`, what is tracked of `MergedLoss`."""

    def __call__(self, params: Any) -> Float[Array, " D"]:
        return params["value"] * params["merged"]


def aligned_start(u: Any, dim: int) -> dict[str, Array]:
    """Parameters of `AlignedLoss` with every `u_d = u`."""
    return {"root": jnp.full(dim, u * 3.0**0.5)}


def merged_start(value: Any, drive: Float[Array, " D"]) -> dict[str, Array]:
    """Parameters of `MergedLoss` with `v = value` and `s = value · a/‖a‖` (see `effective_start`)."""
    return {"value": value, "merged": value * drive / jnp.linalg.norm(drive)}


def _loss(strength: Any, drive: Any, curvature: Any, energy: Any) -> Any:
    return energy + contract("d,d->", strength, curvature * strength - 2.0 * drive)
