"""Sharpness-aware minimization as an optax transformation (theory notes, §6).

Made from plain numbers that may be traced, so a sweep over η and ρ compiles once. SAM needs the gradient at a second
point: pass `grad_fn` to `update`, as `train` does.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from icl_theory.errors import InputError, check_number
from icl_theory.numerics.norms import with_norm
from icl_theory.training.optimizer_step import errors_named, transformation


def sam(
    learning_rate: float | Float[Array, ""],
    rho: float | Float[Array, ""],
    *,
    normalised: bool = True,
    base: Any = optax.sgd,
) -> optax.GradientTransformationExtraArgs:
    """Sharpness-aware minimization: a step from the parameters along the gradient at a point uphill of them.

    Normalised: `θ ← θ − η ∇L(θ + ρ ∇L/‖∇L‖)`, with one norm over all parameters; at a zero gradient the
    perturbation is zero. Unnormalised: `θ ← θ − η ∇L(θ + ρ ∇L)`. At ρ = 0 both are gradient descent.

    Args:
        learning_rate: Learning rate η ≥ 0, with which `base` is called.
        rho: Perturbation radius ρ ≥ 0: a distance in parameter space if normalised, else a distance per unit gradient.
        normalised: Whether to divide the perturbation by the norm of the gradient.
        base: Factory of the optax transformation that is applied to the perturbed gradient, such as `optax.adam`.
            Further settings go into `functools.partial(optax.sgd, momentum=0.9)`.

    Returns:
        A transformation whose `update(grads, state, params, grad_fn=...)` takes the gradient at the parameters
        and calls `grad_fn` once more: two gradients a step.

    Raises:
        InputError: η or ρ is negative or not finite, `base` is no factory of a transformation, or `update` is called
            without `grad_fn` or `params`.

    Reference: Foret et al. 2021 (arXiv 2010.01412); theory notes, §6.
    """
    check_number("learning_rate", learning_rate, minimum=0.0)
    check_number("rho", rho, minimum=0.0)
    with errors_named("base", base, "give a factory that is called with the learning rate, such as optax.adam"):
        descent = optax.with_extra_args_support(transformation(base, learning_rate))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, *, grad_fn: Any = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        if grad_fn is None or params is None:
            missing = "params" if params is None else "grad_fn"
            raise InputError(missing, None, "SAM's update needs params and grad_fn=jax.grad(loss)")
        perturbed = perturb(params, updates, rho=rho, normalised=normalised)
        return descent.update(grad_fn(perturbed), state, params, **extra)

    return optax.GradientTransformationExtraArgs(descent.init, update)


def unnormalised_sam(
    learning_rate: float | Float[Array, ""], rho: float | Float[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    """Unnormalised SAM, `θ ← θ − η ∇L(θ + ρ ∇L)`; the same as `sam(..., normalised=False)`."""
    return sam(learning_rate, rho, normalised=False)


def perturb(params: PyTree, grads: PyTree, *, rho: float | Float[Array, ""], normalised: bool = True) -> Any:
    """Perturb the parameters to `θ + ρ g/‖g‖` (θ at a zero gradient) or, unnormalised, to `θ + ρ g`."""
    rho = jnp.asarray(rho)
    ascent = with_norm(grads, rho) if normalised else jax.tree.map(lambda g: rho * g, grads)
    return jax.tree.map(lambda p, step: p + step.astype(p.dtype), params, ascent)
