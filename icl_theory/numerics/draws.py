"""Normal random numbers from a PRNG key, drawn by one compiled program for all shapes."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32
from jaxtyping import Array, Float, Key

from icl_theory.numerics.tracing import is_traced

BLOCK = 2**14  # numbers that one call of the compiled program draws
ONE = np.uint64(0x3FF0000000000000)  # the bits of the number 1


def standard_normal(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[np.ndarray | Array, ...]:
    """Draw the float64 numbers of `jax.random.normal(key, shape)`, rounded to the session's precision.

    One key thus gives the same data and the same start in either precision. `jax.random.normal` draws other numbers in
    float32, and is compiled anew for every shape. JAX's default generator makes number i from the key and i alone, so
    blocks of one size, drawn one after the other by one program, hold the same numbers, bit for bit.

    Args:
        key: A typed key. One of another generator goes to `jax.random.normal`, and so does a traced key (under `jit`,
            `vmap`), whose numbers in float32 are JAX's own.
        shape: Shape of the result.

    Returns:
        Numbers in the session's precision: a numpy array, or a JAX array for a traced key.

    Examples:
        >>> bool((standard_normal(jax.random.key(0), (3, 2)) == jax.random.normal(jax.random.key(0), (3, 2))).all())
        True
    """
    words, count = jax.random.key_data(key), math.prod(shape)
    dtype = np.dtype(np.float64 if jax.config.jax_enable_x64 else np.float32)  # type: ignore[attr-defined]
    if is_traced(words):  # inside `jit` the words of any key are
        return jax.random.normal(key, shape)
    with jax.enable_x64(True):
        if not _made_by_index(key):
            return np.asarray(jax.random.normal(key, shape), dtype)
        starts = np.arange(0, count, BLOCK, dtype=np.uint64)
        halves = np.stack([starts >> np.uint64(32), starts & np.uint64(0xFFFFFFFF)], axis=1).astype(np.uint32)
        blocks = [np.asarray(_block(words, start), dtype) for start in halves]
    return np.concatenate([*blocks, np.empty(0, dtype)])[:count].reshape(shape)


def _made_by_index(key: Any) -> bool:
    """True if the key is of JAX's default generator in its default mode, which makes number i from the key and i."""
    by_index: bool = jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
    return by_index and str(jax.random.key_impl(key)) == "threefry2x32"


@jax.jit
def _block(words: Any, start: Any) -> Array:
    """Draw BLOCK numbers from number `start` on, making them from random bits as `jax.random.normal` does.

    The start is given as two 32-bit halves, the high one first.
    """
    low = start[1] + jnp.arange(BLOCK, dtype=jnp.uint32)  # no carry: blocks begin at multiples of their size
    first, second = threefry_2x32(words, jnp.concatenate([jnp.full_like(low, start[0]), low])).reshape(2, BLOCK)
    bits = (first.astype(jnp.uint64) << np.uint64(32)) | second.astype(jnp.uint64)
    mantissa = bits >> np.uint64(64 - jnp.finfo(np.float64).nmant)
    from_zero = jax.lax.bitcast_convert_type(mantissa | ONE, np.float64) - 1.0
    least = np.nextafter(-1.0, 0.0)  # at −1 the inverse error function is infinite
    uniform = jnp.maximum(least, from_zero * (1.0 - least) + least)
    return np.sqrt(2.0) * jax.lax.erf_inv(uniform)
