"""A data set reduced to the moments that full-batch training of linear attention needs (theory notes, §9).

With the cubic features φ_p of prompt p and its weight s_p, the weighted mean square error of any linear attention is

    L(T) = (1/s) (TᵀMT − 2cᵀT + e),   M = Σ s_p φ_p φ_pᵀ,   c = Σ s_p y_p φ_p,   e = Σ s_p y_p²,   s = Σ s_p,

exactly. Once M, c and e are built, the cost of a step depends neither on the number of prompts nor on their length.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from icl_theory.environment import cores
from icl_theory.errors import InputError, check_choice, check_number, check_shape
from icl_theory.models import BLOCKS
from icl_theory.models.cubic_features import cubic_features, num_features
from icl_theory.numerics.cpu_workers import Workers
from icl_theory.numerics.tracing import device_array, is_traced
from icl_theory.tasks.prompts import Prompts, check_prompts

CHUNK_SIZE = 2048
FORMAT = "icl_theory moments 1: sums of s*phi*phi^T, phi = G x_q / N, N without the query"


@struct.dataclass
class Moments:
    """Moments of a weighted data set, as sums over its prompts.

    `a + b` holds the moments of both data sets together, `3.0 * a` those of the same data upsampled three times.

    Attributes:
        gram: Gram matrix M of the features, (F, F).
        cross: Cross moment c of features and targets, (F,).
        energy: Sum e of squared targets, ().
        weight: Sum s of the weights, (); the other sums are divided by it before training.
        count: Number of prompts (0 for a population).
        dim: Input dimension D.
        blocks: Kind of features, `"reduced"` (F = D²) or `"full"` (F = D(D+1)(D+2)/2).
    """

    gram: Any
    cross: Any
    energy: Any
    weight: Any
    count: Any
    dim: int = struct.field(pytree_node=False)
    blocks: str = struct.field(pytree_node=False)

    def __add__(self, other: Moments) -> Moments:
        if not isinstance(other, Moments):
            return NotImplemented
        for name in ("dim", "blocks"):
            if getattr(self, name) != getattr(other, name):
                raise InputError(f"moments.{name}", getattr(other, name), f"the other has {getattr(self, name)!r}")
        return jax.tree.map(lambda left, right: left + right, _exact(self), _exact(other))

    def __radd__(self, zero: int) -> Moments:
        """Support `sum` of several moments, which starts from 0."""
        return self if isinstance(zero, int) and zero == 0 else NotImplemented

    def __mul__(self, factor: float | Float[Array, ""]) -> Moments:
        check_number("factor", factor, minimum=0.0)
        return self._scaled(factor)

    __rmul__ = __mul__

    def _scaled(self, factor: Any) -> Moments:
        kept = _exact(self)
        factor = factor if is_traced(factor) else float(factor)
        return dataclasses.replace(
            kept, **{name: factor * getattr(kept, name) for name in ("gram", "cross", "energy", "weight")}
        )

    @property
    def num_features(self) -> int:
        """The number of features F."""
        return num_features(self.dim, self.blocks)

    def mean(self) -> Moments:
        """Divide all sums by the weight, which gives the moments of one average prompt.

        Raises:
            InputError: The weight is zero.
        """
        if not is_traced(self.weight) and not self.weight > 0:
            raise InputError(
                "moments.weight", float(self.weight), "no prompt has weight; upsample by a positive factor"
            )
        return self._scaled(1.0 / self.weight)

    def restricted(self, blocks: str) -> Moments:
        """Restrict to the features of `blocks`; the reduced moments are the leading block of the full ones.

        Raises:
            InputError: The moments are reduced and `blocks` is `"full"`.
        """
        check_choice("blocks", blocks, BLOCKS)
        if blocks == self.blocks:
            return self
        if blocks == "full":
            raise InputError(
                "moments.blocks", self.blocks, "a model with blocks='full' needs prompt_moments(..., blocks='full')"
            )
        count = self.dim**2
        return dataclasses.replace(self, gram=self.gram[:count, :count], cross=self.cross[:count], blocks=blocks)

    def product(self, tensor: Float[Array, " F"]) -> Float[Array, " F"]:
        """The product `M T`; under `vmap`, one matrix product for all runs that share the moments."""
        return jnp.matmul(self.gram, tensor, precision=jax.lax.Precision.HIGHEST)

    def astype(self, dtype: Any) -> Moments:
        """Cast to another dtype, such as that of the model's parameters, in which training runs."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), self)

    def condition_number(self) -> float:
        """Ratio of the largest to the smallest nonzero (to rounding) eigenvalue of M; NaN above 2048 features."""
        return float("nan") if self.num_features > LARGEST_CONDITIONED else condition_number(self.gram)

    def save(self, path: Path | str) -> None:
        """Write an `.npz` file that `load_moments` reads.

        Raises:
            InputError: The file exists or cannot be written.
        """
        path = Path(path)
        names = ("gram", "cross", "energy", "weight", "count")
        arrays = {name: np.asarray(getattr(self, name)) for name in names}
        partial_path = path.with_name(path.name + ".part")
        if path.exists():
            raise InputError("path", str(path), "it exists; give another or remove it")
        try:
            with partial_path.open("wb") as file:
                np.savez(file, format=FORMAT, dim=self.dim, blocks=self.blocks, **arrays)  # type: ignore[arg-type]
            partial_path.rename(path)
        except OSError as error:
            partial_path.unlink(missing_ok=True)
            raise InputError("path", str(path), f"cannot be written ({error.strerror})") from None


