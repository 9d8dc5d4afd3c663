"""Sampled prompts `[[x_1 … x_N x_q], [y_1 … y_N 0]]` (theory notes, §1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from icl_theory.errors import InputError, as_floats, check_number, check_shape
from icl_theory.numerics.tracing import array_module, device_array


class Prompts(NamedTuple):
    """A set of P prompts. Shorter contexts are padded with zero tokens, which add nothing to sums.

    Attributes:
        x: Context inputs, (P, N, D).
        y: Context labels, noise included, (P, N).
        x_query: Query inputs, (P, D).
        y_query: Targets, (P,); those of sampled prompts are `w·x_q`, without noise.
        num_context: Number N of context tokens of each prompt, without padding, (P,).
        task_vector: Task vector of each prompt, (P, D); NaN where it is unknown.
        group: Index of the group each prompt came from, (P,).
        weight: Weight s_p of each prompt's squared error in the loss, (P,), or None if all are weighted equally.
            Upsampling prompt p by κ is `weight[p] = κ`.
        count_query: Whether averages over a prompt's tokens divide by N + 1, the query counted, in place of N, (P,), or
            None if none does. Softmax attention takes no such average.
    """

    x: Float[Any, "P N D"]
    y: Float[Any, "P N"]
    x_query: Float[Any, "P D"]
    y_query: Float[Any, " P"]
    num_context: Int[Any, " P"]
    task_vector: Float[Any, "P D"]
    group: Int[Any, " P"]
    weight: Float[Any, " P"] | None = None
    count_query: Bool[Any, " P"] | None = None

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        x_query: Any,
        y_query: Any,
        *,
        weight: Any = None,
        num_context: Any = None,
        count_query: bool = False,
    ) -> Prompts:
        """Build prompts from your own data: arrays, lists or anything that numpy accepts.

        Args:
            x: Context inputs, (P, N, D).
            y: Context labels, (P, N).
            x_query: Query inputs, (P, D).
            y_query: Targets, (P,).
            weight: Weight of each prompt in the loss, (P,); equal weights by default.
            num_context: Number of context tokens of each prompt, (P,); N for all by default. Later tokens must be zero.
            count_query: Whether averages over a prompt's tokens divide by N + 1 in place of N.

        Returns:
            Prompts in jax's default precision. Their task vectors are unknown, that is NaN.

        Raises:
            InputError: Shapes do not fit, there is no prompt or context token, a number is not real or not finite (the
                index of the first is given), a token beyond `num_context` is not zero, or the weights are negative or
                all zero.

        Examples:
            >>> prompts = Prompts.from_arrays([[[1.0, 0.0], [0.0, 2.0]]], [[1.0, 0.5]], [[1.0, 1.0]], [1.5])
            >>> prompts.beta.tolist()
            [[0.5, 0.5]]
        """
        found = {"x": x, "y": y, "x_query": x_query, "y_query": y_query}
        arrays = {name: as_floats(name, values) for name, values in found.items()}
        if arrays["x"].ndim != 3:
            raise InputError("x", f"shape {arrays['x'].shape}", "give shape (P, N, D)")
        count, longest, dim = arrays["x"].shape
        for name, size in (("P", count), ("N", longest), ("D", dim)):
            if size == 0:
                raise InputError("x", f"shape {arrays['x'].shape}", f"{name} must be at least one")
        for name, shape in {"y": (count, longest), "x_query": (count, dim), "y_query": (count,)}.items():
            check_shape(name, arrays[name], shape)
        lengths = np.full(count, longest) if num_context is None else as_floats("num_context", num_context)
        check_shape("num_context", lengths, (count,))
        largest = float(jnp.finfo(jax.dtypes.canonicalize_dtype(float)).max)
        for name, values in arrays.items():
            _check_each(name, values, np.abs(values) <= largest, f"give a finite number, at most {largest:.2g}")
        whole = (lengths >= 1) & (lengths <= longest) & (lengths == np.floor(lengths))
        _check_each("num_context", lengths, whole, f"give a whole number from 1 to {longest}")
        if weight is not None:
            weight = as_floats("weight", weight)
            check_shape("weight", weight, (count,))
        prompts = cls(
            **{name: device_array(values, float) for name, values in arrays.items()},
            num_context=device_array(lengths, int),
            task_vector=device_array(np.full((count, dim), np.nan), float),
            group=device_array(np.zeros(count), int),
            weight=None if weight is None else device_array(weight, float),
            count_query=device_array(np.ones(count), bool) if count_query else None,
        )
        check_prompts(prompts)
        return prompts

    @property
    def dim(self) -> int:
        """D, the dimension of the inputs."""
        return self.x_query.shape[-1]

    @property
    def weights(self) -> Float[Array, " P"]:
        """The weights s_p; all ones if none are set."""
        if self.weight is None:
            return device_array(array_module(self.y_query).ones(self.y_query.shape, self.y_query.dtype))
        return jnp.asarray(self.weight, self.y_query.dtype)

    @property
    def divisor(self) -> Int[Any, " P"]:
        """Number that sums over a prompt's tokens are divided by: N, or N + 1 where the query is counted."""
        return self.num_context if self.count_query is None else self.num_context + self.count_query

    @property
    def mask(self) -> Float[Array, "P N"]:
        """Mask of the context tokens: 1 at true tokens, 0 at padding."""
        return (jnp.arange(self.y.shape[-1]) < self.num_context[:, None]).astype(self.y.dtype)

    @property
    def beta(self) -> Float[Array, "P D"]:
        """The correlation `β = (1/N) Σ_n y_n x_n` of each prompt's context; N is its `divisor`."""
        return jnp.einsum("pn,pnd->pd", self.y, self.x) / self.divisor[:, None]

    @property
    def tokens(self) -> Float[Array, "P tokens entries"]:
        """Tokens of each prompt as rows, (P, N+1, D+1), with the query token `(x_q, 0)` last."""
        context = jnp.concatenate([self.x, self.y[..., None]], axis=-1)
        query = jnp.concatenate([self.x_query, jnp.zeros_like(self.y_query)[:, None]], axis=-1)
        return jnp.concatenate([context, query[:, None]], axis=1)


