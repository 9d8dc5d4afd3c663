"""The Euclidean norm of a pytree, for entries of any size and with a derivative everywhere."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree


@jax.custom_jvp
def norm(tree: PyTree) -> Any:
    """Return `‖g‖` over all leaves; its derivative at zero is zero.

    In float32 the squares of entries such as 1e-20 or 1e20 leave the range of the numbers. Norms far from 1 are
    therefore computed again from scaled entries. The scale is a power of two, which rounds nothing. In float64 squares
    have room for entries from 1e-154 to 1e154.

    Examples:
        >>> f"{norm(jnp.asarray([3e-30, 4e-30], 'float32')):.3g}"
        '5e-30'
    """
    plain = optax.tree.norm(tree)
    kind = jnp.finfo(plain.dtype)
    if kind.bits >= 64:
        return plain
    far, scale = (plain.dtype.type(2.0 ** (kind.maxexp * share)) for share in (3 / 8, 5 / 8))
    chosen = jnp.where(plain < 1 / far, scale, jnp.where(plain < far, 1, 1 / scale))
    return optax.tree.norm(jax.tree.map(lambda leaf: leaf * chosen, tree)) / chosen


@norm.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (tree,), (change,) = primals, tangents
    length = norm(tree)
    unit = jax.tree.map(lambda leaf: leaf / jnp.where(length > 0, length, 1), tree)
    return length, optax.tree.vdot(unit, change)
