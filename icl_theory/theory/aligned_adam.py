"""Aligned heads under Adam, full batch or in batches of groups, with all memory of its moments (theory notes, §17)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from icl_theory.analysis.trajectory import Trajectory, whole_steps
from icl_theory.errors import InputError, as_floats, check_finite, check_number, check_shape
from icl_theory.moments.compressed_prompts import CompressedPrompts
from icl_theory.numerics.maps import iterate
from icl_theory.tasks.features import GroupFeatures
from icl_theory.theory.aligned_dynamics import Ascent, perturbation
from icl_theory.theory.hitting_time import start_of_each


class AlignedAdam(NamedTuple):
    """The reduced system under Adam, in discrete steps (a `Dynamics`).

    Value, key and query of an aligned, balanced head have one gradient, so Adam moves all three alike. Along u_d the
    examples of group g have the gradient `s_gd = −2ũ_d² (a_gd − c_gd ũ_d³)`, so a batch has the mean gradient
    `S_d = Σ_g π_g s_gd` and the mean square `S_d² + V_d/b` with `V_d = Σ_g π_g s_gd² − S_d² + σ_d²`. Examples that
    differ within their group have the mean of their squares in place of s_gd² (see `example_moments`). Adam's moments
    are fed these means in place of a batch's gradient and its square:

        m ← β_1 m + (1−β_1) S,   v ← β_2 v + (1−β_2) (S² + V/b),   u ← u − η m̂/(√v̂ + ε)

    Full batches have V/b = 0, and there this is what Adam does. In batches it leaves out that v̂ fluctuates, which
    `stationary_speed` has in full.

    Attributes:
        groups: The contributions of the groups, and their shares π_g.
        start: u_d(0), shape (D,).
        learning_rate: η. Times must be multiples of it.
        batch_size: b; None for full batches.
        noise: σ_d, the standard deviation of further noise in an example's gradient, (D,) or one number.
        examples: Moments of the examples within a group, (G, D, 3), from `example_moments`; None if they are all alike.
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
    examples: Float[Any, "G D 3"] | None = None
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    ascent: Ascent = Ascent()

    def predict(self, time: np.ndarray) -> Trajectory:
        """Iterate the map and return the loss and strengths at the steps `time / η`.

        Raises:
            InputError: A number is out of range, a shape is wrong, or there is no law (SAM in batches).
        """
        features = self.groups.upsampled()
        u = jnp.asarray(start_of_each(self.start, len(features.drive)), float)
        check_number("rho", self.ascent.rho, minimum=0.0)
        if self.batch_size is not None:
            check_number("batch_size", self.batch_size, minimum=1, integer=True)
            if float(self.ascent.rho) > 0:
                raise InputError(
                    "ascent", self.ascent, "there is a law for full batches only; measure it with train_many"
                )
        noise, squares = self._checked()
        check_number("b1", self.b1, minimum=0.0, below=1.0)
        check_number("b2", self.b2, minimum=0.0, below=1.0)
        check_number("eps", self.eps, minimum=0.0)
        steps = whole_steps(time, self.learning_rate)
        batch = np.inf if self.batch_size is None else float(self.batch_size)
        shares = self.groups.shares / np.sum(self.groups.shares)
        parts = [
            jnp.asarray(part, float)
            for part in (shares, self.groups.drive, self.groups.curvature, squares, batch, noise)
        ]
        args = (*parts, self.ascent, self.learning_rate, self.b1, self.b2, self.eps)
        values = iterate(_adam_step, (u, jnp.zeros_like(u), jnp.zeros_like(u)), jnp.asarray(steps), args)[0]
        strength = np.asarray(values, float) ** 3
        return Trajectory(np.asarray(time), features.loss(strength), strength)

    def _checked(self) -> tuple[np.ndarray, np.ndarray]:
        """Return σ_d and the moments of the examples, (G, D, 3)."""
        drive, curvature = self.groups.drive, self.groups.curvature
        noise = as_floats("noise", self.noise)
        if noise.shape not in ((), drive.shape[1:]):
            raise InputError("noise", f"shape {noise.shape}", f"give one number, or one for each of {drive.shape[1]}")
        if not np.all(np.isfinite(noise) & (noise >= 0)):
            raise InputError("noise", noise, "give finite numbers that are not negative")
        if self.batch_size is None and noise.any():
            raise InputError("noise", noise, "full batches have none; give batch_size too")
        if self.examples is None:  # (a − c u³)² written out
            return noise, np.stack([drive**2, drive * curvature, curvature**2], axis=-1)
        examples = as_floats("examples", self.examples)
        check_shape("examples", examples, (*drive.shape, 3))
        check_finite("examples", examples)
        return noise, examples


