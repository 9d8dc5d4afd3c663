"""ATTN_M, whose loss drops once: an effective balanced head, and a logistic curve for white inputs (notes, §5)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from icl_theory.analysis.trajectory import Trajectory
from icl_theory.errors import InputError, check_number, check_shape
from icl_theory.tasks.features import Features
from icl_theory.theory.gradient_flow import integrate


def effective_start(
    value: Float[Array | np.ndarray, " H"], merged: Float[Array | np.ndarray, "H D D"], features: Features
) -> float:
    """Return v_0 of the balanced head that H small random heads are equivalent to: `v_0² = Σ_i ((v_i + ⟨U_i, Â⟩)/2)²`.

    Near zero the flow is linear, `v̇_i = 2⟨U_i, A⟩`, `U̇_i = 2 v_i A` with `A = Σ_d a_d e_d e_dᵀ` and `Â = A/‖A‖`.
    Only the part of each head along the growing direction `(1, Â)/√2` survives, and all heads grow at the same rate.
    """
    return float(np.linalg.norm(_growing(np.asarray(value), np.asarray(merged), features)))


def effective_head(
    value: Float[Array | np.ndarray, " H"], merged: Float[Array | np.ndarray, "H D D"], features: Features
) -> Float[np.ndarray, " D+1"]:
    """Return v(0) and s_d(0) of the head that merged heads become, for `MergedFlow`.

    With the growing part of head i, `p_i = (v_i + ⟨U_i, Â⟩)/2` as in `effective_start`, and `n = p/‖p‖`:

        v(0) = Σ_i n_i v_i,   s_d(0) = Σ_i n_i e_dᵀ U_i e_d

    Rotating heads among each other, `v → Ov` and `U → OU`, leaves the flow as it is. After the rotation that turns p
    onto one head, no other head has a part that grows near zero. For a start of size ε the learning times of that head
    alone are off by `O(ε² ln(1/ε))/‖A‖`, those of the balanced head of `effective_start` by `O(ε)/‖A‖`.

    Zeros if no head has a growing part.

    Reference: theory notes, §16 (derived there).
    """
    value, merged = np.asarray(value), np.asarray(merged)
    growing = _growing(value, merged, features)
    entries = np.einsum("hij,id,jd->hd", merged, features.directions, features.directions)
    return np.concatenate([[growing @ value], growing @ entries]) / (np.linalg.norm(growing) or 1.0)


def _growing(value: np.ndarray, merged: np.ndarray, features: Features) -> np.ndarray:
    """Return the growing part of each head, (H,)."""
    direction = (features.directions * (features.drive / np.linalg.norm(features.drive))) @ features.directions.T
    return np.asarray((value + np.einsum("hij,ij->h", merged, direction)) / 2.0)


class MergedFlow(NamedTuple):
    """Gradient flow of the effective head: `v̇ = 2 Σ_d s_d (a_d − c_d v s_d)`, `ṡ_d = 2 v (a_d − c_d v s_d)`.

    The strengths are `w_d = v s_d` (a `Dynamics`).

    Attributes:
        features: The drives and curvatures.
        start: v(0) and s_d(0), (D+1,) (see `effective_head`); or v_0 > 0 of a balanced head, `s_d(0) = v_0 a_d/‖a‖`.
    """

    features: Features
    start: float | Float[np.ndarray, " D+1"]

    def predict(self, time: np.ndarray) -> Trajectory:
        """Integrate from time 0."""
        drive = self.features.drive
        begin = np.asarray(self.start, float)
        if begin.ndim == 0:
            check_number("start", self.start, minimum=0.0, exclusive=True)
            begin = self.start * np.concatenate([[1.0], drive / np.linalg.norm(drive)])
        check_shape("start", begin, (len(drive) + 1,))
        grid = np.concatenate([[0.0], np.asarray(time, float)])
        args = jnp.asarray(drive, float), jnp.asarray(self.features.curvature, float)
        values = integrate(_field, jnp.asarray(begin, float), grid, args)[1:]
        strength = values[:, :1] * values[:, 1:]
        return Trajectory(np.asarray(time), self.features.loss(strength), strength)


class MergedLogistic(NamedTuple):
    """Closed form for white inputs: `w(t) = w* / (1 + (w*/w_0 − 1) exp(−4 √D a t))`, the same for every feature.

    It solves `ẇ = 4 √D w (a − c w)`, which the balanced head obeys with `w = v²/√D` (a `Dynamics`).

    Attributes:
        features: The drives and curvatures, all equal.
        start: v_0 > 0.
    """

    features: Features
    start: float

    def predict(self, time: np.ndarray) -> Trajectory:
        """Evaluate the logistic curve."""
        check_number("start", self.start, minimum=0.0, exclusive=True)
        drive, optimum, dim = self.features.drive, self.features.optimum, len(self.features.drive)
        if np.ptp(drive) > 1e-5 * drive.max() or np.ptp(optimum) > 1e-5 * optimum.max():
            raise InputError("features", drive, "the closed form needs white inputs and an isotropic task prior")
        initial = self.start**2 / np.sqrt(dim)
        decay = np.exp(-4.0 * np.sqrt(dim) * drive[0] * np.asarray(time, float))
        curve = optimum[0] / (1.0 + (optimum[0] / initial - 1.0) * decay)
        strength = np.repeat(curve[:, None], dim, axis=1)
        return Trajectory(np.asarray(time), self.features.loss(strength), strength)


def _field(state: Array, args: Any) -> Array:
    drive, curvature = args
    v, s = state[0], state[1:]
    force = drive - curvature * v * s
    return jnp.concatenate([2.0 * jnp.sum(s * force)[None], 2.0 * v * force])
