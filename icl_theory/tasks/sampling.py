"""Prompts drawn from a task mixture (theory notes, §1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from icl_theory.errors import check_number
from icl_theory.numerics.draws import standard_normal
from icl_theory.numerics.tracing import array_module, device_array, is_traced
from icl_theory.tasks.mixture import TaskDistribution, TaskMixture
from icl_theory.tasks.prompts import Prompts, concatenate_prompts


class PromptKeys(NamedTuple):
    """Separate PRNG keys, so that for example the same inputs can be drawn with other tasks or other noise."""

    inputs: Key[Array, ""]
    tasks: Key[Array, ""]
    noise: Key[Array, ""]

    @classmethod
    def from_key(cls, key: Key[Array, ""]) -> PromptKeys:
        """Three independent keys from one."""
        return cls(*jax.random.split(key, 3))


def sample_prompts(mixture: TaskMixture, num_prompts: int, *, key: Key[Array, ""] | PromptKeys) -> Prompts:
    """Draw prompts from a mixture; group g gets its share of them, rounded so that the counts add up.

    Args:
        mixture: Groups and their shares.
        num_prompts: Number of prompts, P ≥ 1.
        key: One PRNG key, or `PromptKeys` to hold inputs, tasks or noise fixed.

    Returns:
        The prompts, group after group in the order of the mixture.
    """
    return concatenate_prompts(list(sample_prompt_chunks(mixture, num_prompts, key=key, chunk_size=num_prompts)))


def sample_prompt_chunks(
    mixture: TaskMixture, num_prompts: int, *, key: Key[Array, ""] | PromptKeys, chunk_size: int = 2**15
) -> Iterator[Prompts]:
    """Draw prompts as `sample_prompts` does, in pieces of bounded size, for data sets that do not fit into memory.

    Every piece holds prompts of one group, and `prompt_moments` takes the iterator. With the same key, a group that
    fits into one piece is drawn as by `sample_prompts`; other draws depend on `chunk_size`.
    """
    check_number("num_prompts", num_prompts, minimum=1, integer=True)
    check_number("chunk_size", chunk_size, minimum=1, integer=True)
    keys = key if isinstance(key, PromptKeys) else PromptKeys.from_key(key)
    counts = _group_counts(np.asarray(mixture.shares), int(num_prompts))
    longest = max(int(group.num_context) for group in mixture.groups)
    for index, (group, total) in enumerate(zip(mixture.groups, counts, strict=True)):
        group_keys = PromptKeys(*(jax.random.fold_in(k, index) for k in keys))
        for piece, start in enumerate(range(0, total, int(chunk_size))):
            piece_keys = PromptKeys(*(jax.random.fold_in(k, piece) for k in group_keys)) if piece else group_keys
            count, num_context = int(min(chunk_size, total - start)), int(group.num_context)
            x, y, x_query, y_query, task = _sample_group(group, piece_keys, count)
            array = array_module(x)
            padding = longest - num_context
            drawn = Prompts(
                x=array.pad(x, ((0, 0), (0, padding), (0, 0))),
                y=array.pad(y, ((0, 0), (0, padding))),
                x_query=x_query,
                y_query=y_query,
                num_context=np.full(count, num_context),
                task_vector=task,
                group=np.full(count, index),
                count_query=np.ones(count, bool) if group.count_query else None,
            )
            yield jax.tree.map(device_array, drawn)


def _group_counts(shares: np.ndarray, num_prompts: int) -> np.ndarray:
    """Largest-remainder rounding of `shares * num_prompts`."""
    exact = shares * num_prompts
    counts = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: num_prompts - counts.sum()]] += 1
    return counts


def _sample_group(group: TaskDistribution, keys: PromptKeys, count: int) -> tuple[Any, ...]:
    """Draw context inputs and labels, query inputs and targets, and task vectors (on the host unless traced)."""
    array, num_context = array_module((group, keys)), int(group.num_context)
    group = jax.tree.map(array.asarray, group)
    dim, dtype = group.dim, group.covariance.dtype

    def normal(key: Any, *shape: int) -> Any:
        return array.asarray(standard_normal(key, shape), dtype)

    white = normal(keys.inputs, count * (num_context + 1), dim)  # one matrix product for all tokens
    inputs = (white @ _symmetric_root(group.covariance, array)).reshape(count, num_context + 1, dim)
    task = group.task_mean + normal(keys.tasks, count, dim) @ _symmetric_root(group.task_covariance, array)
    x, x_query = inputs[:, :-1], inputs[:, -1]
    y = array.einsum("pnd,pd->pn", x, task)
    if is_traced(group.noise_std) or group.noise_std:  # the noise has its own key, so nothing else depends on it
        y = y + group.noise_std * normal(keys.noise, count, num_context)
    return x, y, x_query, array.einsum("pd,pd->p", x_query, task), task


def _symmetric_root(matrix: Float[Array | np.ndarray, "D D"], array: Any) -> Float[Array | np.ndarray, "D D"]:
    eigenvalues, vectors = array.linalg.eigh(matrix)
    return (vectors * array.sqrt(array.maximum(eigenvalues, 0.0))) @ vectors.T