def example_moments(rows: CompressedPrompts, directions: np.ndarray) -> tuple[GroupFeatures, np.ndarray]:
    """Return what `AlignedAdam` needs of a finite set with groups: their features and the moments of their examples.

    With `φ_d = (e_d·β)(e_d·x_q)` an example of target y has the gradient `−2u_d² φ_d (y − u_d³ φ_d)` along u_d, if
    other features are left out. The features are the means of `φ_d y` and `φ_d²` in each group, the moments those of
    `φ_d² y²`, `φ_d³ y` and `φ_d⁴`. Weights are the rows' own.

    Args:
        rows: The set, with the group of each row.
        directions: Directions e_d of the features as columns, (D, D).

    Returns:
        `(groups, examples)`, examples of shape (G, D, 3).

    Raises:
        InputError: Rows have no group, all of a group has weight zero, or the directions have a wrong shape.
    """
    if rows.group is None:
        raise InputError("rows", "without groups", "give group, the index of the group of each row")
    dim, group, directions = rows.dim, np.asarray(rows.group), as_floats("directions", directions)
    check_shape("directions", directions, (dim, dim))
    check_finite("directions", directions)
    matrices = np.asarray(rows.features, float)[:, : dim**2].reshape(-1, dim, dim)
    phi, y = np.einsum("id,pij,jd->pd", directions, matrices, directions), np.asarray(rows.target, float)[:, None]
    member = np.where(group[:, None] == np.arange(group.max() + 1), np.asarray(rows.weight, float)[:, None], 0.0)
    share = member.sum(axis=0)
    if not np.all(share > 0):
        raise InputError("rows", f"weight zero for all of group {share.argmin()}", "leave the group out")
    mean = lambda values: (member / share).T @ values  # noqa: E731
    curvature = mean(phi**2)[:, :, None] * np.eye(dim)
    groups = GroupFeatures(directions, mean(phi * y), curvature, mean(y**2)[:, 0], share / share.sum())
    return groups, np.stack([mean(phi**2 * y**2), mean(phi**3 * y), mean(phi**4)], axis=-1)


def adam_direction(step: Any, mean: Array, square: Array, moments: Any, decays: Any) -> tuple[Array, Any]:
    """Return Adam's step in units of the learning rate and its moments, given a gradient's mean and mean square."""
    (m, v), (b1, b2, eps) = moments, decays
    m, v = b1 * m + (1.0 - b1) * mean, b2 * v + (1.0 - b2) * square
    corrected = m / (1.0 - b1 ** (step + 1.0))
    return corrected / (jnp.sqrt(v / (1.0 - b2 ** (step + 1.0))) + eps), (m, v)


def _adam_step(step: Any, state: Any, args: Any) -> Any:
    u, *moments = state
    shares, drive, curvature, squares, batch, noise, ascent, learning_rate, *decays = args
    moved = u - perturbation(u, shares @ drive, shares @ curvature, ascent)
    mean = -2.0 * moved**2 * (shares @ drive - shares @ curvature * moved**3)
    zeroth, first, second = jnp.einsum("g,gdk->kd", shares, squares)
    spread = 4.0 * moved**4 * (zeroth - 2.0 * first * moved**3 + second * moved**6)
    square = mean**2 + (spread - mean**2 + noise**2) / batch
    direction, moments = adam_direction(step, mean, square, moments, decays)
    return (u - learning_rate * direction, *moments)
