"""Aligned heads under Muon, full batch: singular values of a diagonal gradient, one number each (theory notes, §17)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from icl_theory.analysis.trajectory import Trajectory, whole_steps
from icl_theory.errors import check_number
from icl_theory.numerics.maps import iterate
from icl_theory.tasks.features import Features
from icl_theory.theory.aligned_adam import adam_direction
from icl_theory.theory.hitting_time import start_of_each

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the usual quintic iteration
ITERATIONS = 5
EPSILON = 1e-8


def orthogonalised(singular: Float[Any, "*batch D"]) -> Float[Array, "*batch D"]:
    """Return what five Newton-Schulz iterations make of singular values: σ/‖σ‖ through `aσ + bσ³ + cσ⁵` five times.

    Values above about 1/100 of the norm come to lie between 0.7 and 1.2; smaller ones are multiplied by a⁵ = 485.

    Reference: theory notes, §17.
    """
    a, b, c = COEFFICIENTS
    sigma = singular / (jnp.linalg.norm(singular, axis=-1, keepdims=True) + EPSILON)
    for _ in range(ITERATIONS):
        sigma = sigma * (a + sigma**2 * (b + c * sigma**2))
    return sigma


class AlignedMuon(NamedTuple):
    """The reduced system under Muon for keys and queries and Adam for values, full batch (a `Dynamics`).

    The keys of all heads form a matrix, and so do the queries. Aligned heads have diagonal gradients there, so Muon
    turns the singular values of the momentum, which are its entries, into `orthogonalised` ones. Value and key of a
    head no longer stay equal: `w_d = v_d k_d²`, with gradients `2 k_d² r_d` and `2 v_d k_d r_d`, `r_d = c_d w_d − a_d`.

    Attributes:
        features: The drives and curvatures.
        start: v_d(0) = k_d(0) = q_d(0), shape (D,).
        learning_rate: η. Times must be multiples of it.
        momentum: μ of `M ← μM + (1−μ)g`, used as Nesterov's; 0 for none.
        decays: β_1, β_2 and ε of Adam, which moves the values.
    """

    features: Features
    start: Float[Any, " D"]
    learning_rate: float
    momentum: float = 0.95
    decays: tuple[float, float, float] = (0.9, 0.999, 1e-8)

    def predict(self, time: np.ndarray) -> Trajectory:
        """Iterate the map and return the loss and strengths at the steps `time / η`."""
        check_number("momentum", self.momentum, minimum=0.0, maximum=1.0 - 1e-12)
        steps = whole_steps(time, self.learning_rate)
        start = jnp.asarray(start_of_each(self.start, len(self.features.drive)), float)
        zero = jnp.zeros_like(start)
        drive, curvature = jnp.asarray(self.features.drive, float), jnp.asarray(self.features.curvature, float)
        args = (drive, curvature, self.learning_rate, self.momentum, *self.decays)
        value, key = iterate(_muon_step, (start, start, zero, zero, zero), jnp.asarray(steps), args)[:2]
        strength = np.asarray(value * key**2, float)
        return Trajectory(np.asarray(time), self.features.loss(strength), strength)


def _muon_step(step: Any, state: Any, args: Any) -> Any:
    value, key, trace, *moments = state
    drive, curvature, learning_rate, momentum, *decays = args
    residual = curvature * value * key**2 - drive
    uphill = 2.0 * value * key * residual
    trace = momentum * trace + (1.0 - momentum) * uphill
    ahead = momentum * trace / (1.0 - momentum ** (step + 2.0)) + (1.0 - momentum) * uphill / (
        1.0 - momentum ** (step + 1.0)
    )
    gradient = 2.0 * key**2 * residual
    direction, moments = adam_direction(step, gradient, gradient**2, moments, decays)
    return (value - learning_rate * direction, key - learning_rate * orthogonalised(ahead), trace, *moments)
