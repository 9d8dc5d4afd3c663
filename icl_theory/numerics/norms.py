"""Euclidean norms and unit directions of pytrees, for entries of any size and with a derivative everywhere."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree


def with_norm(tree: PyTree, length: Any) -> PyTree:
    """Return `ρ g/‖g‖`, with one norm over all leaves; zero if the tree is zero.

    Args:
        tree: The direction g.
        length: The norm ρ of the result; it may be traced.

    Examples:
        >>> with_norm(jnp.asarray([3e-30, 4e-30], "float32"), 0.5).round(3).tolist()
        [0.30000001192092896, 0.4000000059604645]
    """
    scaled, norm = scaled_with_norm(tree)
    factor = jnp.where(norm > 0, length / jnp.where(norm > 0, norm, 1.0), 0.0)
    return jax.tree.map(lambda leaf: factor * leaf, scaled)


def scaled_with_norm(tree: PyTree) -> tuple[PyTree, Any]:
    """Return `c g` and `‖c g‖` with a factor c > 0 that keeps both in range; at zero the norm's derivative is zero.

    In float32 the squares of entries such as 1e-20 or 1e20 leave the range of the numbers. If the norm is far from 1, c
    is therefore a power of two, which rounds nothing. Else it is 1, as always in float64: squares there have room for
    entries from 1e-154 to 1e154.
    """
    plain = _norm(tree)
    kind = jnp.finfo(plain.dtype)
    if kind.bits >= 64:
        return tree, plain
    far, scale = (plain.dtype.type(2.0 ** (kind.maxexp * share)) for share in (3 / 8, 5 / 8))
    chosen = jnp.where(plain < 1 / far, scale, jnp.where(plain < far, 1, 1 / scale))
    scaled = jax.tree.map(lambda leaf: leaf * chosen, tree)
    return scaled, _norm(scaled)


@jax.custom_jvp
def _norm(tree: PyTree) -> Any:
    return optax.tree.norm(tree)


@_norm.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (tree,), (change,) = primals, tangents
    length = _norm(tree)
    unit = jax.tree.map(lambda leaf: leaf / jnp.where(length > 0, length, 1), tree)
    return length, optax.tree.vdot(unit, change)
