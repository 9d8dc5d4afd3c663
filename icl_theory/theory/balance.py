"""Imbalance of each head: conserved by gradient flow, changed by GD and SAM (theory notes, §15)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from icl_theory.training.sam import perturb


def imbalance(params: PyTree) -> dict[str, Float[Array, ...]]:
    """Return the imbalance of each head, which gradient flow conserves.

    With separate keys and queries it is `v_i² − Σ_r|k_ir|²`, (H,), and `K_i K_iᵀ − Q_i Q_iᵀ`, (H, R, R). With merged
    ones it is `v_i² − ‖U_i‖²`, (H,). All entries are zero in a balanced head. For reduced blocks and linear scores.
    """
    squares = jnp.square(params["value"])
    if "merged" in params:
        return {"value": squares - jnp.sum(jnp.square(params["merged"]), axis=(1, 2))}
    key, query = params["key"], params["query"]
    return {
        "value": squares - jnp.sum(jnp.square(key), axis=(1, 2)),
        "key": jnp.einsum("hrd,hsd->hrs", key, key) - jnp.einsum("hrd,hsd->hrs", query, query),
    }


def imbalance_change(loss: Any, params: PyTree, *, learning_rate: float, rho: float = 0.0) -> dict[str, Array]:
    """Return the exact change of `imbalance` in one step of GD (ρ = 0) or normalised SAM, from gradients alone.

    With g = ∇L(θ), ε = ρ g/‖g‖ and g̃ = ∇L(θ + ε) all terms of first order in η cancel except those in ε:

        Δ(v² − |k|²) = 2η (ε_v g̃_v − ε_k·g̃_k) + η² (g̃_v² − |g̃_k|²)

    and likewise for the other two kinds. Gradient flow conserves the imbalance. Under GD it drifts, over a fixed time,
    in proportion to η. SAM changes it at first order in ρ, by `ε_v g̃_v − ε_k·g̃_k ≈ (ρ/‖g‖)(g_v² − |g_k|²)`. In a head
    that holds one feature this is towards balance, since the smaller factor has the larger gradient. In other heads
    it may go either way.

    Reference: theory notes, §15 (derived there).
    """
    gradient = jax.grad(loss)
    ascent = perturb(params, gradient(params), rho=rho)
    moved = gradient(ascent)
    epsilon = jax.tree.map(lambda there, here: there - here, ascent, params)
    first = _difference(epsilon, moved)
    second = _difference(moved, moved)
    return jax.tree.map(lambda f, s: 2.0 * learning_rate * f + learning_rate**2 * s, first, second)


def _difference(left: Any, right: Any) -> dict[str, Array]:
    """Return the symmetric bilinear form whose quadratic form is `imbalance`."""
    value = left["value"] * right["value"]
    if "merged" in left:
        return {"value": value - jnp.sum(left["merged"] * right["merged"], axis=(1, 2))}
    both = lambda name: jnp.einsum("hrd,hsd->hrs", left[name], right[name])  # noqa: E731
    symmetric = lambda matrix: 0.5 * (matrix + jnp.swapaxes(matrix, 1, 2))  # noqa: E731
    return {
        "value": value - jnp.sum(left["key"] * right["key"], axis=(1, 2)),
        "key": symmetric(both("key")) - symmetric(both("query")),
    }
