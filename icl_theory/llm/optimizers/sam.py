"""Sharpness-aware gradients (SAM and functional SAM) for language models (theory notes, §10).

    none   g = ∇ℓ(θ)
    sam    ∇ℓ(θ + ε),  ε = ρ g/‖g‖
    fsam   J(θ + ε)ᵀ ∇_z ℓ(z(θ)): the Jacobian of the logits is taken at the perturbed weights, the gradient of the
           loss with respect to the logits at the unperturbed weights

"none" takes one backward pass, the others take two; without a finite loss, they leave out the second and return NaN.
`ε` may be preconditioned, `ε = ρ d/‖d‖` with a direction d that `preconditioned` computes from Adam's second moment.
The norm is taken over all weights together, and a zero gradient gives no perturbation. A batch that is processed in
parts has one ε, from the gradient of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from icl_theory.errors import check_choice
from icl_theory.numerics.norms import with_norm

SHARPNESS = ("none", "sam", "fsam")
Params = Any
Part = Any


class Stages(NamedTuple):
    """Logits in two stages, z(θ) = output(θ, h(θ)), and the loss ℓ, each for one part of a batch.

    Between its two passes fsam keeps only h, which is smaller than z by the ratio of vocabulary size to hidden size.

    Attributes:
        features_of: function from the weights θ and a part to the input h of the output layer.
        loss_of: function from θ, h and the part to its share of the loss; the shares add up.
        pull_of: function from θ', h', θ, h and the part to `Σ z(θ', h') · ∇_z ℓ(z(θ, h))`, with the gradient held
            constant.
    """

    features_of: Callable[[Params, Part], Any]
    loss_of: Callable[[Params, Any, Part], Any]
    pull_of: Callable[[Params, Any, Params, Any, Part], Any]


def loss_and_gradient(
    kind: str,
    stages: Stages,
    params: Params,
    parts: Part,
    *,
    rho: Any = 0.0,
    direction_of: Callable[[Params], Params] | None = None,
) -> tuple[Any, Params]:
    """Return the loss of a batch at the unperturbed weights, and the gradient of the given kind.

    Args:
        kind: "none", "sam" or "fsam".
        stages: functions of the model and the loss.
        params: weights θ.
        parts: parts of the batch, as arrays with an additional first axis; they are processed one after the other.
        rho: perturbation radius ρ, a distance between weights; it may be traced.
        direction_of: function from the gradient g to the direction d of the perturbation; None for d = g.

    Raises:
        InputError: another kind.
    """
    check_choice("sharpness", kind, SHARPNESS)

    def loss(theta: Params, part: Part) -> tuple[Any, Any]:
        features = stages.features_of(theta, part)
        return stages.loss_of(theta, features, part), features

    def first(part: Part) -> tuple[Any, Any]:
        (value, features), gradient = jax.value_and_grad(loss, has_aux=True)(params, part)
        return (value, gradient), features if kind == "fsam" else None

    (value, gradient), features = _summed(first, parts)
    if kind == "none":
        return value, gradient
    direction = gradient if direction_of is None else direction_of(gradient)
    perturbed = optax.apply_updates(params, perturbation(direction, rho))

    def second(inputs: tuple[Part, Any]) -> tuple[Any, None]:
        part, held = inputs

        def perturbed_loss(theta: Params) -> Any:
            if kind == "sam":
                return loss(theta, part)[0]
            return stages.pull_of(theta, stages.features_of(theta, part), params, held, part)

        return jax.grad(perturbed_loss)(perturbed), None

    def not_finite() -> Params:
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)

    # As a branch of its own, the second pass takes memory for its gradient only when it begins; not under `vmap`.
    finite = jnp.isfinite(value)
    return value, jax.lax.cond(finite, lambda: _summed(second, (parts, features))[0], not_finite)


def perturbation(direction: Params, rho: Any) -> Params:
    """Return `ε = ρ d/‖d‖` along a direction d; zero if the direction is zero."""
    return jax.tree.map(lambda step, leaf: step.astype(leaf.dtype), with_norm(direction, rho), direction)


def _summed(function: Callable[[Any], tuple[Any, Any]], parts: Any) -> tuple[Any, Any]:
    """Sum the first results of a function over parts, and stack the second ones; one part needs no loop."""
    one = jax.tree.map(lambda leaf: leaf[0], parts)
    if len(jax.tree.leaves(parts)[0]) == 1:
        total, kept = function(one)
        return total, jax.tree.map(lambda leaf: leaf[None], kept)
    empty = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), jax.eval_shape(function, one)[0])

    def add(total: Any, part: Any) -> tuple[Any, Any]:
        found, kept = function(part)
        return jax.tree.map(jnp.add, total, found), kept

    return jax.lax.scan(add, empty, parts)
