"""The two-layer linear network on cubic features that equals merged attention (theory notes, §2)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from icl_theory.errors import InputError, check_number
from icl_theory.models.parameters import normal_parameter, scale_or_default
from icl_theory.numerics.contraction import contract, reshape
from icl_theory.tasks.prompts import Prompts


class CubicFeatureMLP(nnx.Module):
    """Two-layer linear network on `z = vec(β x_qᵀ)`: `ŷ = Σ_i a_i ⟨F_i, z⟩`, equal to ATTN_M (v = a, U = F).

    Args:
        dim: Input dimension D.
        num_heads: Number H of hidden units.
        init_scale: As in `MergedAttention`.
        value_scale: As in `MergedAttention`.
        key_query_scale: As in `MergedAttention`.
        rngs: Random number generators; the stream `params` is used.

    Raises:
        InputError: A size is below one or a scale is negative.

    Reference: ZSLS25, Sec. 3 (equivalence with a two-layer network on cubic features).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        init_scale: float | Float[Array, ""] = 1e-2,
        value_scale: float | Float[Array, ""] | None = None,
        key_query_scale: float | Float[Array, ""] | None = None,
        rngs: nnx.Rngs,
    ):
        check_number("dim", dim, minimum=1, integer=True)
        check_number("num_heads", num_heads, minimum=1, integer=True)
        self.dim, self.num_heads = dim, num_heads
        value_scale = scale_or_default("value_scale", value_scale, init_scale)
        key_query_scale = scale_or_default("key_query_scale", key_query_scale, init_scale / dim)
        self.second = normal_parameter(rngs.params(), (num_heads,), value_scale)
        self.first = normal_parameter(rngs.params(), (num_heads, dim * dim), key_query_scale)

    is_linear, blocks = True, "reduced"

    def effective_matrix(self) -> Float[Array, "D D"]:
        """The matrix `W = Σ_i a_i F_i` of the network, so that `ŷ = βᵀ W x_q`."""
        return reshape(self.effective_tensor(), (self.dim, self.dim))

    def effective_tensor(self) -> Float[Array, " F"]:
        """The coefficients `T = Σ_i a_i F_i`: W flattened row by row."""
        return contract("h,hf->f", self.second[...], self.first[...])

    def __call__(self, prompts: Prompts) -> Float[Array, " P"]:
        if prompts.dim != self.dim:
            raise InputError("prompts", f"dimension {prompts.dim}", f"this model takes dimension {self.dim}")
        features = jnp.einsum("pd,pe->pde", prompts.beta, prompts.x_query).reshape(-1, self.dim**2)
        return (features @ self.first[...].T) @ self.second[...]
