"""Prompts compressed to their cubic features, which give the loss of every example without the prompts themselves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from icl_theory.errors import InputError, check_choice, check_number
from icl_theory.models import BLOCKS
from icl_theory.models.cubic_features import cubic_features, num_features
from icl_theory.moments.empirical import CHUNK_SIZE, Moments, padded_chunk
from icl_theory.numerics.tracing import device_array
from icl_theory.tasks.prompts import Prompts, check_prompts, check_weights


@struct.dataclass
class CompressedPrompts:
    """A set of P prompts reduced to their cubic features, all that linear attention depends on (theory notes, §9).

    Attributes:
        features: Features φ_p of each prompt, including the 1/N, (P, F).
        target: Target y_q of each prompt, (P,).
        weight: Weight s_p of each prompt, (P,).
        group: Index of the group each prompt came from, (P,).
        dim: Input dimension D.
        blocks: `"reduced"` (F = D²) or `"full"` (F = D(D+1)(D+2)/2).
    """

    features: Any
    target: Any
    weight: Any
    group: Any
    dim: int = struct.field(pytree_node=False)
    blocks: str = struct.field(pytree_node=False)

    def losses(self, tensors: Float[Array | np.ndarray, "*batch F"]) -> Float[Array, "*batch P"]:
        """Compute the loss `(y_p − ⟨T, φ_p⟩)²` of every example, by one matrix product for all snapshots.

        Args:
            tensors: Coefficients T, such as `run.tracked` of a run with `track=EffectiveTensor(loss.graphdef)`.

        Raises:
            InputError: The number of coefficients is not the number of features.
        """
        size = num_features(self.dim, self.blocks)
        if np.shape(tensors)[-1:] != (size,):
            remedy = f"the last axis must have {size} entries (blocks={self.blocks!r}, as the model's)"
            raise InputError("tensors", f"shape {np.shape(tensors)}", remedy)
        predictions = jnp.matmul(jnp.asarray(tensors), self.features.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.square(self.target - predictions)

    def moments(self, weight: Any = None, *, chunk_size: int = CHUNK_SIZE) -> Moments:
        """Sum the moments in float64 under new weights (default the examples' own): upsampling without the prompts.

        Raises:
            InputError: The number of weights is wrong, or they are negative, not finite or all zero.
        """
        check_number("chunk_size", chunk_size, minimum=1, integer=True)
        weight = self.weight if weight is None else weight
        check_weights("weight", weight, len(self.target))
        features, target = np.asarray(self.features), np.asarray(self.target, np.float64)
        weight = np.asarray(weight, np.float64)
        size = features.shape[1]
        gram, cross = np.zeros((size, size)), np.zeros(size)
        for start in range(0, len(target), chunk_size):
            part = slice(start, start + chunk_size)
            phi = features[part].astype(np.float64)
            weighted = weight[part, None] * phi
            gram += weighted.T @ phi
            cross += target[part] @ weighted
        return Moments(
            gram=gram,
            cross=cross,
            energy=np.sum(weight * np.square(target)),
            weight=weight.sum(),
            count=len(target),
            dim=self.dim,
            blocks=self.blocks,
        )


def compress(prompts: Prompts, *, blocks: str = "full", chunk_size: int = CHUNK_SIZE) -> CompressedPrompts:
    """Compress prompts to their cubic features, computed in float64 and stored in the session's precision.

    The result takes P·F numbers; the prompts themselves take P·N·(D+1).

    Raises:
        InputError: The prompts are empty, not finite or badly weighted (weights that are all zero included).
    """
    check_choice("blocks", blocks, BLOCKS)
    check_number("chunk_size", chunk_size, minimum=1, integer=True)
    check_prompts(prompts)
    count, dtype = len(prompts.y_query), jnp.zeros(()).dtype
    features = np.empty((count, num_features(prompts.dim, blocks)), dtype)
    for start in range(0, count, chunk_size):
        part = features[start : start + chunk_size]
        with jax.enable_x64(True):
            part[:] = _features(padded_chunk(prompts, start, min(chunk_size, count)), blocks)[: len(part)]
    return CompressedPrompts(
        features=device_array(features),
        target=device_array(np.asarray(prompts.y_query, dtype)),
        weight=device_array(np.asarray(prompts.weights, dtype)),
        group=prompts.group,
        dim=prompts.dim,
        blocks=blocks,
    )


_features = jax.jit(lambda prompts, blocks: cubic_features(prompts, blocks=blocks), static_argnums=1)
