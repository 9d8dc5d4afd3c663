"""Aligned heads under Muon: singular values of a diagonal gradient, one number each (theory notes, §17)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from icl_theory.analysis.trajectory import Trajectory, whole_steps
from icl_theory.errors import as_floats, check_number, check_shape
from icl_theory.numerics.maps import iterate
from icl_theory.tasks.features import GroupFeatures
from icl_theory.theory.aligned_adam import adam_direction
from icl_theory.theory.hitting_time import start_of_each

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the usual quintic iteration
ITERATIONS = 5
EPSILON = 1e-8
HISTORIES = 1024  # of which the mean over batches is taken
FORGOTTEN = 1e-5  # weight at which a batch has left the momentum


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


def held_counts(
    shares: np.ndarray, batch_size: int | None, momentum: float, *, histories: int = HISTORIES, seed: int = 0
) -> np.ndarray:
    """Draw how often each group is in Nesterov's momentum, relative to its mean: `X_g = Σ_j w_j n_g(j)/(bπ_g)`, (K, G).

    The batch of lag j has multinomial counts n(j) and the weight `w_j = μ(1−μ)μ^j`, the newest one `1 − μ` more.

    Args:
        shares: π_g, (G,).
        batch_size: b; None for full batches, of which one history of ones is returned.
        momentum: μ.
        histories: K, the number of histories, drawn once with `seed`.
        seed: Seed of the draws.
    """
    if batch_size is None:
        return np.ones((1, len(shares)))
    lags = int(np.ceil(np.log(FORGOTTEN) / np.log(momentum))) if momentum > 0 else 1
    weights = momentum * (1.0 - momentum) * momentum ** np.arange(lags)
    weights[0] += 1.0 - momentum
    counts = np.random.default_rng(seed).multinomial(batch_size, shares, size=(histories, lags))
    return np.asarray(np.einsum("j,kjg->kg", weights, counts) / (batch_size * shares))


class AlignedMuon(NamedTuple):
    """The reduced system under Muon for keys and queries and Adam for values (a `Dynamics`).

    The keys of all heads form a matrix, and so do the queries. Aligned heads have diagonal gradients there, so Muon
    turns the singular values of the momentum, which are its entries, into `orthogonalised` ones. Value and key of a
    head no longer stay equal: `w_d = v_d k_d²`, with gradients `2 k_d² r_gd` and `2 v_d k_d r_gd` in group g,
    `r_gd = c_gd w_d − a_gd`.

    For full batches the map is exact. In batches of groups keys move by the mean of `p(M_d)`, `M_d = Σ_g X_g m_gd`,
    over the counts X that the momentum holds (`held_counts`), with m the momentum of the groups' mean gradients. Values
    move as in `AlignedAdam`. Fluctuations of v_d and k_d themselves are left out.

    Attributes:
        groups: The contributions of the groups, and their shares π_g.
        start: v_d(0) = k_d(0) = q_d(0), shape (D,).
        learning_rate: η. Times must be multiples of it.
        momentum: μ of `M ← μM + (1−μ)g`, used as Nesterov's; 0 for none.
        batch_size: b; None for full batches.
        decays: β_1, β_2 and ε of Adam, which moves the values.
    """

    groups: GroupFeatures
    start: Float[Any, " D"]
    learning_rate: float
    momentum: float = 0.95
    batch_size: int | None = None
    decays: tuple[float, float, float] = (0.9, 0.999, 1e-8)

    def predict(self, time: np.ndarray) -> Trajectory:
        """Iterate the map and return the loss and strengths at the steps `time / η`.

        Raises:
            InputError: A number is out of range, or a shape is wrong.
        """
        check_shape("decays", as_floats("decays", self.decays), (3,))
        check_number("b1", self.decays[0], minimum=0.0, below=1.0)
        check_number("b2", self.decays[1], minimum=0.0, below=1.0)
        check_number("eps", self.decays[2], minimum=0.0)
        check_number("momentum", self.momentum, minimum=0.0, below=1.0)
        if self.batch_size is not None:
            check_number("batch_size", self.batch_size, minimum=1, integer=True)
        steps, features = whole_steps(time, self.learning_rate), self.groups.upsampled()
        start = jnp.asarray(start_of_each(self.start, len(features.drive)), float)
        shares = self.groups.shares / np.sum(self.groups.shares)
        batch = np.inf if self.batch_size is None else float(self.batch_size)
        held = held_counts(np.asarray(shares, float), self.batch_size, self.momentum)
        parts = [jnp.asarray(part, float) for part in (shares, self.groups.drive, self.groups.curvature, held, batch)]
        trace, zero = jnp.zeros(self.groups.drive.shape), jnp.zeros_like(start)
        args = (*parts, self.learning_rate, self.momentum, *self.decays)
        value, key = iterate(_muon_step, (start, start, trace, zero, zero), jnp.asarray(steps), args)[:2]
        strength = np.asarray(value * key**2, float)
        return Trajectory(np.asarray(time), features.loss(strength), strength)


def _muon_step(step: Any, state: Any, args: Any) -> Any:
    value, key, trace, *moments = state
    shares, drive, curvature, held, batch, learning_rate, momentum, *decays = args
    residual = curvature * value * key**2 - drive  # (G, D)
    uphill = 2.0 * value * key * shares[:, None] * residual
    trace = momentum * trace + (1.0 - momentum) * uphill
    older, newer = 1.0 - momentum ** (step + 2.0), 1.0 - momentum ** (step + 1.0)
    ahead = momentum * trace / older + (1.0 - momentum) * uphill / newer
    moved = jnp.mean(orthogonalised(held @ ahead), axis=0)
    slope = 2.0 * key**2 * residual
    mean = shares @ slope
    square = mean**2 + (shares @ slope**2 - mean**2) / batch
    direction, moments = adam_direction(step, mean, square, moments, decays)
    return (value - learning_rate * direction, key - learning_rate * moved, trace, *moments)
