"""Normal random numbers from a PRNG key, drawn by one compiled program for all shapes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32
from jaxtyping import Array, Float, Key

from icl_theory.numerics.tracing import is_traced

BLOCK = 2**14  # numbers that one call of the compiled program draws
# For each precision, the unsigned integer type of its size and the bits of the number 1.
LAYOUTS = {np.dtype(np.float64): (np.uint64, 0x3FF0000000000000), np.dtype(np.float32): (np.uint32, 0x3F800000)}


def standard_normal(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[np.ndarray | Array, ...]:
    """Draw the numbers of `jax.random.normal(key, shape)` without compiling a program for the shape.

    `jax.random.normal` is compiled anew for every shape. JAX's default generator makes number i from the key and i
    alone, so blocks of one size, drawn one after the other by one program, hold the same numbers, bit for bit.

    Args:
        key: A typed key. A traced key (under `jit`, `vmap`) or one of another generator goes to `jax.random.normal`.
        shape: Shape of the result.

    Returns:
        Numbers in the session's precision: a numpy array, or a JAX array if `jax.random.normal` made them.

    Examples:
        >>> bool((standard_normal(jax.random.key(0), (3, 2)) == jax.random.normal(jax.random.key(0), (3, 2))).all())
        True
    """
    words, count = jax.random.key_data(key), math.prod(shape)
    if is_traced(words) or not _made_by_index(key):  # inside `jit` the words of any key are traced
        return jax.random.normal(key, shape)
    dtype = np.dtype(np.float64 if jax.config.jax_enable_x64 else np.float32)  # type: ignore[attr-defined]
    starts = np.arange(0, count, BLOCK, dtype=np.uint64)
    halves = np.stack([starts >> np.uint64(32), starts & np.uint64(0xFFFFFFFF)], axis=1).astype(np.uint32)
    blocks = [np.asarray(_block(words, start, dtype)) for start in halves]
    return np.concatenate([*blocks, np.empty(0, dtype)])[:count].reshape(shape)


def _made_by_index(key: Any) -> bool:
    """True if the key is of JAX's default generator in its default mode, which makes number i from the key and i."""
    by_index: bool = jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
    return by_index and str(jax.random.key_impl(key)) == "threefry2x32"


@partial(jax.jit, static_argnames="dtype")
def _block(words: Any, start: Any, dtype: Any) -> Array:
    """Draw BLOCK numbers from number `start` on, making them from random bits as `jax.random.normal` does.

    The start is given as two 32-bit halves, the high one first.
    """
    integer, one = LAYOUTS[dtype]
    low = start[1] + jnp.arange(BLOCK, dtype=jnp.uint32)  # no carry: blocks begin at multiples of their size
    first, second = threefry_2x32(words, jnp.concatenate([jnp.full_like(low, start[0]), low])).reshape(2, BLOCK)
    if dtype == np.float64:
        bits = (first.astype(jnp.uint64) << integer(32)) | second.astype(jnp.uint64)
    else:
        bits = first ^ second
    kept = jnp.finfo(dtype).nmant
    mantissa = bits >> integer(jnp.finfo(dtype).bits - kept)
    from_zero = jax.lax.bitcast_convert_type(mantissa | integer(one), dtype) - dtype.type(1)
    least = np.nextafter(dtype.type(-1), dtype.type(0))  # at −1 the inverse error function is infinite
    uniform = jnp.maximum(least, from_zero * (dtype.type(1) - least) + least)
    return dtype.type(np.sqrt(2)) * jax.lax.erf_inv(uniform)
