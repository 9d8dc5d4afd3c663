"""Multi-head self-attention read at the query token, as flax NNX modules (theory notes, §2).

Every model maps `Prompts` to predictions of shape (P,). Parameters act either on the entries that matter
(`blocks="reduced"`: values read y, keys and queries read x) or on all D+1 entries (`blocks="full"`); of the
value matrix only its last row reaches the query output, so only that row is held.

Index letters in einsums: p prompt, n token, h head, r rank, d input entry, e/f token entry (D+1).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from icl_theory.contraction import contract, reshape, sum_entries
from icl_theory.cubic import BLOCKS, symmetric_entries
from icl_theory.draws import standard_normal
from icl_theory.errors import InputError, check_choice, check_number, check_shape
from icl_theory.prompts import Prompts
from icl_theory.tracing import array_module, device_array

SCORES = ("linear", "softmax")


class _Attention(nnx.Module):
    """What merged and separate attention share: from value rows and key-query blocks to predictions."""

    value: nnx.Param

    def __init__(self, dim: int, num_heads: int, blocks: str, scores: str):
        check_number("dim", dim, minimum=1, integer=True)
        check_number("num_heads", num_heads, minimum=1, integer=True)
        check_choice("blocks", blocks, BLOCKS)
        check_choice("scores", scores, SCORES)
        self.dim, self.num_heads, self.blocks, self.scores = dim, num_heads, blocks, scores

    @property
    def width(self) -> int:
        """Entries a key or query reads: D (reduced) or D+1 (full)."""
        return self.dim + (self.blocks == "full")

    @property
    def is_linear(self) -> bool:
        """True where the prediction is linear in cubic features of the prompt, so that moments are all it sees."""
        return self.scores == "linear"

    def key_query(self) -> Float[Array, "H E E"]:
        """`W_i^KQ` of each head, key side first."""
        raise NotImplementedError

    def effective_matrix(self) -> Float[Array, "D D"]:
        """`W = Σ_i v_i U_i` on the blocks that matter, so that `ŷ = βᵀ W x_q` (linear, reduced)."""
        value = self.value[...] if self.blocks == "reduced" else self.value[:, -1]
        return contract("h,hde->de", value, self.key_query()[:, : self.dim, : self.dim])

    def effective_tensor(self) -> Float[Array, " F"]:
        """T with `ŷ = ⟨T, φ⟩`, φ the `cubic_features` of the same blocks (linear scores)."""
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
            return jnp.einsum("phn,phn->p", read, logits) / prompts.num_context
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
    """ATTN_M: one key-query matrix per head, `ŷ = Σ_i v_i βᵀ U_i x_q`.

    Full linear form: bottom-right entry of `X + Σ_i (1/N) W_i^V X Xᵀ W_i^KQ X`. Softmax form:
    `Σ_i Σ_n softmax_n(x̄_nᵀ W_i^KQ x̄_q) v_iᵀ x̄_n` over context and query tokens x̄ = (x, y).

    Args:
        dim: D.
        num_heads: H.
        init_scale: expected norm of `v_i` (per entry) and of `U_i` (Frobenius); normal entries.
        value_scale, key_query_scale: standard deviation of single entries, overriding `init_scale`.
        blocks: `"reduced"` or `"full"`.
        scores: `"linear"` or `"softmax"`.
        rngs: `nnx.Rngs`, stream `params`.

    Raises:
        InputError: sizes below one, negative scales, unknown blocks or scores.

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
        value_scale = _scale("value_scale", value_scale, init_scale)
        key_query_scale = _scale("key_query_scale", key_query_scale, init_scale / self.width)
        self.value = _normal(rngs.params(), self._value_shape(), value_scale)
        self.merged = _normal(rngs.params(), (num_heads, self.width, self.width), key_query_scale)

    def key_query(self) -> Float[Array, "H E E"]:
        """`U_i`, key side first."""
        return self.merged[...]


