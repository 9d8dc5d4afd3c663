"""Rank-one ATTN_S reduced to one number per feature: u_d with strength w_d = u_d³ (theory notes, §5 and §6).

Holds exactly for `aligned_parameters` (head d aligned with feature d, |v| = |k| = |q| = u_d) and, from small
initialisation, describes each head after it has chosen its feature.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from icl_theory.analysis.trajectory import Trajectory, whole_steps
from icl_theory.errors import InputError, check_number, check_shape
from icl_theory.numerics.maps import iterate
from icl_theory.numerics.norms import scaled_with_norm
from icl_theory.numerics.tracing import is_traced
from icl_theory.tasks.features import Features
from icl_theory.theory.gradient_flow import integrate
from icl_theory.theory.hitting_time import fraction_at_time

LEARNED = 0.95  # normalised SAM's flow is stopped when every feature has reached this share of its optimum
ROUNDING_UNITS = 1.0  # relative change of u, added and subtracted on alternate steps of the discrete map


class Ascent(NamedTuple):
    """SAM's ascent step: its radius ρ, and whether it is normalised. ρ = 0 is gradient descent."""

    rho: float | Float[Any, ""] = 0.0
    normalised: Any = True


def perturbation(u: Float[Array, " D"], drive: Any, curvature: Any, ascent: Ascent) -> Float[Array, " D"]:
    """Return `p_d`: SAM takes the gradient at `ũ_d = u_d − p_d`.

    Let `r_d = u_d² (a_d − c_d u_d³)`. Normalised SAM has `p_d = ρ r_d / sqrt(3 Σ_j r_j²)` (0 if every r is 0),
    unnormalised SAM has `p_d = 2 ρ r_d`. Reference: theory notes, §6.
    """
    r = u**2 * (drive - curvature * u**3)
    (scaled, _, _), length = scaled_with_norm((r, r, r))  # the gradients of value, key and query
    unit = jnp.where(length > 0, scaled / jnp.where(length > 0, length, 1.0), 0.0)
    return ascent.rho * jnp.where(ascent.normalised, unit, 2.0 * r)


def velocity(u: Float[Array, " D"], drive: Any, curvature: Any, ascent: Ascent) -> Float[Array, " D"]:
    """Return `u̇_d = 2 ũ_d² (a_d − c_d ũ_d³)` per unit of time η × step (the loss has no factor ½)."""
    moved = u - perturbation(u, drive, curvature, ascent)
    return 2.0 * moved**2 * (drive - curvature * moved**3)


class AlignedFlow(NamedTuple):
    """Flow of the reduced system, under gradient descent or SAM (a `Dynamics`).

    Normalised SAM is discontinuous at the minimum, so its flow is computed until every feature has reached
    95 % of its optimum. Later values are NaN.

    Attributes:
        features: The drives and curvatures.
        start: u_d(0), shape (D,).
        ascent: SAM's ascent step. The default is gradient flow.
        stiff: Whether to use an implicit solver, which also gets through SAM's long plateaus. It computes in float64
            whatever the session's precision.
    """

    features: Features
    start: Float[Any, " D"]
    ascent: Ascent = Ascent()
    stiff: bool = False

    def predict(self, time: np.ndarray) -> Trajectory:
        """Integrate from time 0 and return the values at `time`, which may begin later."""
        _check(self.features, self.start, self.ascent)
        grid = np.concatenate([[0.0], np.asarray(time, float)])
        discontinuous = bool(self.ascent.normalised) and float(self.ascent.rho) > 0
        stop = _all_learned if discontinuous else None
        with jax.enable_x64(self.stiff or jax.config.jax_enable_x64):  # type: ignore[attr-defined]
            args = _arguments(self.features, self.ascent)
            values = integrate(_field, jnp.asarray(self.start, float), grid, args, stop=stop, stiff=self.stiff)
        return _as_trajectory(self.features, time, values[1:])


class AlignedDescent(NamedTuple):
    """The reduced system in discrete steps `u ← u + η u̇` (a `Dynamics`).

    These are the steps of GD or SAM up to one rounding unit each (see `descend`).

    Attributes:
        features: The drives and curvatures.
        start: u_d(0), shape (D,).
        learning_rate: η. Times must be multiples of it.
        ascent: SAM's ascent step. The default is gradient descent.
    """

    features: Features
    start: Float[Any, " D"]
    learning_rate: float
    ascent: Ascent = Ascent()

    def predict(self, time: np.ndarray) -> Trajectory:
        """Iterate the map and return the loss and strengths at the steps `time / η`."""
        _check(self.features, self.start, self.ascent)
        steps = whole_steps(time, self.learning_rate)
        args = _arguments(self.features, self.ascent)
        values = descend(jnp.asarray(self.start, float), jnp.asarray(steps), self.learning_rate, args)
        return _as_trajectory(self.features, time, np.asarray(values))


class AlignedClosedForm(NamedTuple):
    """Gradient flow in closed form, by inverting the hitting time (a `Dynamics`)."""

    features: Features
    start: Float[Any, " D"]

    def predict(self, time: np.ndarray) -> Trajectory:
        """Evaluate `u_d(t)` for every feature independently."""
        _check(self.features, self.start, Ascent())
        limit = np.cbrt(self.features.optimum)
        z = fraction_at_time(time, drive=self.features.drive, limit=limit, start=np.asarray(self.start, float))
        return _as_trajectory(self.features, time, z * limit)


def descend(start: Float[Array, " D"], steps: Any, learning_rate: Any, args: Any) -> Float[Array, "T D"]:
    """Return u at each of the ascending `steps` of the discrete map, with `args = (drive, curvature, ascent)`.

    One rounding unit of u is added and subtracted on alternate steps, because every step of a real model has such an
    error. Without it the map may land exactly on an unstable fixed point and never leave it. A learned feature becomes
    such a point under SAM (theory notes, §6).
    """
    return jnp.asarray(iterate(_rounded_step, start, steps, (learning_rate, args)))


def _rounded_step(step: Any, u: Array, args: Any) -> Array:
    learning_rate, field = args
    unit = ROUNDING_UNITS * jnp.finfo(u.dtype).eps
    return (u + learning_rate * velocity(u, *field)) * (1.0 + unit * (1.0 - 2.0 * (step % 2)))


def _field(u: Array, args: Any) -> Array:
    return velocity(u, *args)


def _all_learned(u: Array, args: Any) -> Array:
    drive, curvature, _ = args
    return jnp.min(curvature * u**3 - LEARNED * drive) >= 0


def _arguments(features: Features, ascent: Ascent) -> tuple[Any, Any, Ascent]:
    return jnp.asarray(features.drive, float), jnp.asarray(features.curvature, float), ascent


def _as_trajectory(features: Features, time: np.ndarray, u: np.ndarray) -> Trajectory:
    strength = np.asarray(u, float) ** 3
    return Trajectory(np.asarray(time), features.loss(strength), strength)


def _check(features: Features, start: Any, ascent: Ascent) -> None:
    check_shape("start", start, features.drive.shape)
    check_number("rho", ascent.rho, minimum=0.0)
    if not is_traced(start) and np.any(np.asarray(start) < 0):
        raise InputError("start", start, "the reduced system starts from u_d at or above 0")
