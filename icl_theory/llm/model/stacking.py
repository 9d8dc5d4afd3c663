"""Weights of the blocks are stacked: each array has a first axis with one entry for each layer.

So an accelerator's program can hold the code of one block, in a loop over the layers. Files and measured blocks of
weights have one array for each layer.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

BLOCKS = "blocks"


def is_stacked(path: Any) -> bool:
    """Return whether a path in a tree of weights, or in one made of such trees, belongs to the blocks."""
    return any(getattr(part, "key", None) == BLOCKS for part in path)


def num_axes(path: Any, leaf: Any) -> int:
    """Return the number of axes of a weight in one layer: 2 for matrices, 1 for norms and biases."""
    return len(leaf.shape) - is_stacked(path)


def stacked(parts: list[PyTree]) -> Any:
    """Stack the weights of blocks."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def by_layer(params: PyTree) -> PyTree:
    """Return the weights, as nested dictionaries, with those of each layer under its number in `blocks`."""
    count = len(jax.tree.leaves(params[BLOCKS])[0])
    layers = {layer: jax.tree.map(lambda leaf: leaf[layer], params[BLOCKS]) for layer in range(count)}  # noqa: B023
    return {**params, BLOCKS: layers}
