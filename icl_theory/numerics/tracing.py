"""Helpers that tell concrete arrays from those traced inside `jit`, `vmap` and `grad`.

jax is imported only where it is used; if nothing has imported it, no value can be traced.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def is_traced(value: Any) -> bool:
    """Return True if a value is traced by `jit`, `vmap` or `grad`, so that it has no number to check yet."""
    if "jax" not in sys.modules:
        return False
    import jax

    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def array_module(value: Any) -> Any:
    """Return `jax.numpy` if anything is traced, else `numpy`, which compiles nothing for new shapes."""
    if not is_traced(value):
        return np
    import jax.numpy as jnp

    return jnp


def device_array(value: Any, dtype: Any = None) -> Any:
    """Return `jnp.asarray(value, dtype)`, but copy host arrays directly instead of compiling for each shape."""
    import jax
    import jax.numpy as jnp

    if is_traced(value) or isinstance(value, jax.Array):
        return jnp.asarray(value, dtype)
    return jax.device_put(np.asarray(value, dtype))
