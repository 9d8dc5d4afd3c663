"""Prompts drawn inside a compiled program, each from a group drawn for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Key

from icl_theory.numerics.tracing import device_array
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.prompts import Prompts


class GroupDraws(NamedTuple):
    """Numbers that the groups of a mixture draw their prompts with, the axis of groups first.

    Attributes:
        input_root: Symmetric square root of Λ_g, (G, D, D).
        task_root: That of Γ_g, (G, D, D).
        task_mean: μ_g, (G, D).
        noise_std: σ_g, (G,).
        num_context: N_g, (G,).
        count_query: Whether averages divide by N_g + 1, (G,).
    """

    input_root: Float[Any, "G D D"]
    task_root: Float[Any, "G D D"]
    task_mean: Float[Any, "G D"]
    noise_std: Float[Any, " G"]
    num_context: Int[Any, " G"]
    count_query: Any


@struct.dataclass
class FreshPrompts:
    """A mixture from which a compiled program draws prompts; contexts are padded to the longest.

    Attributes:
        groups: The numbers of the groups.
        longest: The largest N_g.
    """

    groups: GroupDraws
    longest: int = struct.field(pytree_node=False)

    @classmethod
    def of(cls, mixture: TaskMixture) -> FreshPrompts:
        """Take the square roots of all covariances, once."""

        def root(matrix: Any) -> np.ndarray:
            values, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
            return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)

        columns = [
            (root(group.covariance), root(group.task_covariance), group.task_mean, group.noise_std)
            for group in mixture.groups
        ]
        stacked = [np.stack([np.asarray(part) for part in column]) for column in zip(*columns, strict=True)]
        roots, task_roots, means, noise = (device_array(column, float) for column in stacked)
        lengths = np.asarray([int(group.num_context) for group in mixture.groups])
        counted = np.asarray([bool(group.count_query) for group in mixture.groups])
        groups = GroupDraws(roots, task_roots, means, noise, device_array(lengths, int), device_array(counted))
        return cls(groups, int(lengths.max()))

    def draw(self, key: Key[Array, ""], group: Int[Array, " P"]) -> Prompts:
        """Draw one prompt from each of the given groups, (P,)."""
        keys, count, dim = jax.random.split(key, 3), len(group), self.groups.task_mean.shape[-1]
        chosen = jax.tree.map(lambda leaf: leaf[group], self.groups)
        dtype = chosen.task_mean.dtype
        white = jax.random.normal(keys[0], (count, self.longest + 1, dim), dtype)
        inputs = jnp.einsum("pnd,pde->pne", white, chosen.input_root)
        white = jax.random.normal(keys[1], (count, dim), dtype)
        task = chosen.task_mean + jnp.einsum("pd,pde->pe", white, chosen.task_root)
        noise = jax.random.normal(keys[2], (count, self.longest), dtype)
        labels = jnp.einsum("pnd,pd->pn", inputs, task)
        kept = jnp.arange(self.longest) < chosen.num_context[:, None]
        return Prompts(
            x=inputs[:, :-1] * kept[..., None],
            y=(labels[:, :-1] + chosen.noise_std[:, None] * noise) * kept,
            x_query=inputs[:, -1],
            y_query=labels[:, -1],
            num_context=chosen.num_context,
            task_vector=task,
            group=group,
            count_query=chosen.count_query,
        )
