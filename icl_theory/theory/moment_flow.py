"""Learning times predicted from the moments of finite, weighted data (theory notes, §8).

On a population with a joint eigenbasis the features evolve independently. On finite data they are coupled, and more so
if examples were chosen by their losses: once one feature is learned, it changes what is left for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from icl_theory.analysis.trajectory import Trajectory
from icl_theory.errors import InputError, as_floats, check_shape
from icl_theory.moments.empirical import Moments
from icl_theory.tasks.features import Features
from icl_theory.theory.gradient_flow import integrate
from icl_theory.theory.hitting_time import start_of_each


class MomentFlow(NamedTuple):
    """Aligned, balanced heads on given data (a `Dynamics`): `u̇_d = 2u_d² (a_d − Σ_j C_dj u_j³)`, `w_d = u_d³`.

    The flow is exact while W stays diagonal in the directions. Finite data drive the off-diagonal entries slightly, and
    these are neglected. `C_dd` is the curvature c_d of §3, and `C_dj` couples features d and j.

    Attributes:
        directions: The eigenbasis, (D, D). Column d is e_d.
        drive: `a_d = E_s[y (e_d·β)(e_d·x_q)]`, (D,).
        coupling: `C_dj = E_s[(e_d·β)(e_d·x_q)(e_j·β)(e_j·x_q)]`, (D, D).
        energy: `E_s[y²]`, the loss of the zero model.
        start: u_d(0), (D,).
    """

    directions: np.ndarray
    drive: np.ndarray
    coupling: np.ndarray
    energy: float
    start: np.ndarray

    @classmethod
    def from_moments(
        cls, moments: Moments, directions: Float[Array | np.ndarray, "D D"], *, start: np.ndarray | float
    ) -> MomentFlow:
        """Build the flow from the moments of the weighted data.

        Raises:
            InputError: The directions have another dimension or are not orthonormal, or the start has another shape or
                is not positive.
        """
        mean = moments.restricted("reduced").mean()
        dim, axes = mean.dim, as_floats("directions", directions)
        check_shape("directions", axes, (dim, dim))
        if not np.abs(axes.T @ axes - np.eye(dim)).max() < 1e-4:
            raise InputError("directions", axes, "its columns must be orthonormal (those of find_features are)")
        start = start_of_each(start, dim)
        gram = np.asarray(mean.gram, float).reshape(dim, dim, dim, dim)
        return cls(
            directions=axes,
            drive=np.einsum("id,ij,jd->d", axes, np.asarray(mean.cross, float).reshape(dim, dim), axes),
            coupling=np.einsum("id,jd,ijkl,ke,le->de", axes, axes, gram, axes, axes, optimize=True),
            energy=float(mean.energy),
            start=start,
        )

    @property
    def optimum(self) -> np.ndarray:
        """The strengths at the end of the flow, `C⁻¹a`, (D,); those of smallest norm where C is singular."""
        return np.linalg.lstsq(self.coupling, self.drive, rcond=None)[0]

    @property
    def features(self) -> Features:
        """The drives and curvatures without the couplings between features."""
        return Features(self.directions, self.drive, np.diagonal(self.coupling).copy(), self.energy)

    def predict(self, time: np.ndarray) -> Trajectory:
        """Integrate from time 0. The loss is that on the data.

        Raises:
            InputError: Times are negative, not finite or not ascending.
        """
        return MomentFlow.predict_together([self], time)[0]

    @staticmethod
    def predict_together(flows: Sequence[MomentFlow], time: np.ndarray) -> list[Trajectory]:
        """Return `flow.predict(time)` for each flow, all solved as one program.

        Raises:
            InputError: Times are negative, not finite or not ascending.
        """
        time = as_floats("time", time)
        if time.ndim != 1 or not np.all(np.isfinite(time) & (time >= 0)) or np.any(np.diff(time) < 0):
            raise InputError("time", time, "give ascending finite times from 0, shape (T,)")
        grid = np.concatenate([[0.0], time])
        args = tuple(np.stack([getattr(flow, name) for flow in flows]) for name in ("drive", "coupling"))
        strengths = integrate(_field, np.stack([flow.start for flow in flows]), grid, args)[:, 1:] ** 3
        found = []
        for flow, strength in zip(flows, strengths, strict=True):
            quadratic = np.einsum("td,de,te->t", strength, flow.coupling, strength)
            found.append(Trajectory(time, flow.energy - 2.0 * strength @ flow.drive + quadratic, strength))
        return found


def _field(u: Array, args: Any) -> Array:
    drive, coupling = args
    return 2.0 * u**2 * (drive - coupling @ u**3)
