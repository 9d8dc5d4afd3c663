"""Gradient descent as an optax transformation, made from a number that may be traced."""

from __future__ import annotations

import optax
from jaxtyping import Array, Float

from icl_theory.errors import check_number


def gd(learning_rate: float | Float[Array, ""]) -> optax.GradientTransformationExtraArgs:
    """Gradient descent, `θ ← θ − η ∇L(θ)`."""
    check_number("learning_rate", learning_rate, minimum=0.0)
    return optax.with_extra_args_support(optax.sgd(learning_rate))
