"""Low-rank adapters (LoRA): each adapted matrix W acts as `W + (α/r) A B`, and only A and B are trained.

A has r columns and B has r rows. At the start A is uniform in ±1/√(number of inputs) and B is zero, so that the adapted
model equals its base. In training the inputs of A are dropped out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from icl_theory.errors import InputError, check_choice, check_number

ATTENTION, FEED_FORWARD = ("query", "key", "value", "output"), ("gate", "up", "down")
MATRICES = ATTENTION + FEED_FORWARD


@dataclasses.dataclass(frozen=True)
class Lora:
    """Settings of adapters.

    Attributes:
        rank: rank r of each update.
        alpha: numerator of its scale α/r.
        dropout: probability with which an input entry is dropped in training.
        matrices: names of the adapted matrices in every block, of `MATRICES`.
    """

    rank: int
    alpha: float = 16.0
    dropout: float = 0.0
    matrices: tuple[str, ...] = ("query", "value")

    def __post_init__(self) -> None:
        check_number("lora_rank", self.rank, minimum=1, integer=True)
        check_number("lora_alpha", self.alpha, minimum=0.0, exclusive=True)
        check_number("lora_dropout", self.dropout, minimum=0.0)
        if self.dropout >= 1:
            raise InputError("lora_dropout", self.dropout, "nothing would be left; give less than 1")
        for name in self.matrices:
            check_choice("lora_matrices", name, MATRICES)

    @property
    def scale(self) -> float:
        """Factor α/r of the product A B."""
        return self.alpha / self.rank


class Adapter(nnx.Module):
    """Update `(α/r) dropout(x) A B` of the outputs of a linear layer; made for all layers, applied to one.

    Args:
        inputs: number of inputs.
        outputs: number of outputs.
        lora: settings of the adapters.
        dtype: number type of products.
        keys: a random key for the A of each layer.
    """

    def __init__(self, inputs: int, outputs: int, lora: Lora, dtype: Any, keys: Array):
        bound = 1 / math.sqrt(inputs)
        draw = jax.vmap(lambda key: jax.random.uniform(key, (inputs, lora.rank), jnp.float32, -bound, bound))
        self.a = nnx.LoRAParam(draw(keys))
        self.b = nnx.LoRAParam(jnp.zeros((len(keys), lora.rank, outputs), jnp.float32))
        self.lora, self.dtype = lora, dtype
        self.key: Any = None  # of dropout, which is off without one

    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        if self.key is not None:
            kept = jax.random.bernoulli(self.key[...], 1 - self.lora.dropout, x.shape)
            x = jnp.where(kept, x / (1 - self.lora.dropout), 0)
        x, a, b = (array.astype(self.dtype) for array in (x, self.a[...], self.b[...]))
        return (x @ a @ b) * jnp.asarray(self.lora.scale, self.dtype)


class Linear(nnx.Linear):
    """Linear layer that may have an adapter."""

    def __init__(self, *sizes: int, **settings: Any):
        super().__init__(*sizes, **settings)
        self.adapter: Adapter | None = None

    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:  # type: ignore[override]
        y = super().__call__(x)
        return y if self.adapter is None else y + self.adapter(x)


def adapted(model: Any, lora: Lora, *, seed: int = 0) -> Any:
    """Return a decoder with the same weights and a new adapter for each matrix named in the settings.

    Raises:
        InputError: a matrix that the model does not have.
    """
    found = nnx.merge(*nnx.split(model))
    present = {name for name, _ in linears(found)}
    for name in lora.matrices:
        if name not in present:
            have = ", ".join(other for other in MATRICES if other in present)
            raise InputError("lora_matrices", name, f"the model has none; give some of {have}")
    keys = jax.random.split(jax.random.key(seed), (found.config.num_layers, len(MATRICES)))
    for name, linear in linears(found):
        if name in lora.matrices:
            own = keys[:, MATRICES.index(name)]
            linear.adapter = nnx.data(Adapter(linear.in_features, linear.out_features, lora, found.dtype, own))
    return found


def merged(model: Any, base: Any | None = None) -> Any:
    """Return a decoder without adapters, with `W + (α/r) A B` in place of each adapted W.

    The sum is computed in float32 on the host and rounded to the number type of W.

    Args:
        model: a decoder, with adapters or without.
        base: decoder with the weights W, where those of `model` were rounded for training; None to take them there.
    """
    found = nnx.merge(*nnx.split(model if base is None or lora_of(model) is None else base))
    for (_, ours), (_, linear) in zip(linears(model), linears(found), strict=True):
        linear.adapter = nnx.static(None)
        if ours.adapter is not None:
            a, b = (np.asarray(part[...], np.float32) for part in (ours.adapter.a, ours.adapter.b))
            kernel = np.array(linear.kernel[...])
            for layer, weight in enumerate(kernel):
                kernel[layer] = weight.astype(np.float32) + ours.adapter.lora.scale * (a[layer] @ b[layer])
            linear.kernel = nnx.Param(kernel)
    return found


def lora_of(model: Any) -> Lora | None:
    """Return the settings of a decoder's adapters; None if it has none."""
    return next((linear.adapter.lora for _, linear in linears(model) if linear.adapter is not None), None)


def set_dropout(model: Any, key: Array) -> None:
    """Turn dropout of the adapters on, with a random key for each."""
    found = [linear for _, linear in linears(model)]
    numbers = jnp.arange(model.config.num_layers)[:, None] * len(found) + jnp.arange(len(found))
    keys = jax.vmap(jax.vmap(lambda number: jax.random.fold_in(key, number)))(numbers)
    for place, linear in enumerate(found):
        if linear.adapter is not None:
            linear.adapter.key = nnx.data(nnx.Variable(keys[:, place]))


def linears(model: Any) -> Iterator[tuple[str, Linear]]:
    """Yield name and linear layer, with the stacked weights of all layers, for every matrix of a block."""
    for part, names in ((model.blocks.attention, ATTENTION), (model.blocks.mlp, FEED_FORWARD)):
        for name in names:
            linear = getattr(part, name, None)
            if linear is not None:
                yield name, linear
