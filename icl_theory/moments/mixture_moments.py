"""Moments of several groups whose shares may differ between runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from icl_theory.errors import InputError
from icl_theory.moments.empirical import Moments
from icl_theory.moments.precision import for_training
from icl_theory.numerics.contraction import contract, reshape
from icl_theory.numerics.tracing import is_traced
from icl_theory.tasks.mixture import SHARE_TOLERANCE


class MomentsMixture(NamedTuple):
    """Mean moments of several groups and their shares, kept apart so that runs may differ in their shares.

    In `train_many` with a row of shares for each run, `M T` of all runs and groups is still one matrix product.

    Attributes:
        grams: Gram matrix M_g of each group, (G, F, F).
        crosses: Cross moment c_g of each group, (G, F).
        energies: Energy e_g of each group, (G,).
        shares: Share π_g of each group, (G,), summing to one.
    """

    grams: Float[Any, "G F F"]
    crosses: Float[Any, "G F"]
    energies: Float[Any, " G"]
    shares: Float[Any, " G"]

    @property
    def cross(self) -> Float[Array, " F"]:
        """The cross moment of the mixture, `Σ_g π_g c_g`."""
        return contract("g,gf->f", self.shares, self.crosses)

    @property
    def energy(self) -> Float[Array, ""]:
        """The energy of the mixture, `Σ_g π_g e_g`."""
        return contract("g,g->", self.shares, self.energies)

    def product(self, tensor: Float[Array, " F"]) -> Float[Array, " F"]:
        """The product `M T = Σ_g π_g M_g T`."""
        groups, size = self.grams.shape[0], self.grams.shape[-1]
        products = jnp.matmul(self.grams.reshape(groups * size, size), tensor, precision=jax.lax.Precision.HIGHEST)
        stacked = reshape(products, (groups, size))
        return contract("g,gf->f", self.shares, stacked)


def mixture_moments(parts: Sequence[Moments], shares: Any, *, dtype: Any = float) -> MomentsMixture:
    """Combine the moments of several groups with shares that may differ between runs.

    Args:
        parts: The `Moments` of each group, all with the same features. Each is divided by its weight.
        shares: Shares π_g, (G,) or (..., G), not negative; each row sums to one.
        dtype: Dtype of training.

    Raises:
        InputError: There are no parts, their features differ, or the shares have the wrong shape, are negative or do
            not sum to one.
    """
    if not parts:
        raise InputError("parts", "[]", "give at least one Moments")
    dim, blocks = parts[0].dim, parts[0].blocks
    means = [for_training(part, dim=dim, blocks=blocks, dtype=dtype) for part in parts]
    if not is_traced(shares):
        values = np.asarray(shares, dtype=float)
        if values.ndim < 1 or values.shape[-1] != len(parts):
            raise InputError(
                "shares", f"shape {values.shape}", f"the last axis needs one for each of {len(parts)} parts"
            )
        if not np.all(values >= 0) or np.abs(values.sum(axis=-1) - 1.0).max() > SHARE_TOLERANCE:
            raise InputError("shares", values, "they must not be negative and must sum to 1")
    return MomentsMixture(
        grams=jnp.stack([mean.gram for mean in means]),
        crosses=jnp.stack([mean.cross for mean in means]),
        energies=jnp.stack([mean.energy for mean in means]),
        shares=jnp.asarray(shares, dtype=dtype),
    )
