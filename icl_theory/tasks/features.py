"""Features of a task mixture, and how strongly a model has learned each (theory notes, §1, §3, §7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from icl_theory.errors import InputError, as_floats
from icl_theory.tasks.mixture import TaskDistribution, TaskMixture, beta_second_moment


class Features(NamedTuple):
    """The joint eigendirections of all Λ_g and Γ_g, simplest (largest drive) first.

    If the tasks have a mean μ, then γ and Γ below are those of `S = E[wwᵀ] = Γ + μμᵀ`. Groups that count the query
    have the factor `beta_scale` in their drive. For many runs at once, the axis of runs comes first in every field.

    Attributes:
        directions: Eigendirections, (D, D); column d is e_d.
        drive: `a_d = Σ_g π_g λ_{g,d}² γ_{g,d}`, (D,).
        curvature: `c_d = Σ_g π_g b_{g,d} λ_{g,d}`, (D,).
        energy: `Σ_g π_g tr(Λ_g Γ_g)`, the loss of the zero model.
        entry_curvature: `C_de = Σ_g π_g b_{g,d} λ_{g,e}`, (D, D), the curvature of the entry `e_dᵀ W e_e`; c_d is its
            diagonal. None where only that is known.
    """

    directions: np.ndarray
    drive: np.ndarray
    curvature: np.ndarray
    energy: float | Float[Any, "*runs"]
    entry_curvature: np.ndarray | None = None

    @property
    def optimum(self) -> np.ndarray:
        """The strengths at the minimum of the loss, `w_d* = a_d / c_d` (0 for a feature without drive)."""
        return np.divide(self.drive, self.curvature, out=np.zeros_like(self.drive), where=self.curvature > 0)

    @property
    def gain(self) -> np.ndarray:
        """The amount by which the loss falls when feature d is learned, `a_d²/c_d`."""
        return self.drive * self.optimum

    def strength(self, matrices: Float[Array, "... D D"] | np.ndarray) -> np.ndarray:
        """Strength of each feature in the matrices, `w_d = e_dᵀ W e_d`, shape (..., D)."""
        return np.einsum("id,...ij,jd->...d", self.directions, np.asarray(matrices), self.directions)

    def loss(self, strength: np.ndarray) -> np.ndarray:
        """Population loss of a W diagonal in the features, `energy − 2 Σ a_d w_d + Σ c_d w_d²`, shape (...)."""
        return np.asarray(self.energy + np.sum(strength * (self.curvature * strength - 2.0 * self.drive), axis=-1))


class GroupFeatures(NamedTuple):
    """The contribution of each group to the drive and curvature of the features, before weighting by the shares.

    Features are numbered by their drive in the mixture before upsampling; upsampling keeps this numbering.

    Attributes:
        directions: Eigendirections, (D, D); column d is e_d.
        drive: `λ_{g,d}² γ_{g,d}`, (G, D).
        entry_curvature: `b_{g,d} λ_{g,e}`, (G, D, D); its diagonal is the curvature.
        energy: `tr(Λ_g Γ_g)`, (G,).
        shares: Share π_g of each group, (G,).
    """

    directions: np.ndarray
    drive: np.ndarray
    entry_curvature: np.ndarray
    energy: np.ndarray
    shares: np.ndarray

    @property
    def curvature(self) -> np.ndarray:
        """`b_{g,d} λ_{g,d}`, (G, D)."""
        return np.diagonal(self.entry_curvature, axis1=-2, axis2=-1)

    def upsampled(self, factors: Any = 1.0) -> Features:
        """The features after drawing group g κ_g times as often, with shares `π_g κ_g / Σ_h π_h κ_h`.

        The order of the features stays that of κ = 1.

        Args:
            factors: Upsampling factors κ_g, (G,), or one number for all groups.

        Raises:
            InputError: The number of factors is wrong, a factor is negative or not finite, or all are zero.
        """
        factors = as_floats("factors", factors)
        if factors.shape not in ((), self.shares.shape):
            raise InputError("factors", f"shape {factors.shape}", f"give one for each of {len(self.shares)} groups")
        shares = self.shares * factors
        if not np.all(np.isfinite(shares)) or np.any(shares < 0) or not shares.sum() > 0:
            raise InputError("factors", factors, "every factor must be finite, not negative, not all zero")
        return self.with_shares(shares)

    def with_shares(self, shares: np.ndarray) -> Features:
        """The features under other shares, (..., G); these are divided by their sum."""
        shares = shares / shares.sum(axis=-1, keepdims=True)
        drive, curvature = (np.einsum("...g,...gd->...d", shares, part) for part in (self.drive, self.curvature))
        entries = np.einsum("...g,...gde->...de", shares, self.entry_curvature)
        energy = np.einsum("...g,...g->...", shares, self.energy)
        return Features(self.directions, drive, curvature, float(energy) if energy.ndim == 0 else energy, entries)


def find_features(mixture: TaskMixture) -> Features:
    """Diagonalise all covariances in one basis and order the directions by their drive, largest first.

    Raises:
        InputError: The groups' Λ and Γ (or a fixed task vector) share no eigenbasis, so features do not exist.
    """
    return find_group_features(mixture).upsampled()


def find_group_features(mixture: TaskMixture) -> GroupFeatures:
    """Find the features as `find_features` does, keeping the contributions of the groups apart.

    Raises:
        InputError: The groups' Λ and Γ (or a fixed task vector) share no eigenbasis, so features do not exist.
    """
    names, matrices = [], []
    for index, group in enumerate(mixture.groups):
        names += [f"groups[{index}].covariance", f"groups[{index}].task_covariance"]
        matrices += [np.asarray(group.covariance, float), np.asarray(group.task_second_moment, float)]
    stack = np.stack(matrices)
    scales = np.maximum(np.abs(stack).max(axis=(1, 2)), np.finfo(float).tiny)
    # A generic combination splits every degeneracy that any single matrix splits. Try several and keep the best.
    directions, residual = min(
        (
            _diagonalise(stack, scales, weights)
            for weights in np.random.default_rng(0).uniform(1.0, 2.0, (8, len(stack)))
        ),
        key=lambda found: found[1].max(),
    )
    tolerance = 100 * mixture.dim * float(jnp.finfo(mixture.groups[0].covariance.dtype).eps)
    if residual.max() > tolerance:
        worst = int(np.argmax(residual))
        raise InputError(
            names[worst],
            f"off-diagonal share {residual.max():.1e}",
            "features need all input and task covariances to share one eigenbasis; give all groups the same basis",
        )
    return features_along(directions, [group_matrices(group) for group in mixture.groups], np.asarray(mixture.shares))


def group_matrices(group: TaskDistribution) -> tuple[Any, Any, Any, Any]:
    """Return `(Λ, S, B, s)` of one group, with `S = E[wwᵀ]`, `B = E[ββᵀ]` and the factor s on β (`beta_scale`).

    Under `jax.vmap`, runs come first.
    """
    return group.covariance, group.task_second_moment, beta_second_moment(group), group.beta_scale


def features_along(
    directions: Float[np.ndarray, "*runs D D"],
    matrices: Sequence[tuple[Any, Any, Any, Any]],
    shares: Float[np.ndarray, "*runs G"],
) -> GroupFeatures:
    """Return the drive and curvature of each group along given directions, sorted by total drive, largest first.

    Args:
        directions: Directions e_d as columns; they must diagonalise all the matrices.
        matrices: The `group_matrices` of each group, (..., D, D), and factors, (...).
        shares: Share π_g of each group.

    Returns:
        The `GroupFeatures`. If the arguments have an axis of runs, it comes first in every field.
    """
    parts = []
    for covariance, tasks, moment, scale in matrices:
        eigenvalues, task, beta = (_along(directions, matrix) for matrix in (covariance, tasks, moment))
        drive = np.asarray(scale, float)[..., None] * eigenvalues**2 * task
        parts.append((drive, beta[..., :, None] * eigenvalues[..., None, :], np.sum(eigenvalues * task, axis=-1)))
    drive, entries, energy = (np.stack(values, axis=shares.ndim - 1) for values in zip(*parts, strict=True))
    shares = shares.astype(float)
    order = np.argsort(-np.einsum("...g,...gd->...d", shares, drive), axis=-1, kind="stable")[..., None, :]
    return GroupFeatures(
        directions=np.take_along_axis(directions, order, axis=-1),
        drive=np.take_along_axis(drive, order, axis=-1),
        entry_curvature=_reordered(entries, order),
        energy=energy,
        shares=shares / shares.sum(axis=-1, keepdims=True),
    )


def _reordered(entries: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return matrices (..., G, D, D) with rows and columns in another order, (..., 1, D)."""
    rows = np.take_along_axis(entries, order[..., None], axis=-2)
    return np.take_along_axis(rows, order[..., None, :], axis=-1)


def _diagonalise(stack: np.ndarray, scales: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors of a weighted sum of the matrices, and the relative off-diagonal part of each matrix in them."""
    _, directions = np.linalg.eigh(np.tensordot(weights / scales, stack, axes=1))
    diagonal = directions.T @ stack @ directions
    return directions, np.abs(diagonal - diagonal * np.eye(len(directions))).max(axis=(1, 2)) / scales


def _along(directions: np.ndarray, matrix: Any) -> np.ndarray:
    return np.einsum("...id,...ij,...jd->...d", directions, np.asarray(matrix, float), directions)
