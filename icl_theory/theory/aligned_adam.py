"""Aligned heads under Adam, full batch or in batches of groups, with all memory of its moments (theory notes, §17)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from icl_theory.analysis.trajectory import Trajectory, whole_steps
from icl_theory.errors import InputError, check_number
from icl_theory.numerics.maps import iterate
from icl_theory.tasks.features import GroupFeatures
from icl_theory.theory.aligned_dynamics import Ascent, perturbation
from icl_theory.theory.hitting_time import start_of_each


class AlignedAdam(NamedTuple):
    """The reduced system under Adam, in discrete steps (a `Dynamics`).

    Value, key and query of an aligned, balanced head have one gradient, so Adam moves all three alike. Along u_d the
    examples of group g have the gradient `s_gd = −2ũ_d² (a_gd − c_gd ũ_d³)`, so a batch has the mean gradient
    `S_d = Σ_g π_g s_gd` and the mean square `S_d² + V_d/b` with `V_d = Σ_g π_g s_gd² − S_d² + σ_d²`. Adam's moments are
    fed these means in place of a batch's gradient and its square:

        m ← β_1 m + (1−β_1) S,   v ← β_2 v + (1−β_2) (S² + V/b),   u ← u − η m̂/(√v̂ + ε)

    Full batches have V/b = 0, and there this is what Adam does. In batches it leaves out that v̂ fluctuates, which
    `stationary_speed` has in full.

    Attributes:
        groups: The contributions of the groups, and their shares π_g.
        start: u_d(0), shape (D,).
        learning_rate: η. Times must be multiples of it.
        batch_size: b; None for full batches.
        noise: σ_d, the standard deviation of an example's gradient within its group, (D,) or one number.
        b1: β_1.
        b2: β_2.
        eps: ε.
        ascent: SAM's ascent step before Adam, for full batches. The default is none.
    """

    groups: GroupFeatures
    start: Float[Any, " D"]
    learning_rate: float
    batch_size: int | None = None
    noise: float | Float[Any, " D"] = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    ascent: Ascent = Ascent()

    def predict(self, time: np.ndarray) -> Trajectory:
        """Iterate the map and return the loss and strengths at the steps `time / η`."""
        features = self.groups.upsampled()
        u = jnp.asarray(start_of_each(self.start, len(features.drive)), float)
        check_number("rho", self.ascent.rho, minimum=0.0)
        if self.batch_size is not None:
            check_number("batch_size", self.batch_size, minimum=1, integer=True)
            if float(self.ascent.rho) > 0:
                raise InputError(
                    "ascent", self.ascent, "there is a law for full batches only; measure it with train_many"
                )
        steps = whole_steps(time, self.learning_rate)
        batch = np.inf if self.batch_size is None else float(self.batch_size)
        shares = self.groups.shares / np.sum(self.groups.shares)
        parts = [jnp.asarray(part, float) for part in (shares, self.groups.drive, self.groups.curvature)]
        args = (
            *parts,
            batch,
            jnp.asarray(self.noise, float),
            self.ascent,
            self.learning_rate,
            self.b1,
            self.b2,
            self.eps,
        )
        values = iterate(_adam_step, (u, jnp.zeros_like(u), jnp.zeros_like(u)), jnp.asarray(steps), args)[0]
        strength = np.asarray(values, float) ** 3
        return Trajectory(np.asarray(time), features.loss(strength), strength)


def adam_direction(step: Any, mean: Array, square: Array, moments: Any, decays: Any) -> tuple[Array, Any]:
    """Return Adam's step in units of the learning rate and its moments, given a gradient's mean and mean square."""
    (m, v), (b1, b2, eps) = moments, decays
    m, v = b1 * m + (1.0 - b1) * mean, b2 * v + (1.0 - b2) * square
    corrected = m / (1.0 - b1 ** (step + 1.0))
    return corrected / (jnp.sqrt(v / (1.0 - b2 ** (step + 1.0))) + eps), (m, v)


def _adam_step(step: Any, state: Any, args: Any) -> Any:
    u, *moments = state
    shares, drive, curvature, batch, noise, ascent, learning_rate, *decays = args
    moved = u - perturbation(u, shares @ drive, shares @ curvature, ascent)
    uphill = -2.0 * moved**2 * (drive - curvature * moved**3)  # (G, D)
    mean = shares @ uphill
    square = mean**2 + (shares @ uphill**2 - mean**2 + noise**2) / batch
    direction, moments = adam_direction(step, mean, square, moments, decays)
    return (u - learning_rate * direction, *moments)
