"""Sharpness-aware gradients (SAM and functional SAM) for language models (theory notes, §10).

    none   g = ∇ℓ(θ)
    sam    ∇ℓ(θ + ε),  ε = ρ g/‖g‖
    fsam   J(θ + ε)ᵀ ∇_z ℓ(z(θ)): the Jacobian of the logits is taken at the perturbed weights, the gradient of the
           loss with respect to the logits at the unperturbed weights

"none" takes one backward pass, the others take two. `ε` may be preconditioned, `ε = ρ P⁻¹g/‖P⁻¹g‖` with
`P = √v̂ + 10⁻⁸` from Adam's second moment v̂. As in Adam's own step, v̂ includes g: otherwise all of ε would go to the
embeddings of tokens that occur for the first time, whose v̂ is zero. The norm is taken over all weights together, and a
zero gradient gives no perturbation. With gradient accumulation, each part of a batch has its own ε.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from icl_theory.errors import check_choice
from icl_theory.numerics.norms import with_norm

SHARPNESS = ("none", "sam", "fsam")
PRECONDITIONER_EPS = 1e-8
Params = Any


def loss_and_gradient(
    kind: str,
    features_of: Callable[[Params], Any],
    loss_of: Callable[[Params, Any], Any],
    pull_of: Callable[[Params, Any, Params, Any], Any],
    params: Params,
    *,
    rho: Any = 0.0,
    second_moment_of: Callable[[Params], Params] | None = None,
) -> tuple[Any, Params]:
    """Return the loss at the unperturbed weights, and the gradient of the given kind.

    The logits are computed in two stages, z(θ) = output(θ, h(θ)). Between its two passes, fsam then keeps only h,
    which is smaller than z by the ratio of vocabulary size to hidden size.

    Args:
        kind: "none", "sam" or "fsam".
        features_of: function from the weights θ to the input h of the output layer.
        loss_of: function from θ and h to the loss ℓ, a mean.
        pull_of: function from θ', h', θ, h to `Σ z(θ', h') · ∇_z ℓ(z(θ, h))`, with the gradient held constant.
        params: weights θ.
        rho: perturbation radius ρ, a distance between weights; it may be traced.
        second_moment_of: function from g to the bias-corrected second moment v̂, shaped as the weights; None for no
            preconditioning.

    Raises:
        InputError: another kind.
    """
    check_choice("sharpness", kind, SHARPNESS)

    def loss(theta: Params) -> tuple[Any, Any]:
        features = features_of(theta)
        return loss_of(theta, features), features

    (value, features), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    if kind == "none":
        return value, gradient
    moment = None if second_moment_of is None else second_moment_of(gradient)
    perturbed = optax.apply_updates(params, perturbation(gradient, rho, moment))
    if kind == "sam":
        return value, jax.grad(lambda theta: loss(theta)[0])(perturbed)
    return value, jax.grad(lambda theta: pull_of(theta, features_of(theta), params, features))(perturbed)


def perturbation(gradient: Params, rho: Any, second_moment: Params | None = None) -> Params:
    """Return `ε = ρ d/‖d‖` with d = g, or d = P⁻¹g given a second moment; zero if the gradient is zero."""
    direction = gradient
    if second_moment is not None:
        direction = jax.tree.map(lambda g, v: g / (jnp.sqrt(v) + PRECONDITIONER_EPS), gradient, second_moment)
    return jax.tree.map(lambda step, leaf: step.astype(leaf.dtype), with_norm(direction, rho), direction)
