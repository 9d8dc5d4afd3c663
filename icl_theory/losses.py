"""Losses as functions of the parameters: what `train` minimises.

A loss is a pytree that can be called, `loss(params) -> scalar`: its numbers (spectra, prompts) are traced, its
structure is not, so changing a number never recompiles. Data sets of prompts and the population are interchangeable.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from icl_theory.attention import merge_model, split_model
from icl_theory.errors import InputError
from icl_theory.prompts import Prompts, check_prompts
from icl_theory.tasks import TaskMixture
from icl_theory.theory.population import PopulationMoments, population_loss, population_moments


class PopulationLoss(NamedTuple):
    """`L(W(θ))` in closed form, for models with `ŷ = βᵀ W x_q`."""

    graphdef: Any
    moments: PopulationMoments

    def __call__(self, params: Any) -> Float[Array, ""]:
        return population_loss(merge_model(self.graphdef, params).effective_matrix(), self.moments)


class PromptsLoss(NamedTuple):
    """`(1/P) Σ_p (y_q − ŷ)²` over a set of prompts, for any model (mean square, no ½)."""

    graphdef: Any
    prompts: Prompts

    def __call__(self, params: Any) -> Float[Array, ""]:
        predictions = merge_model(self.graphdef, params)(self.prompts)
        return jnp.mean(jnp.square(self.prompts.y_query - predictions))


class EffectiveMatrix(NamedTuple):
    """`W(θ)`, what `train` tracks by default: features of any basis are read off it afterwards."""

    graphdef: Any

    def __call__(self, params: Any) -> Float[Array, "D D"]:
        return merge_model(self.graphdef, params).effective_matrix()


def make_loss(model: nnx.Module, data: TaskMixture | Prompts) -> tuple[Any, dict[str, Array]]:
    """The loss of a model on its data, and the model's parameters.

    Args:
        model: an NNX module, `model(prompts) -> (P,)`.
        data: a `TaskMixture` (population loss, infinite data) or `Prompts` (a finite set).

    Returns:
        `(loss, params)` with `loss(params)` the mean square error (no ½).

    Raises:
        InputError: population loss asked of a model without closed form; empty or non-finite prompts;
            differing dimensions.
    """
    graphdef, params = split_model(model)
    if getattr(model, "dim", data.dim) != data.dim:
        raise InputError("data", f"dimension {data.dim}", f"the model takes dimension {model.dim}")  # type: ignore[attr-defined]
    if isinstance(data, Prompts):
        check_prompts(data)
        return PromptsLoss(graphdef, data), params
    if not getattr(model, "is_linear_in_beta", False):
        raise InputError(
            "data",
            "population",
            "only linear attention with blocks='reduced' has a population loss in closed form; train on prompts",
        )
    return PopulationLoss(graphdef, population_moments(data)), params
