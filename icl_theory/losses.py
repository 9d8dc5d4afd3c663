"""Losses as functions of the parameters: what `train` minimises.

A loss is a pytree that can be called, `loss(params) -> scalar`: its numbers (spectra, prompts, moments) are traced, its
structure is not, so changing a number never recompiles. Prompts, moments and the population are interchangeable.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from icl_theory.attention import merge_model, split_model
from icl_theory.contraction import contract, reshape
from icl_theory.errors import InputError, check_choice
from icl_theory.examples import Examples
from icl_theory.moments import (
    LARGEST_CONDITIONED,
    Moments,
    condition_number,
    for_training,
    prompt_moments,
    warn_of_lost_digits,
)
from icl_theory.prompts import Prompts, check_prompts
from icl_theory.tasks import SHARE_TOLERANCE, TaskMixture
from icl_theory.theory.gaussian_moments import full_population_moments
from icl_theory.theory.population import population_moments
from icl_theory.tracing import is_traced

ENGINES = ("auto", "moments", "prompts")


class MomentsLoss(NamedTuple):
    """`TᵀMT − 2cᵀT + e`, the full-batch mean square error (no ½) of a linear attention with coefficients T(θ).

    Exact for any data set, and for the population: `moments` is a mean of either kind, or a `MomentsMixture`.
    """

    graphdef: Any
    moments: Any

    def __call__(self, params: Any) -> Float[Array, ""]:
        return quadratic_loss(merge_model(self.graphdef, params).effective_tensor(), self.moments)


class PromptsLoss(NamedTuple):
    """`Σ_p s_p (y_q − ŷ)² / Σ_p s_p` over a set of prompts, for any model (mean square, no ½)."""

    graphdef: Any
    prompts: Prompts

    def __call__(self, params: Any) -> Float[Array, ""]:
        predictions = merge_model(self.graphdef, params)(self.prompts)
        squares = jnp.square(self.prompts.y_query - predictions)
        if self.prompts.weight is None:
            return jnp.mean(squares)
        return jnp.sum(self.prompts.weight * squares) / jnp.sum(self.prompts.weight)


class EffectiveMatrix(NamedTuple):
    """`W(θ)`, what `train` tracks to read features of any basis off it afterwards."""

    graphdef: Any

    def __call__(self, params: Any) -> Float[Array, "D D"]:
        return merge_model(self.graphdef, params).effective_matrix()


class FeatureStrength(NamedTuple):
    """`w_d = e_dᵀ W(θ) e_d`, (D,), what `train_many` tracks where only features matter; directions as columns."""

    graphdef: Any
    directions: Any

    def __call__(self, params: Any) -> Float[Array, " D"]:
        turned = contract("de,ef->df", merge_model(self.graphdef, params).effective_matrix(), self.directions)
        return contract("df,df->f", self.directions, turned)


class EffectiveTensor(NamedTuple):
    """`T(θ)`, what `train` tracks to read the loss of every example off it afterwards (`Examples.losses`)."""

    graphdef: Any

    def __call__(self, params: Any) -> Float[Array, " F"]:
        return merge_model(self.graphdef, params).effective_tensor()


class MomentsMixture(NamedTuple):
    """Mean moments of several groups and their shares, kept apart so that runs may differ in their shares.

    In `train_many` with a row of shares for each run, `M T` of all runs and groups is still one matrix product.

    Attributes:
        grams, crosses, energies: of each group, (G, F, F), (G, F), (G,).
        shares: π_g, (G,), summing to one.
    """

    grams: Any
    crosses: Any
    energies: Any
    shares: Any

    @property
    def cross(self) -> Float[Array, " F"]:
        """`Σ_g π_g c_g`."""
        return contract("g,gf->f", self.shares, self.crosses)

    @property
    def energy(self) -> Float[Array, ""]:
        """`Σ_g π_g e_g`."""
        return contract("g,g->", self.shares, self.energies)

    def product(self, tensor: Float[Array, " F"]) -> Float[Array, " F"]:
        """`Σ_g π_g M_g T`."""
        groups, size = self.grams.shape[0], self.grams.shape[-1]
        products = jnp.matmul(self.grams.reshape(groups * size, size), tensor, precision=jax.lax.Precision.HIGHEST)
        stacked = reshape(products, (groups, size))
        return contract("g,gf->f", self.shares, stacked)


@jax.custom_jvp
def quadratic_loss(tensor: Float[Array, " F"], moments: Any) -> Float[Array, ""]:
    """`TᵀMT − 2cᵀT + e`; value and gradient `2(MT − c)` share one product with M."""
    return _value(tensor, moments, moments.product(tensor))


@partial(quadratic_loss.defjvp, symbolic_zeros=True)
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (tensor, moments), (tensor_dot, moments_dot) = primals, tangents
    product = moments.product(tensor)
    value = _value(tensor, moments, product)
    change = jnp.zeros_like(value)
    if not isinstance(tensor_dot, SymbolicZero):
        change = 2.0 * (contract("f,f->", product, tensor_dot) - contract("f,f->", moments.cross, tensor_dot))
    is_zero = lambda leaf: isinstance(leaf, SymbolicZero)  # noqa: E731
    if not all(map(is_zero, jax.tree.leaves(moments_dot, is_leaf=is_zero))):
        moments_dot = jax.tree.map(_instantiated, moments, moments_dot, is_leaf=is_zero)
        of_moments = lambda moments: _value(tensor, moments, moments.product(tensor))  # noqa: E731
        change = change + jax.jvp(of_moments, (moments,), (moments_dot,))[1]
    return value, change


def _instantiated(primal: Any, tangent: Any) -> Any:
    if not isinstance(tangent, SymbolicZero):
        return tangent
    real = jnp.issubdtype(jnp.result_type(primal), jnp.inexact)
    return jnp.zeros_like(primal) if real else np.zeros(np.shape(primal), jax.dtypes.float0)


def _value(tensor: Array, moments: Any, product: Array) -> Array:
    return contract("f,f->", tensor, product) - 2.0 * contract("f,f->", tensor, moments.cross) + moments.energy


def make_loss(
    model: nnx.Module, data: TaskMixture | Prompts | Examples | Moments, *, engine: str = "auto"
) -> tuple[Any, dict[str, Array]]:
    """The full-batch loss of a model on its data, and the model's parameters.

    Args:
        model: an NNX module, `model(prompts) -> (P,)`.
        data: a `TaskMixture` (infinite data, in closed form), `Prompts`, `Examples` or `Moments`.
        engine: `"moments"` folds prompts into moments first, so that a step costs the same for any number of them;
            `"prompts"` goes through every prompt at every step; `"auto"` takes moments for linear attention and
            prompts for any other module. The losses are equal to rounding: absolutely, moments lose what is below
            1e-16 (float64) or 1e-7 (float32) of the targets' mean square.

    Returns:
        `(loss, params)` with `loss(params)` the (weighted) mean square error, no ½.

    Raises:
        InputError: moments or the population asked of a model that is not linear in cubic features; empty,
            non-finite or badly weighted prompts; differing dimensions; reduced moments for a model with full blocks.
    """
    check_choice("engine", engine, ENGINES)
    graphdef, params = split_model(model)
    dim = getattr(model, "dim", data.dim)
    if dim != data.dim:
        raise InputError("data", f"dimension {data.dim}", f"the model takes dimension {dim}")
    linear = getattr(model, "is_linear", False)
    if isinstance(data, Prompts) and (engine == "prompts" or (engine == "auto" and not linear)):
        check_prompts(data)
        return PromptsLoss(graphdef, data), params
    if not linear:
        raise InputError(
            "data",
            "population" if isinstance(data, TaskMixture) else "moments",
            "only linear attention is a function of moments; train softmax on prompts",
        )
    if engine == "prompts":
        raise InputError("engine", engine, f"a {type(data).__name__} holds no prompts; give Prompts")
    if not isinstance(data, (TaskMixture, Prompts, Examples, Moments)):
        remedy = "give a TaskMixture, Prompts, Examples or Moments"
        raise InputError("data", type(data).__name__, remedy)
    blocks, dtype = model.blocks, jax.tree.leaves(params)[0].dtype  # type: ignore[attr-defined]
    if isinstance(data, TaskMixture):
        if blocks == "reduced":
            if not is_traced(data):
                warn_of_lost_digits(partial(_population_condition, data), dtype)
            return MomentsLoss(graphdef, population_moments(data)), params
        data = full_population_moments(data)
    elif isinstance(data, Prompts):
        data = prompt_moments(data, blocks=blocks)
    elif isinstance(data, Examples):
        data = data.moments()
    return MomentsLoss(graphdef, for_training(data, dim=dim, blocks=blocks, dtype=dtype)), params


def _population_condition(mixture: TaskMixture) -> float:
    """Condition number of `Σ_g π_g B_g ⊗ Λ_g`, in float64; NaN above the size that is measured."""
    with jax.enable_x64(True):
        exact = population_moments(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), mixture))
        if exact.dim**2 > LARGEST_CONDITIONED:
            return float("nan")
        gram = sum(np.kron(left, right) for left, right in zip(exact.beta_moments, exact.covariances, strict=True))
    return condition_number(gram)


def mixture_moments(parts: Sequence[Moments], shares: Any, *, dtype: Any = float) -> MomentsMixture:
    """Groups of moments with shares that may differ between runs.

    Args:
        parts: one `Moments` a group, all of the same features; each is taken as its mean.
        shares: π_g, (G,) or (..., G), not negative, rows summing to one.
        dtype: of training.

    Raises:
        InputError: no parts, unlike features, shares of another shape, negative or not summing to one.
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