def load_moments(path: Path | str) -> Moments:
    """Read the moments that `Moments.save` wrote, as float64 numpy arrays whatever the session's precision.

    Raises:
        InputError: The file cannot be read, is damaged, or follows another convention.
    """
    try:
        with np.load(path) as stored:
            values = dict(stored)
    except OSError as error:
        raise InputError("path", str(path), f"cannot be read ({error.strerror or error})") from None
    except (ValueError, TypeError, zipfile.BadZipFile, EOFError):
        raise InputError("path", str(path), "it is damaged, or no file of moments") from None
    if str(values.pop("format", None)) != FORMAT:
        raise InputError("path", str(path), f"it does not follow the convention {FORMAT!r}; build the moments again")
    try:
        dim, blocks = int(values.pop("dim")), str(values.pop("blocks"))
        found = Moments(dim=dim, blocks=blocks, **values)
    except (KeyError, TypeError, ValueError):
        raise InputError("path", str(path), "fields are missing; build the moments again") from None
    check_moments(found)
    return found


def prompt_moments(
    prompts: Prompts | Iterable[Prompts], *, blocks: str = "full", chunk_size: int = CHUNK_SIZE
) -> Moments:
    """Sum the moments of prompts, in float64 whatever the session's precision.

    Args:
        prompts: A set of prompts, or an iterable of sets that need not fit into memory together, as from
            `sample_prompt_chunks`.
        blocks: `"full"` serves every linear model; `"reduced"` is smaller and serves models with reduced blocks.
        chunk_size: Number of prompts that each core sums at a time. Beyond the prompts, each core needs memory for
            chunk_size·(F + 2N(D+1)) + F² numbers.

    Returns:
        Sums as float64 numpy arrays. Moments of parts, computed by other calls, devices or processes, add up with `+`.

    Raises:
        InputError: There are no prompts, a prompt holds NaN or infinity (its number is given), or a weight is negative.
            Weights that are all zero are accepted here, since a part of a data set may have no weight; `mean` and
            `make_loss` refuse a total weight of zero.

    Reference: theory notes, §9.
    """
    check_choice("blocks", blocks, BLOCKS)
    check_number("chunk_size", chunk_size, minimum=1, integer=True)
    total: Moments | None = None
    seen = 0
    for part in [prompts] if isinstance(prompts, Prompts) else prompts:
        check_prompts(part, first=seen, weighted=False)
        if total is not None and part.dim != total.dim:
            raise InputError("prompts", f"dimension {part.dim}", f"those before have dimension {total.dim}")
        count = len(part.y_query)
        part, size = jax.tree.map(np.asarray, part), min(chunk_size, count)
        with jax.enable_x64(True), Workers(cores()) as workers:
            starts = range(0, count, size)
            for first in range(0, len(starts), cores()):
                fold = lambda start, part=part, size=size: _fold(padded_chunk(part, start, size), blocks)  # noqa: E731
                for folded in workers.map(fold, starts[first : first + cores()]):
                    total = folded if total is None else total + folded
        seen += count
    if total is None:
        raise InputError("prompts", "0 prompts", "give at least one")
    return dataclasses.replace(jax.tree.map(np.asarray, total), count=seen)


