"""Gradients that see the sharpness of the loss, for the transformer bridge (theory notes, §10). One pass, or two.

    none   g = ∇ℓ(θ)
    sam    ∇ℓ(θ + ε),            ε = ρ g/‖g‖
    fsam   J(θ + ε)ᵀ ∇_z ℓ(z(θ)): the Jacobian of the logits at the perturbed weights, the gradient of the loss by the
    logits at
           the unperturbed ones, so that the loss is not flattened by what the logits' own change would do to it

`ε` may be preconditioned, `ε = ρ P⁻¹g/‖P⁻¹g‖` with `P = √v̂ + 10⁻⁸` of Adam's second moment, g itself included as in
Adam's own step: without it all of ε would go to the embeddings of tokens met for the first time, whose v̂ is zero. The
norm is one over all weights; where the gradient is zero nothing is perturbed. Under gradient accumulation each part of
a batch has an ε of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from icl_theory.errors import check_choice

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
    """Loss at the unperturbed weights, and the gradient of the kind.

    The logits are taken in two stages, z(θ) = output(θ, h(θ)), so that between the passes of fsam only h is kept, which
    is smaller than z by vocabulary over hidden size.

    Args:
        kind: "none", "sam" or "fsam".
        features_of: h, from the weights to what the output layer reads.
        loss_of: ℓ from θ and h, a mean.
        pull_of: `Σ z(θ', h') · ∇_z ℓ(z(θ, h))` from θ', h', θ, h, with the gradient held constant.
        params: θ.
        rho: ρ, a distance between weights; traced.
        second_moment_of: v̂ from g, bias corrected, shaped as the weights; None for no preconditioning.

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
    """`ρ d/‖d‖` with d = g or P⁻¹g; zero where the gradient is."""
    direction = gradient
    if second_moment is not None:
        direction = jax.tree.map(lambda g, v: g / (jnp.sqrt(v) + PRECONDITIONER_EPS), gradient, second_moment)
    norm = optax.tree.norm(direction)
    scale = jnp.where(norm > 0, rho / jnp.where(norm > 0, norm, 1.0), 0.0)
    return jax.tree.map(lambda leaf: (scale * leaf).astype(leaf.dtype), direction)
