"""Sampled prompts `[[x_1 … x_N x_q], [y_1 … y_N 0]]` (theory notes, §1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from icl_theory.draws import standard_normal
from icl_theory.errors import InputError, check_number, check_shape
from icl_theory.tasks import TaskDistribution, TaskMixture
from icl_theory.tracing import array_module, device_array, is_traced


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
        weight: (P,) weight s_p of each prompt's squared error in the loss, or None where all count alike. Upsampling
            prompt p by κ is `weight[p] = κ`.
    """

    x: Any
    y: Any
    x_query: Any
    y_query: Any
    num_context: Any
    task_vector: Any
    group: Any
    weight: Any = None

    @property
    def dim(self) -> int:
        """D, the dimension of the inputs."""
        return self.x_query.shape[-1]

    @property
    def weights(self) -> Float[Array, " P"]:
        """s_p, one where none are set."""
        if self.weight is None:
            return device_array(array_module(self.y_query).ones(self.y_query.shape, self.y_query.dtype))
        return jnp.asarray(self.weight, self.y_query.dtype)

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
    return concatenate_prompts(list(sample_prompt_chunks(mixture, num_prompts, key=key, chunk_size=num_prompts)))


def sample_prompt_chunks(
    mixture: TaskMixture, num_prompts: int, *, key: Key[Array, ""] | PromptKeys, chunk_size: int = 2**15
) -> Iterator[Prompts]:
    """The same distribution in pieces of bounded size, for data sets that do not fit (`moments` takes the iterator).

    Every piece holds prompts of one group. The first piece of each group is that of `sample_prompts` with the same
    key, where it is as long; the draws as a whole depend on `chunk_size`.
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
            )
            yield jax.tree.map(device_array, drawn)


def concatenate_prompts(parts: Sequence[Prompts]) -> Prompts:
    """One set out of several of the same padded length; missing weights count as one where another part has them.

    Raises:
        InputError: no parts, or parts of other dimension or padded length.
    """
    if not parts:
        raise InputError("parts", "[]", "give at least one set of prompts")
    shapes = [np.shape(part.x)[1:] for part in parts]
    if len(set(shapes)) > 1:
        raise InputError("parts", f"shapes {shapes}", "all must have the same (padded N, D)")
    if any(part.weight is not None for part in parts):
        parts = [part._replace(weight=part.weights) for part in parts]
    if len(parts) == 1:
        return parts[0]
    array = array_module(parts)  # the host joins without compiling for these shapes
    return jax.tree.map(lambda *leaves: device_array(array.concatenate(leaves)), *parts)


def at_context_lengths(prompts: Prompts, lengths: Sequence[int]) -> Prompts:
    """Every prompt once at each context length, cut after its first tokens: the loss over several context lengths.

    The mean square error over the result is the mean over the lengths of the error with that much context, as in
    ZSLS25's loss on sequences of varying length, but with the prompt's own query at every length.

    Raises:
        InputError: a length below one or above the context of some prompt.
    """
    if np.ndim(lengths) != 1 or not len(lengths):
        raise InputError("lengths", lengths, "give a list of at least one")
    if not len(prompts.num_context):
        raise InputError("prompts", "0 prompts", "give at least one")
    shortest = int(np.min(np.asarray(prompts.num_context)))
    parts = []
    for length in lengths:
        check_number("lengths", length, minimum=1, maximum=shortest, integer=True)
        kept = jnp.arange(prompts.y.shape[-1]) < length
        parts.append(
            prompts._replace(
                x=prompts.x * kept[:, None],
                y=prompts.y * kept,
                num_context=jnp.full_like(prompts.num_context, length),
            )
        )
    return concatenate_prompts(parts)


def check_prompts(prompts: Prompts, *, first: int = 0, weighted: bool = True) -> None:
    """Raise `InputError` naming a field of the wrong shape, the first prompt that holds NaN or infinity, weights that
    are negative or all zero, or an empty set. `first` is the number of the first prompt in messages.
    """
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
            place = first + int(np.argmax(bad))
            raise InputError(f"prompts.{name}[{place}]", "NaN or infinity", "every entry must be finite")
    padding = np.arange(longest) >= np.asarray(prompts.num_context)[:, None]
    filled = padding & ((np.asarray(prompts.y) != 0) | (np.asarray(prompts.x) != 0).any(axis=-1))
    if filled.any():
        place = int(np.argmax(filled.any(axis=1)))
        remedy = f"tokens beyond num_context = {int(prompts.num_context[place])} must be zero (see at_context_lengths)"
        raise InputError(f"prompts.x[{first + place}]", "not zero in its padding", remedy)
    if prompts.weight is not None:
        check_weights("prompts.weight", prompts.weight, count, first=first, weighted=weighted)


def check_weights(field: str, weights: Any, count: int, *, first: int = 0, weighted: bool = True) -> None:
    """Raise `InputError` unless there are `count` finite weights, none negative and (`weighted`) not all zero."""
    check_shape(field, weights, (count,))
    values = np.asarray(weights)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        place = int(np.argmax(bad))
        raise InputError(f"{field}[{first + place}]", float(values[place]), "every weight must be finite, not negative")
    if weighted and not values.any():
        raise InputError(field, "all zero", "at least one weight must be positive")


def _group_counts(shares: np.ndarray, num_prompts: int) -> np.ndarray:
    """Largest-remainder rounding of `shares * num_prompts`."""
    exact = shares * num_prompts
    counts = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: num_prompts - counts.sum()]] += 1
    return counts


def _sample_group(group: TaskDistribution, keys: PromptKeys, count: int) -> tuple[Any, ...]:
    """Context inputs and labels, query inputs and targets, and task vectors; on the host unless something is traced."""
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
    if is_traced(group.noise_std) or group.noise_std:  # the noise has a key of its own: nothing else depends on it
        y = y + group.noise_std * normal(keys.noise, count, num_context)
    return x, y, x_query, array.einsum("pd,pd->p", x_query, task), task


def _symmetric_root(matrix: Float[Array | np.ndarray, "D D"], array: Any) -> Float[Array | np.ndarray, "D D"]:
    eigenvalues, vectors = array.linalg.eigh(matrix)
    return (vectors * array.sqrt(array.maximum(eigenvalues, 0.0))) @ vectors.T
