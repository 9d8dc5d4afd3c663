"""Linear attention as a linear function of cubic features of the prompt (theory notes, §9).

Let `G = Σ_n t_n t_nᵀ` be the Gram matrix of a prompt's tokens `t = (x, y)`, including the query token `(x_q, 0)`, and N
its number of context tokens. Every linear attention predicts

    ŷ = ⟨T, φ⟩,    φ_(ef)d = G_ef x_q,d / N,    T_(ef)d = Σ_i (v_i)_e (W_i^KQ)_fd + (e ↔ f).

G is symmetric, so pairs e ≤ f suffice (the exchanged term counts only for e ≠ f). This gives D·(D+1)(D+2)/2 features,
`blocks="full"`. A model with weights only on the entries that matter sees the D² features `φ = vec(β x_qᵀ)`,
`blocks="reduced"`. These come first among the full ones, so the reduced moments are the leading block of the full ones.
"""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from icl_theory.errors import check_choice
from icl_theory.models import BLOCKS
from icl_theory.tasks.prompts import Prompts


def num_features(dim: int, blocks: str) -> int:
    """Number of cubic features, F = D² (reduced) or D·(D+1)(D+2)/2 (full).

    Examples:
        >>> num_features(4, "reduced"), num_features(4, "full")
        (16, 60)
    """
    check_choice("blocks", blocks, BLOCKS)
    return dim**2 if blocks == "reduced" else dim * (dim + 1) * (dim + 2) // 2


@cache
def token_pairs(dim: int) -> tuple[tuple[int, int], ...]:
    """Pairs (e, f) of token entries in the order of the features; entry D is y.

    Examples:
        >>> token_pairs(2)
        ((0, 2), (1, 2), (0, 0), (0, 1), (1, 1), (2, 2))
    """
    inner = [(e, f) for e in range(dim) for f in range(e, dim)]
    return (*((e, dim) for e in range(dim)), *inner, (dim, dim))


@cache
def symmetric_entries(dim: int) -> tuple[tuple[int, ...], ...]:
    """Return, for each feature, the entries of `Σ_i (v_i)_e (W_i^KQ)_fg` that add up to its coefficient.

    Entries are counted row by row. Those with g = D multiply the query's y, which is zero, so no feature uses them.
    """
    width = dim + 1
    return tuple(
        tuple(sorted({(e * width + f) * width + d, (f * width + e) * width + d}))
        for e, f in token_pairs(dim)
        for d in range(dim)
    )


def cubic_features(prompts: Prompts, *, blocks: str) -> Float[Array, "P F"]:
    """Compute the features φ of every prompt, including the 1/N (N is the prompt's `divisor`).

    Args:
        prompts: The P prompts.
        blocks: `"reduced"` or `"full"`.

    Returns:
        Reduced features, (P, D²), where feature `d·D + e` is `β_d x_q,e`, or full features, (P, D(D+1)(D+2)/2), in the
        order of `token_pairs`.
    """
    check_choice("blocks", blocks, BLOCKS)
    if blocks == "reduced":
        left = prompts.beta
    else:
        tokens = prompts.tokens
        gram = jnp.einsum("pne,pnf->pef", tokens, tokens, precision=jax.lax.Precision.HIGHEST)
        rows, columns = np.asarray(token_pairs(prompts.dim)).T
        left = gram[:, rows, columns] / prompts.divisor[:, None]
    return (left[:, :, None] * prompts.x_query[:, None, :]).reshape(len(left), -1)
