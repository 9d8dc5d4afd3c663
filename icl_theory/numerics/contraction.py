"""Small sums of products that stay fast when thousands of runs are vmapped.

The tensors of one model have a few hundred entries. A vmapped `einsum` over them becomes many tiny matrix products,
whose time is overhead. The two operations here send the axis of runs *last* instead: a sum is written out as
multiply-adds of whole rows of runs, which the compiler fuses and vectorises, and an operand that all runs share makes
one large matrix product. Both are differentiable to any order, forwards and backwards, and can be vmapped again.
"""

from __future__ import annotations

import math
import string
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

UNROLLED_TERMS = 32  # at most this many terms of a sum are written out; the rest is a reduction
UNROLLED_WORK = 2**15  # multiply-adds per run above which a matrix product for each run is faster

_contract_p = Primitive("contract")
_sum_entries_p = Primitive("sum_entries")


def contract(spec: str, left: Any, right: Any) -> jax.Array:
    """`einsum` of two arrays, `contract("he,hfd->efd", v, U)`; under `vmap` the new axis goes last.

    Args:
        spec: Lower-case letters, each in at least two of the three index groups and at most once in each group.
        left: First operand.
        right: Second operand.

    If batched arrays have their batch axis last (`vmap(..., in_axes=-1, out_axes=-1)`), no axis has to be moved.

    Examples:
        >>> contract("ij,j->i", jnp.eye(2), jnp.asarray([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """
    dtype = jnp.result_type(left, right)
    return _contract_p.bind(jnp.asarray(left, dtype), jnp.asarray(right, dtype), spec=spec)


def sum_entries(array: Any, entries: tuple[tuple[int, ...], ...], shape: tuple[int, ...]) -> jax.Array:
    """Return an array of this shape whose i-th entry is the sum of the entries `entries[i]` of another array.

    Entries of both are counted row by row. This is a linear map of static structure, such as a symmetrisation. Under
    `vmap` the new axis goes last.
    """
    return _sum_entries_p.bind(jnp.asarray(array), entries=entries, shape=shape, batch=0)


def reshape(array: Any, shape: tuple[int, ...]) -> jax.Array:
    """Reshape an array as `array.reshape(shape)` does, keeping the batch axis last under `vmap`."""
    return _sum_entries_p.bind(jnp.asarray(array), entries=None, shape=shape, batch=0)


def _letters(spec: str) -> tuple[str, str, str]:
    operands, result = spec.split("->")
    left, right = operands.split(",")
    return left, right, result


def _contract(left: jax.Array, right: jax.Array, *, spec: str) -> jax.Array:
    """Compute the contraction; upper-case letters in `spec` are batch axes, which the batching rule puts last."""
    names = _letters(spec)
    size = dict(zip(names[0] + names[1], left.shape + right.shape, strict=True))
    work = math.prod(length for name, length in size.items() if name.islower())
    one_sided = any(name.isupper() and (name in names[0]) != (name in names[1]) for name in size)
    if work > UNROLLED_WORK or (one_sided and names[0] and names[1]):
        return jnp.einsum(spec, left, right, precision=jax.lax.Precision.HIGHEST)
    summed = [name for name in names[0] if name not in names[2]]
    unrolled: list[str] = []
    while summed and math.prod(size[name] for name in (*unrolled, summed[0])) <= UNROLLED_TERMS:
        unrolled.append(summed.pop(0))
    kept = "".join(summed) + names[2]
    total: Any = None
    for index in np.ndindex(*[size[name] for name in unrolled]):
        at = dict(zip(unrolled, index, strict=True))
        term = _aligned(left, names[0], kept, at) * _aligned(right, names[1], kept, at)
        total = term if total is None else total + term
    return total.sum(axis=tuple(range(len(summed)))) if summed else total


def _aligned(array: jax.Array, names: str, kept: str, at: dict[str, int]) -> jax.Array:
    """Fix the indices in `at` and arrange the other axes in the order of `kept`, with size one for missing letters."""
    array = array[tuple(at.get(name, slice(None)) for name in names)]
    names = "".join(name for name in names if name not in at)
    array = array.transpose([names.index(name) for name in kept if name in names])
    return jnp.expand_dims(array, [axis for axis, name in enumerate(kept) if name not in names])


