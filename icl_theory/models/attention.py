"""Multi-head self-attention read out at the query token, as flax NNX modules (theory notes, §2).

Every model maps `Prompts` to predictions of shape (P,). Parameters act either on the entries that matter
(`blocks="reduced"`: values read y, keys and queries read x) or on all D+1 entries (`blocks="full"`). Only the last row
of the value matrix reaches the query output, so only that row is stored.

Index letters in einsums: p prompt, n token, h head, r rank, d input entry, e/f token entry (D+1).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from icl_theory.errors import InputError, check_choice, check_number
from icl_theory.models import BLOCKS, SCORES
from icl_theory.models.cubic_features import symmetric_entries
from icl_theory.models.parameters import normal_parameter, scale_or_default
from icl_theory.numerics.contraction import contract, reshape, sum_entries
from icl_theory.tasks.prompts import Prompts


class _Attention(nnx.Module):
    """Base class of merged and separate attention: turns value rows and key-query matrices into predictions."""

    value: nnx.Param[Any]

    def __init__(self, dim: int, num_heads: int, blocks: str, scores: str):
        check_number("dim", dim, minimum=1, integer=True)
        check_number("num_heads", num_heads, minimum=1, integer=True)
        check_choice("blocks", blocks, BLOCKS)
        check_choice("scores", scores, SCORES)
        self.dim, self.num_heads, self.blocks, self.scores = dim, num_heads, blocks, scores

    @property
    def width(self) -> int:
        """Number of token entries that a key or query reads: D (reduced) or D+1 (full)."""
        return self.dim + (self.blocks == "full")

    @property
    def is_linear(self) -> bool:
        """True if the prediction is linear in the cubic features, so that moments determine the loss."""
        return self.scores == "linear"

    def key_query(self) -> Float[Array, "H E E"]:
        """The matrix `W_i^KQ` of each head, key side first."""
        raise NotImplementedError

    def effective_matrix(self) -> Float[Array, "D D"]:
        """The matrix `W = Σ_i v_i U_i` on the entries that matter, so that `ŷ = βᵀ W x_q` (linear, reduced)."""
        value = self.value[...] if self.blocks == "reduced" else self.value[:, -1]
        return contract("h,hde->de", value, self.key_query()[:, : self.dim, : self.dim])

    def effective_tensor(self) -> Float[Array, " F"]:
        """The coefficients T in `ŷ = ⟨T, φ⟩` (linear scores), with φ the `cubic_features` of the same blocks."""
        if self.blocks == "reduced":
            return reshape(self.effective_matrix(), (self.dim**2,))
        outer = contract("he,hfg->efg", self.value[...], self.key_query())
        entries = symmetric_entries(self.dim)
        return sum_entries(outer, entries, (len(entries),))

    def __call__(self, prompts: Prompts) -> Float[Array, " P"]:
        if prompts.dim != self.dim:
            raise InputError("prompts", f"dimension {prompts.dim}", f"this model takes dimension {self.dim}")
        if self.is_linear and self.blocks == "reduced":
            return jnp.einsum("pd,de,pe->p", prompts.beta, self.effective_matrix(), prompts.x_query)
        tokens = prompts.tokens
        value, key_query = self._full_blocks()
        read = jnp.einsum("pne,he->phn", tokens, value)
        logits = jnp.einsum("pne,hef,pf->phn", tokens, key_query, tokens[:, -1])
        if self.scores == "linear":
            return jnp.einsum("phn,phn->p", read, logits) / prompts.divisor
        mask = jnp.pad(prompts.mask, ((0, 0), (0, 1)), constant_values=1)  # the query token attends to itself
        weights = jax.nn.softmax(logits, axis=-1, where=mask[:, None] > 0)
        return jnp.einsum("phn,phn->p", read, weights)

    def _full_blocks(self) -> tuple[Array, Array]:
        if self.blocks == "full":
            return self.value[...], self.key_query()
        value = jnp.zeros((self.num_heads, self.dim + 1), self.value.dtype).at[:, -1].set(self.value[...])
        return value, jnp.pad(self.key_query(), ((0, 0), (0, 1), (0, 1)))

    def _value_shape(self) -> tuple[int, ...]:
        return (self.num_heads,) if self.blocks == "reduced" else (self.num_heads, self.dim + 1)


class MergedAttention(_Attention):
    """Attention with one merged key-query matrix per head (ATTN_M), `ŷ = Σ_i v_i βᵀ U_i x_q`.

    The full linear form is the bottom-right entry of `X + Σ_i (1/N) W_i^V X Xᵀ W_i^KQ X`. The softmax form is
    `Σ_i Σ_n softmax_n(x̄_nᵀ W_i^KQ x̄_q) v_iᵀ x̄_n` over context and query tokens x̄ = (x, y).

    Args:
        dim: Input dimension D.
        num_heads: Number of heads H.
        init_scale: Root-mean-square size of each entry of `v_i` and of the Frobenius norm of `U_i`; entries are normal.
        value_scale: Standard deviation of each value entry, overriding `init_scale`.
        key_query_scale: Standard deviation of each key-query entry, overriding `init_scale`.
        blocks: `"reduced"` or `"full"`.
        scores: `"linear"` or `"softmax"`.
        rngs: Random number generators; the stream `params` is used.

    Raises:
        InputError: A size is below one, a scale is negative, or the blocks or scores are unknown.

    Reference: ZSLS25, Sec. 3 (ATTN_M).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        init_scale: float | Float[Array, ""] = 1e-2,
        value_scale: float | Float[Array, ""] | None = None,
        key_query_scale: float | Float[Array, ""] | None = None,
        blocks: str = "reduced",
        scores: str = "linear",
        rngs: nnx.Rngs,
    ):
        super().__init__(dim, num_heads, blocks, scores)
        value_scale = scale_or_default("value_scale", value_scale, init_scale)
        key_query_scale = scale_or_default("key_query_scale", key_query_scale, init_scale / self.width)
        self.value = normal_parameter(rngs.params(), self._value_shape(), value_scale)
        self.merged = normal_parameter(rngs.params(), (num_heads, self.width, self.width), key_query_scale)

    def key_query(self) -> Float[Array, "H E E"]:
        """The matrix `U_i` of each head, key side first."""
        return self.merged[...]


