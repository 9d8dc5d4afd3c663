"""Steps of an explicit method that stays stable where some modes decay much faster than the step is long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev

STAGES = 12
DAMPING = 2.0 / 13.0


def _coefficients() -> tuple[float, np.ndarray]:
    """Return the weight of the first stage, and (μ, ν, μ̃, γ̃) of the others, (STAGES − 1, 4)."""
    at = 1.0 + DAMPING / STAGES**2
    value, first, second = (
        np.array([chebyshev.chebval(at, chebyshev.chebder(row, order)) for row in np.eye(STAGES + 1)])
        for order in range(3)
    )
    scale = first[-1] / second[-1]
    b = np.append(np.full(2, second[2] / first[2] ** 2), second[2:] / first[2:] ** 2)
    mu = 2.0 * b[2:] / b[1:-1]
    gamma = -(1.0 - b * value)[1:-1] * mu * scale
    return float(b[1] * scale), np.stack([mu * at, -b[2:] / b[:-2], mu * scale, gamma], axis=1)


FIRST, OTHERS = _coefficients()
STABLE = 2.0 / 3.0 * (STAGES**2 - 1) * (1.0 - 2.0 / 15.0 * DAMPING)  # step times the largest rate of decay


def stabilised_step(velocity: Callable[[Any], Any], state: Any, start: Any, length: Any) -> Any:
    """Take a step of the Runge–Kutta–Chebyshev method of second order (Sommeijer, Shampine and Verwer 1998).

    It is stable for modes that decay at rates up to `STABLE / length`, for 12 velocities a step.

    Args:
        velocity: The velocity of a state.
        state: A tuple of arrays.
        start: The velocity of this state.
        length: Length of the step.
    """

    def stage(found: Any, weights: Any) -> tuple[Any, None]:
        before, last = found
        mu, nu, share, correction = weights
        after = tuple(
            (1.0 - mu - nu) * y + mu * now + nu * old + length * (share * change + correction * begin)
            for y, now, old, change, begin in zip(state, last, before, velocity(last), start, strict=True)
        )
        return (last, after), None

    moved = tuple(part + FIRST * length * change for part, change in zip(state, start, strict=True))
    (_, end), _ = jax.lax.scan(stage, (state, moved), jnp.asarray(OTHERS))
    return end