def _check_each(field: str, values: np.ndarray, good: np.ndarray, remedy: str) -> None:
    """Raise `InputError` with the index of the first entry that is not good."""
    bad = np.argwhere(~good)
    if len(bad):
        place = tuple(map(int, bad[0]))
        raise InputError(f"{field}[{', '.join(map(str, place))}]", float(values[place]), remedy)


def concatenate_prompts(parts: Sequence[Prompts]) -> Prompts:
    """Join several sets of prompts into one. Parts without weights, or without counted queries, stay as they are.

    Raises:
        InputError: There are no parts, or their dimensions or padded lengths differ.
    """
    if not parts:
        raise InputError("parts", "[]", "give at least one set of prompts")
    shapes = [np.shape(part.x)[1:] for part in parts]
    if len(set(shapes)) > 1:
        raise InputError("parts", f"shapes {shapes}", "all must have the same (padded N, D)")
    if any(part.weight is not None for part in parts):
        parts = [part._replace(weight=part.weights) for part in parts]
    if any(part.count_query is not None for part in parts):
        parts = [part._replace(count_query=part.divisor > part.num_context) for part in parts]
    if len(parts) == 1:
        return parts[0]
    array = array_module(parts)  # numpy concatenates without compiling for these shapes
    return jax.tree.map(lambda *leaves: device_array(array.concatenate(leaves)), *parts)


def at_context_lengths(prompts: Prompts, lengths: Sequence[int]) -> Prompts:
    """Copy every prompt once for each context length, keeping only that many of its first tokens.

    The mean square error over the result is the average over the lengths of the error with that much context. This is
    ZSLS25's loss on sequences of varying length, except that the query is the prompt's own at every length, and that
    averages divide by the context's length unless the prompts count the query (`count_query`).

    Raises:
        InputError: There are no prompts or no lengths, or a length is below one or above the context of some prompt.
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
                x=prompts.x * kept[:, None], y=prompts.y * kept, num_context=jnp.full_like(prompts.num_context, length)
            )
        )
    return concatenate_prompts(parts)


def check_prompts(prompts: Prompts, *, first: int = 0, weighted: bool = True) -> None:
    """Raise `InputError` if a set of prompts is empty or invalid.

    Invalid are fields of the wrong shape, context lengths out of range, NaN or infinity, padding that is not zero, and
    weights that are negative or (if `weighted`) all zero. Messages number the prompts from `first`.
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
    if prompts.count_query is not None:
        check_shape("prompts.count_query", prompts.count_query, (count,))
    if prompts.weight is not None:
        check_weights("prompts.weight", prompts.weight, count, first=first, weighted=weighted)


def check_weights(field: str, weights: Any, count: int, *, first: int = 0, weighted: bool = True) -> None:
    """Raise `InputError` unless there are `count` finite weights, none negative and (if `weighted`) not all zero."""
    check_shape(field, weights, (count,))
    values = np.asarray(weights)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        place = int(np.argmax(bad))
        raise InputError(f"{field}[{first + place}]", float(values[place]), "every weight must be finite, not negative")
    if weighted and not values.any():
        raise InputError(field, "all zero", "at least one weight must be positive")