class SeparateAttention(_Attention):
    """Attention with separate keys and queries of rank R (ATTN_S), `W_i^KQ = W_i^Kᵀ W_i^Q`.

    At rank one it predicts `ŷ = Σ_i v_i (βᵀk_i)(q_iᵀx_q)`.

    Args:
        dim: Input dimension D.
        num_heads: Number of heads H.
        rank: Rank R of each key-query matrix, between 1 and D.
        init_scale: Root-mean-square size of each entry of `v_i` and, with reduced blocks, of the norm of each key and
            query row; entries are normal.
        value_scale: Standard deviation of each value entry, overriding `init_scale`.
        key_query_scale: Standard deviation of each key and query entry, overriding `init_scale`. The measurements in
            the theory notes use 0.1 for values and 0.05 for keys and queries at D = 4, which is `init_scale=0.1`.
        blocks: `"reduced"` or `"full"`.
        scores: `"linear"` or `"softmax"`.
        rngs: Random number generators; the stream `params` is used.

    Raises:
        InputError: A size is below one, rank > D, a scale is negative, or the blocks or scores are unknown.

    Reference: ZSLS25, Sec. 4 and 5 (ATTN_S).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        rank: int = 1,
        init_scale: float | Float[Array, ""] = 1e-1,
        value_scale: float | Float[Array, ""] | None = None,
        key_query_scale: float | Float[Array, ""] | None = None,
        blocks: str = "reduced",
        scores: str = "linear",
        rngs: nnx.Rngs,
    ):
        super().__init__(dim, num_heads, blocks, scores)
        check_number("rank", rank, minimum=1, maximum=dim, integer=True)
        self.rank = rank
        value_scale = scale_or_default("value_scale", value_scale, init_scale)
        key_query_scale = scale_or_default("key_query_scale", key_query_scale, init_scale / dim**0.5)
        self.value = normal_parameter(rngs.params(), self._value_shape(), value_scale)
        self.key = normal_parameter(rngs.params(), (num_heads, rank, self.width), key_query_scale)
        self.query = normal_parameter(rngs.params(), (num_heads, rank, self.width), key_query_scale)

    def key_query(self) -> Float[Array, "H E E"]:
        """The product `W_i^Kᵀ W_i^Q` of each head, key side first."""
        return contract("hre,hrf->hef", self.key[...], self.query[...])

    def effective_matrix(self) -> Float[Array, "D D"]:
        """The matrix `W = Σ_i v_i k_i q_iᵀ`, summed over heads and rank."""
        if self.blocks == "full":
            return super().effective_matrix()
        weighted = contract("h,hrd->hrd", self.value[...], self.key[...])
        return contract("hrd,hre->de", weighted, self.query[...])
