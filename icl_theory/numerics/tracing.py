"""Numbers at hand on the host or on a device, and names of numbers inside `jit`, `vmap` and `grad`.

jax is imported where it is used: what has not imported it holds no traced number.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def is_traced(value: Any) -> bool:
    """Return True inside `jit`/`vmap`/`grad`, where a value has no number to check yet."""
    if "jax" not in sys.modules:
        return False
    import jax

    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def array_module(value: Any) -> Any:
    """Return `jax.numpy` where something is traced, else `numpy`, which compiles no program for each operation and
    shape.
    """
    if not is_traced(value):
        return np
    import jax.numpy as jnp

    return jnp


def device_array(value: Any, dtype: Any = None) -> Any:
    """Return `jnp.asarray(value, dtype)`; from the host by copying, where `jnp.asarray` compiles for each shape."""
    import jax
    import jax.numpy as jnp

    if is_traced(value) or isinstance(value, jax.Array):
        return jnp.asarray(value, dtype)
    return jax.device_put(np.asarray(value, dtype))
