"""Positions and attention masks of padded, packed and windowed rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def layout(tokens: Array, valid: Array | None, segments: Array | None) -> tuple[Array, Array | None]:
    """Return positions within each example, and the attention mask (B, T, S); None for a plain causal mask."""
    length = tokens.shape[1]
    steps = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    if valid is None and segments is None:
        return steps, None
    mask = jnp.tril(jnp.ones((1, length, length), bool))
    positions = steps
    if segments is not None:
        mask = mask & (segments[:, :, None] == segments[:, None, :])
        begins = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
        positions = steps - jax.lax.cummax(jnp.where(begins, steps, 0), axis=1)
    if valid is not None:
        mask = mask & valid[:, None, :]
        positions = (
            jnp.maximum(positions - jnp.argmax(valid, axis=1, keepdims=True), 0) if segments is None else positions
        )
    return positions, mask


def windowed(mask_BTS: Array, window: int, start: Any = 0) -> Array:
    """Return the mask restricted to the last `window` tokens; its first row is token `start`."""
    rows, columns = start + jnp.arange(mask_BTS.shape[1]), jnp.arange(mask_BTS.shape[2])
    return mask_BTS & (columns[None, :] > rows[:, None] - window)[None]


def by_kind(local: Any, windowed: Any, full: Any) -> Any:
    """Choose what a windowed or a full layer needs; `local` is a bool, or traced if layers differ."""
    return jnp.where(local, windowed, full) if isinstance(local, jax.Array) else windowed if local else full