class SeparateAttention(_Attention):
    """ATTN_S: keys and queries of rank R, `W_i^KQ = W_i^Kᵀ W_i^Q`; rank one is `Σ_i v_i (βᵀk_i)(q_iᵀx_q)`.

    Args:
        dim: D.
        num_heads: H.
        rank: R between 1 and D.
        init_scale: expected norm of `v_i` (per entry) and of each key and query row; normal entries.
        value_scale, key_query_scale: standard deviation of single entries, overriding `init_scale`
            (the theory notes' measurements use 0.1 and 0.05 at D = 4, which is `init_scale=0.1`).
        blocks: `"reduced"` or `"full"`.
        scores: `"linear"` or `"softmax"`.
        rngs: `nnx.Rngs`, stream `params`.

    Raises:
        InputError: sizes below one, rank > D, negative scales, unknown blocks or scores.

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
        value_scale = _scale("value_scale", value_scale, init_scale)
        key_query_scale = _scale("key_query_scale", key_query_scale, init_scale / dim**0.5)
        self.value = _normal(rngs.params(), self._value_shape(), value_scale)
        self.key = _normal(rngs.params(), (num_heads, rank, self.width), key_query_scale)
        self.query = _normal(rngs.params(), (num_heads, rank, self.width), key_query_scale)

    def key_query(self) -> Float[Array, "H E E"]:
        """`W_i^Kᵀ W_i^Q`, key side first."""
        return contract("hre,hrf->hef", self.key[...], self.query[...])

    def effective_matrix(self) -> Float[Array, "D D"]:
        """`W = Σ_i v_i k_i q_iᵀ`, summed over heads and rank."""
        if self.blocks == "full":
            return super().effective_matrix()
        weighted = contract("h,hrd->hrd", self.value[...], self.key[...])
        return contract("hrd,hre->de", weighted, self.query[...])


class CubicFeatureMLP(nnx.Module):
    """Two-layer linear network on `z = vec(β x_qᵀ)`: `ŷ = Σ_i a_i ⟨F_i, z⟩`, equal to ATTN_M (v = a, U = F).

    Args:
        dim: D.
        num_heads: H, hidden units.
        init_scale, value_scale, key_query_scale: as in `MergedAttention`.
        rngs: `nnx.Rngs`, stream `params`.

    Raises:
        InputError: sizes below one, negative scales.

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
        value_scale = _scale("value_scale", value_scale, init_scale)
        key_query_scale = _scale("key_query_scale", key_query_scale, init_scale / dim)
        self.second = _normal(rngs.params(), (num_heads,), value_scale)
        self.first = _normal(rngs.params(), (num_heads, dim * dim), key_query_scale)

    is_linear, blocks = True, "reduced"

    def effective_matrix(self) -> Float[Array, "D D"]:
        """`W = Σ_i a_i F_i`, the network as a matrix."""
        return reshape(self.effective_tensor(), (self.dim, self.dim))

    def effective_tensor(self) -> Float[Array, " F"]:
        """`T = Σ_i a_i F_i`, W row by row."""
        return contract("h,hf->f", self.second[...], self.first[...])

    def __call__(self, prompts: Prompts) -> Float[Array, " P"]:
        if prompts.dim != self.dim:
            raise InputError("prompts", f"dimension {prompts.dim}", f"this model takes dimension {self.dim}")
        features = jnp.einsum("pd,pe->pde", prompts.beta, prompts.x_query).reshape(-1, self.dim**2)
        return (features @ self.first[...].T) @ self.second[...]


def aligned_parameters(strengths: Any, basis: Float[Array | np.ndarray, "D D"] | None = None) -> dict[str, Array]:
    """Parameters of a D-head rank-one `SeparateAttention` in which head d holds feature d alone, balanced.

    `v_d = u_d`, `k_d = q_d = u_d e_d`, so that feature d has strength `w_d = u_d³` (theory notes, §5).

    Args:
        strengths: u_d, shape (D,).
        basis: columns e_d; default the coordinate axes.

    Returns:
        `{"value": (D,), "key": (D, 1, D), "query": (D, 1, D)}`.
    """
    array = array_module((strengths, basis))
    u = array.asarray(strengths, dtype=float)
    if u.ndim != 1:
        raise InputError("strengths", f"shape {u.shape}", "give one number per feature")
    basis = np.eye(u.shape[0]) if basis is None else array.asarray(basis)
    check_shape("basis", basis, (u.shape[0], u.shape[0]))
    rows = device_array((basis * u).T[:, None, :], float)
    return {"value": device_array(u, float), "key": rows, "query": rows}


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, dict[str, Array]]:
    """The static structure of a module and its parameters as a plain dictionary of arrays."""
    graphdef, params = nnx.split(model, nnx.Param)
    return graphdef, nnx.to_pure_dict(params)


def merge_model(graphdef: nnx.GraphDef, params: Any) -> Any:
    """The module again, from what `split_model` returned."""
    return nnx.merge(graphdef, nnx.State(params))


def _scale(field: str, value: Any, default: Any) -> Any:
    check_number("init_scale" if value is None else field, default if value is None else value, minimum=0.0)
    return default if value is None else value


def _normal(key: Any, shape: tuple[int, ...], scale: float | Float[Array, ""]) -> nnx.Param:
    """Normal entries with this standard deviation."""
    return nnx.Param(device_array(scale * standard_normal(key, shape), float))