def _contract_shape(left: Any, right: Any, *, spec: str) -> Any:
    names = _letters(spec)
    size = dict(zip(names[0] + names[1], left.shape + right.shape, strict=True))
    return jax.core.ShapedArray(tuple(size[name] for name in names[2]), left.dtype)


def _contract_batched(operands: Any, axes: Any, *, spec: str) -> tuple[Any, int]:
    left, right, result = _letters(spec)
    new = next(letter for letter in string.ascii_uppercase if letter not in spec)
    names, moved = [], []
    for array, axis, name in zip(operands, axes, (left, right), strict=True):
        batched = isinstance(axis, int)
        names.append(name + new if batched else name)
        moved.append(jnp.moveaxis(array, axis, -1) if batched else array)
    return _contract_p.bind(*moved, spec=f"{names[0]},{names[1]}->{result}{new}"), len(result)


def _transpose_left(cotangent: Any, left: Any, right: Any, *, spec: str) -> Any:
    names = _letters(spec)
    return _contract_p.bind(cotangent, right, spec=f"{names[2]},{names[1]}->{names[0]}")


def _transpose_right(cotangent: Any, left: Any, right: Any, *, spec: str) -> Any:
    names = _letters(spec)
    return _contract_p.bind(cotangent, left, spec=f"{names[2]},{names[0]}->{names[1]}")


def _sum_entries(array: jax.Array, *, entries: Any, shape: Any, batch: int) -> jax.Array:
    if entries is None:  # every entry stays as it is
        return array.reshape(*shape, *array.shape[array.ndim - batch :])
    rows = array.reshape(-1, *array.shape[array.ndim - batch :])
    total: Any = jnp.zeros((len(entries), *rows.shape[1:]), rows.dtype)
    for place in range(max(len(group) for group in entries)):
        index = np.asarray([group[place] if place < len(group) else 0 for group in entries])
        used = np.asarray([place < len(group) for group in entries])
        term = rows if np.array_equal(index, np.arange(len(rows))) else rows[index]
        if not used.all():
            term = term * used.astype(array.dtype).reshape(-1, *[1] * batch)
        total = term if place == 0 else total + term
    return total.reshape(*shape, *total.shape[1:])


def _sum_entries_shape(array: Any, *, entries: Any, shape: Any, batch: int) -> Any:
    return jax.core.ShapedArray((*shape, *array.shape[array.ndim - batch :]), array.dtype)


def _sum_entries_batched(operands: Any, axes: Any, *, entries: Any, shape: Any, batch: int) -> tuple[Any, int]:
    moved = jnp.moveaxis(operands[0], axes[0], -1)
    out = _sum_entries_p.bind(moved, entries=entries, shape=shape, batch=batch + 1)
    return out, out.ndim - 1


def _sum_entries_transpose(cotangent: Any, array: Any, *, entries: Any, shape: Any, batch: int) -> list[Any]:
    original = array.aval.shape[: array.aval.ndim - batch]
    inverted = None if entries is None else _inverted(entries, math.prod(original))
    return [_sum_entries_p.bind(cotangent, entries=inverted, shape=original, batch=batch)]


@cache
def _inverted(entries: tuple[tuple[int, ...], ...], count: int) -> tuple[tuple[int, ...], ...]:
    """For each entry of the original array, the indices of the sums that contain it."""
    places: list[list[int]] = [[] for _ in range(count)]
    for index, group in enumerate(entries):
        for entry in group:
            places[entry].append(index)
    return tuple(map(tuple, places))


_contract_p.def_impl(jax.jit(_contract, static_argnames="spec"))
_contract_p.def_abstract_eval(_contract_shape)
mlir.register_lowering(_contract_p, mlir.lower_fun(_contract, multiple_results=False))
ad.defbilinear(_contract_p, _transpose_left, _transpose_right)
batching.primitive_batchers[_contract_p] = _contract_batched

_sum_entries_p.def_impl(jax.jit(_sum_entries, static_argnames=("entries", "shape", "batch")))
_sum_entries_p.def_abstract_eval(_sum_entries_shape)
mlir.register_lowering(_sum_entries_p, mlir.lower_fun(_sum_entries, multiple_results=False))
ad.deflinear2(_sum_entries_p, _sum_entries_transpose)
batching.primitive_batchers[_sum_entries_p] = _sum_entries_batched
