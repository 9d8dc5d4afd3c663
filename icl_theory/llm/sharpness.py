"""Gradients that see the sharpness of the loss, for the transformer bridge (theory notes, §10). Two passes each.

    none   g = ∇ℓ(θ)
    sam    ∇ℓ(θ + ε),            ε = ρ g/‖g‖
    fsam   J(θ + ε)ᵀ ∇_z ℓ(z(θ)): the Jacobian of the logits at the perturbed weights, the gradient of the loss by the logits at
           the unperturbed ones, so that the loss is not flattened by what the logits' own change would do to it

`ε` may be preconditioned, `ε = ρ P⁻¹g/‖P⁻¹g‖` with `P = √v̂ + 10⁻⁸` of Adam's second moment. The norm is one over all weights;
where the gradient is zero nothing is perturbed. Under gradient accumulation each part of a batch has an ε of its own.
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
    logits_of: Callable[[Params], Any],
    loss_of: Callable[[Any], Any],
    params: Params,
    *,
    rho: Any = 0.0,
    second_moment: Params | None = None,
) -> tuple[Any, Params]:
    """Loss at the unperturbed weights, and the gradient of the kind.

    Args:
        kind: "none", "sam" or "fsam".
        logits_of: from the weights to the logits z of the batch.
        loss_of: from the logits to the loss, a mean.
        params: θ.
        rho: ρ, a distance between weights; traced.
        second_moment: v̂, bias corrected, shaped as the weights; None for no preconditioning.

    Raises:
        InputError: another kind.
    """
    check_choice("sharpness", kind, SHARPNESS)
    logits, back = jax.vjp(logits_of, params)
    loss, logit_gradient = jax.value_and_grad(loss_of)(logits)
    (gradient,) = back(logit_gradient)
    if kind == "none":
        return loss, gradient
    perturbed = optax.apply_updates(params, perturbation(gradient, rho, second_moment))
    if kind == "fsam":
        _, back = jax.vjp(logits_of, perturbed)
        return loss, back(logit_gradient)[0]
    return loss, jax.grad(lambda theta: loss_of(logits_of(theta)))(perturbed)


def perturbation(gradient: Params, rho: Any, second_moment: Params | None = None) -> Params:
    """`ρ d/‖d‖` with d = g or P⁻¹g; zero where the gradient is."""
    direction = gradient
    if second_moment is not None:
        direction = jax.tree.map(lambda g, v: g / (jnp.sqrt(v) + PRECONDITIONER_EPS), gradient, second_moment)
    norm = optax.tree.norm(direction)
    scale = jnp.where(norm > 0, rho / jnp.where(norm > 0, norm, 1.0), 0.0)
    return jax.tree.map(lambda leaf: (scale * leaf).astype(leaf.dtype), direction)