def moment_sums(prompts: Prompts, *, blocks: str = "full") -> Moments:
    """Sum the moments of prompts in one go, in their own dtype and without checks, for use in `jit` or `shard_map`.

    The result is a pytree of sums, so `jax.lax.psum` of it gives the moments of the whole data set.
    """
    features, weights = cubic_features(prompts, blocks=blocks), prompts.weights
    weighted = weights[:, None] * features
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    return Moments(
        gram=product(weighted.T, features),
        cross=product(weighted.T, prompts.y_query),
        energy=jnp.sum(weights * jnp.square(prompts.y_query)),
        weight=jnp.sum(weights),
        count=jnp.asarray(len(weights)),
        dim=prompts.dim,
        blocks=blocks,
    )


_fold = jax.jit(lambda prompts, blocks: moment_sums(prompts, blocks=blocks), static_argnums=1)


def padded_chunk(prompts: Prompts, start: int, size: int) -> Prompts:
    """Return `size` prompts from `start` on in float64, padded with prompts of weight zero so that all chunks match."""
    stop = min(start + size, len(prompts.y_query))
    missing = start + size - stop

    def take(leaf: Any, fill: Any, dtype: Any) -> jax.Array:
        values = np.asarray(leaf)[start:stop].astype(dtype)
        padding = [(0, missing), *[(0, 0)] * (values.ndim - 1)]
        return device_array(np.pad(values, padding, constant_values=fill) if missing else values)

    real = partial(take, fill=0, dtype=np.float64)
    return Prompts(
        x=real(prompts.x),
        y=real(prompts.y),
        x_query=real(prompts.x_query),
        y_query=real(prompts.y_query),
        num_context=take(prompts.num_context, 1, np.int64),
        task_vector=None,
        group=None,
        weight=real(np.ones(len(prompts.y_query)) if prompts.weight is None else prompts.weight),
        count_query=None if prompts.count_query is None else take(prompts.count_query, False, bool),
    )


def _exact(moments: Moments) -> Moments:
    """Turn concrete leaves into numpy arrays, which stay float64 whatever the session's precision."""
    return moments if is_traced(moments) else jax.tree.map(np.asarray, moments)


LARGEST_CONDITIONED = 2048  # largest number of features for which the condition number is computed


def condition_number(gram: Any) -> float:
    """Ratio of the largest to the smallest eigenvalue, ignoring eigenvalues that are zero to rounding."""
    gram = np.asarray(gram)
    values = np.linalg.eigvalsh(gram.astype(np.float64))
    values = values[values > len(values) * np.finfo(gram.dtype).eps * values[-1]]
    return float(values[-1] / values[0]) if len(values) else float("nan")


def check_moments(moments: Moments) -> None:
    """Raise `InputError` naming a field that has the wrong shape or is not finite."""
    size = moments.num_features
    for name, shape in (("gram", (size, size)), ("cross", (size,)), ("energy", ()), ("weight", ())):
        value = getattr(moments, name)
        check_shape(f"moments.{name}", value, shape)
        if not is_traced(value) and not np.all(np.isfinite(np.asarray(value))):
            raise InputError(
                f"moments.{name}", "NaN or infinity", "every entry must be finite; build the moments again"
            )
