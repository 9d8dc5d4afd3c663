"""Sampled prompts `[[x_1 … x_N x_q], [y_1 … y_N 0]]` (theory notes, §1)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from icl_theory.errors import InputError, check_number, check_shape
from icl_theory.tasks import TaskDistribution, TaskMixture


class PromptKeys(NamedTuple):
    """Separate PRNG keys, so that (say) the same inputs can be drawn with other tasks or other noise."""

    inputs: Any
    tasks: Any
    noise: Any

    @classmethod
    def from_key(cls, key: Key[Array, ""]) -> PromptKeys:
        """Three independent keys from one."""
        return cls(*jax.random.split(key, 3))


class Prompts(NamedTuple):
    """P prompts. Context shorter than the longest is padded with zero tokens, which add nothing to sums.

    Attributes:
        x: (P, N, D) context inputs.
        y: (P, N) context labels, noise included.
        x_query: (P, D).
        y_query: (P,) targets `w·x_q`, without noise.
        num_context: (P,) the true N of each prompt, the 1/N of every average.
        task_vector: (P, D).
        group: (P,) index of the group each prompt came from.
    """

    x: Any
    y: Any
    x_query: Any
    y_query: Any
    num_context: Any
    task_vector: Any
    group: Any

    @property
    def dim(self) -> int:
        """D, the dimension of the inputs."""
        return self.x_query.shape[-1]

    @property
    def mask(self) -> Float[Array, "P N"]:
        """1 at true context tokens, 0 at padding."""
        return (jnp.arange(self.y.shape[-1]) < self.num_context[:, None]).astype(self.y.dtype)

    @property
    def beta(self) -> Float[Array, "P D"]:
        """`β = (1/N) Σ_n y_n x_n`."""
        return jnp.einsum("pn,pnd->pd", self.y, self.x) / self.num_context[:, None]

    @property
    def tokens(self) -> Float[Array, "P tokens entries"]:
        """Columns of the prompt matrix as rows, (P, N+1, D+1), the query token `(x_q, 0)` last."""
        context = jnp.concatenate([self.x, self.y[..., None]], axis=-1)
        query = jnp.concatenate([self.x_query, jnp.zeros_like(self.y_query)[:, None]], axis=-1)
        return jnp.concatenate([context, query[:, None]], axis=1)


def sample_prompts(mixture: TaskMixture, num_prompts: int, *, key: Key[Array, ""] | PromptKeys) -> Prompts:
    """Draw prompts from a mixture; group g gets its share of them, rounded so that the counts add up.

    Args:
        mixture: groups and shares.
        num_prompts: P ≥ 1.
        key: one PRNG key, or `PromptKeys` to hold inputs, tasks or noise fixed.

    Returns:
        Prompts in the order of the groups.
    """
    check_number("num_prompts", num_prompts, minimum=1, integer=True)
    keys = key if isinstance(key, PromptKeys) else PromptKeys.from_key(key)
    counts = _group_counts(np.asarray(mixture.shares), int(num_prompts))
    longest = max(int(group.num_context) for group in mixture.groups)
    parts = []
    for index, (group, count) in enumerate(zip(mixture.groups, counts, strict=True)):
        if count == 0:
            continue
        group_keys = PromptKeys(*(jax.random.fold_in(k, index) for k in keys))
        num_context = int(group.num_context)
        x, y, x_query, y_query, task = _sample_group(group, group_keys, int(count), num_context)
        padding = longest - num_context
        parts.append(
            Prompts(
                x=jnp.pad(x, ((0, 0), (0, padding), (0, 0))),
                y=jnp.pad(y, ((0, 0), (0, padding))),
                x_query=x_query,
                y_query=y_query,
                num_context=jnp.full(int(count), num_context),
                task_vector=task,
                group=jnp.full(int(count), index),
            )
        )
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def check_prompts(prompts: Prompts) -> None:
    """Raise `InputError` naming a field of the wrong shape, the first prompt that holds NaN or infinity, or an empty set."""
    if prompts.x_query.shape[0] == 0:
        raise InputError("prompts", "0 prompts", "give at least one")
    count, dim = prompts.x_query.shape
    longest = np.shape(prompts.y)[-1] if np.ndim(prompts.y) == 2 else 0
    shapes = {"x": (count, longest, dim), "y": (count, longest), "y_query": (count,), "num_context": (count,)}
    for name, shape in shapes.items():
        check_shape(f"prompts.{name}", getattr(prompts, name), shape)
    if np.any(np.asarray(prompts.num_context) < 1) or np.any(np.asarray(prompts.num_context) > longest):
        raise InputError("prompts.num_context", prompts.num_context, f"give between 1 and {longest} for each prompt")
    for name in ("x", "y", "x_query", "y_query"):
        values = np.asarray(getattr(prompts, name))
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if bad.any():
            raise InputError(f"prompts.{name}[{int(np.argmax(bad))}]", "NaN or infinity", "every entry must be finite")


def _group_counts(shares: np.ndarray, num_prompts: int) -> np.ndarray:
    """Largest-remainder rounding of `shares * num_prompts`."""
    exact = shares * num_prompts
    counts = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: num_prompts - counts.sum()]] += 1
    return counts


@partial(jax.jit, static_argnums=(2, 3))
def _sample_group(group: TaskDistribution, keys: PromptKeys, count: int, num_context: int):
    root, task_root = _symmetric_root(group.covariance), _symmetric_root(group.task_covariance)
    dtype = root.dtype
    inputs = jax.random.normal(keys.inputs, (count, num_context + 1, group.dim), dtype) @ root
    task = group.task_mean + jax.random.normal(keys.tasks, (count, group.dim), dtype) @ task_root
    noise = group.noise_std * jax.random.normal(keys.noise, (count, num_context), dtype)
    x, x_query = inputs[:, :-1], inputs[:, -1]
    y = jnp.einsum("pnd,pd->pn", x, task) + noise
    return x, y, x_query, jnp.einsum("pd,pd->p", x_query, task), task


def _symmetric_root(matrix: Float[Array, "D D"]) -> Float[Array, "D D"]:
    eigenvalues, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.sqrt(jnp.clip(eigenvalues, 0.0))) @ vectors.T
