"""Losses as functions of the parameters: what `train` minimises.

A loss is a callable pytree, `loss(params) -> scalar`. Its numbers (spectra, prompts, moments) are traced and its
structure is not, so changing a number never recompiles. Prompts, moments and the population are interchangeable.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, PyTree

from icl_theory.errors import InputError, check_choice
from icl_theory.models.parameters import merge_model, split_model
from icl_theory.moments.compressed_prompts import CompressedPrompts
from icl_theory.moments.empirical import LARGEST_CONDITIONED, Moments, condition_number, prompt_moments
from icl_theory.moments.population import population_moments
from icl_theory.moments.population_full import full_population_moments
from icl_theory.moments.precision import for_training, warn_of_lost_digits
from icl_theory.numerics.contraction import contract
from icl_theory.numerics.tracing import is_traced
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.prompts import Prompts, check_prompts
from icl_theory.training import ENGINES


class MomentsLoss(NamedTuple):
    """Full-batch mean square error (no ½) of a linear attention with coefficients T(θ), `TᵀMT − 2cᵀT + e`.

    It is exact for any data set and for the population: `moments` are the mean moments of either, or a
    `MomentsMixture`.
    """

    graphdef: nnx.GraphDef[Any]
    moments: Any

    def __call__(self, params: PyTree) -> Float[Array, ""]:
        return quadratic_loss(merge_model(self.graphdef, params).effective_tensor(), self.moments)


class PromptsLoss(NamedTuple):
    """Mean square error (no ½) of any model over a set of prompts, `Σ_p s_p (y_q − ŷ)² / Σ_p s_p`."""

    graphdef: nnx.GraphDef[Any]
    prompts: Prompts

    def __call__(self, params: PyTree) -> Float[Array, ""]:
        predictions = merge_model(self.graphdef, params)(self.prompts)
        squares = jnp.square(self.prompts.y_query - predictions)
        if self.prompts.weight is None:
            return jnp.mean(squares)
        return jnp.sum(self.prompts.weight * squares) / jnp.sum(self.prompts.weight)


@jax.custom_jvp
def quadratic_loss(tensor: Float[Array, " F"], moments: Any) -> Float[Array, ""]:
    """The quadratic loss `TᵀMT − 2cᵀT + e`; its value and gradient `2(MT − c)` share one product with M."""
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
    model: nnx.Module, data: TaskMixture | Prompts | CompressedPrompts | Moments, *, engine: str = "auto"
) -> tuple[Any, dict[str, Array]]:
    """Build the full-batch loss of a model on its data, and return it with the model's parameters.

    Args:
        model: An NNX module, `model(prompts) -> (P,)`.
        data: A `TaskMixture` (infinite data, in closed form), `Prompts`, `CompressedPrompts` or `Moments`.
        engine: `"moments"` sums prompts into moments first, so that the cost of a step does not depend on their number.
            `"prompts"` goes through every prompt at every step. `"auto"` takes moments for linear attention and prompts
            for any other module. The losses agree up to rounding: with moments the absolute error is about 1e-16
            (float64) or 1e-7 (float32) of the targets' mean square.

    Returns:
        `(loss, params)`, where `loss(params)` is the (weighted) mean square error without ½.

    Raises:
        InputError: Moments or the population are asked for with a model that is not linear in cubic features; prompts
            are empty, not finite or badly weighted; dimensions differ; moments are reduced but the model has full
            blocks; or `engine` is `"prompts"` and the data holds none.
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
    if not isinstance(data, (TaskMixture, Prompts, CompressedPrompts, Moments)):
        remedy = "give a TaskMixture, Prompts, CompressedPrompts or Moments"
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
    elif isinstance(data, CompressedPrompts):
        data = data.moments()
    return MomentsLoss(graphdef, for_training(data, dim=dim, blocks=blocks, dtype=dtype)), params


def _population_condition(mixture: TaskMixture) -> float:
    """Condition number of `Σ_g π_g B_g ⊗ Λ_g`, in float64; NaN above `LARGEST_CONDITIONED` features."""
    with jax.enable_x64(True):
        exact = population_moments(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), mixture))
        if exact.dim**2 > LARGEST_CONDITIONED:
            return float("nan")
        gram = sum(np.kron(left, right) for left, right in zip(exact.beta_moments, exact.covariances, strict=True))
    return condition_number(gram)
