"""Population loss and gradient of linear attention in closed form (theory notes, §3)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from icl_theory.numerics.contraction import contract, reshape
from icl_theory.numerics.tracing import array_module, device_array
from icl_theory.tasks.mixture import TaskMixture, beta_second_moment


class PopulationMoments(NamedTuple):
    """The moments of infinite data, which determine the population loss of reduced models.

    The loss is `L(W) = energy − 2 tr(signal W) + Σ_g π_g tr(W Λ_g Wᵀ B_g)`.

    Attributes:
        energy: `Σ_g π_g tr(Λ_g S_g)`, with `S = E[wwᵀ]`; the loss of predicting zero.
        signal: `Σ_g π_g Λ_g S_g Λ_g`, (D, D); each term has the factor on β (`TaskDistribution.beta_scale`).
        covariances: Input covariance Λ_g of each group, (G, D, D).
        beta_moments: Weighted second moment π_g B_g of β in each group, (G, D, D).
    """

    energy: Float[Any, ""]
    signal: Float[Any, "D D"]
    covariances: Float[Any, "G D D"]
    beta_moments: Float[Any, "G D D"]

    @property
    def dim(self) -> int:
        """D, the dimension of the inputs."""
        return self.covariances.shape[-1]

    @property
    def cross(self) -> Float[Array, " F"]:
        """The cross moment c of the reduced features, F = D²: `signal`, which is symmetric, row by row."""
        return reshape(self.signal.T, (self.dim**2,))

    def product(self, tensor: Float[Array, " F"]) -> Float[Array, " F"]:
        """The product `M T = Σ_g π_g vec(B_g W Λ_g)`.

        M is a sum of Kronecker products, so each group takes of order D³ multiply-adds instead of D⁴.
        """
        matrix = reshape(tensor, (self.dim, self.dim))
        right = contract("jk,gkl->gjl", matrix, self.covariances)
        return reshape(contract("gij,gjl->il", self.beta_moments, right), (self.dim**2,))


def population_moments(mixture: TaskMixture) -> PopulationMoments:
    """Compute the moments of a mixture over infinite data, once before training."""
    array = array_module(mixture)
    shares = array.asarray(mixture.shares)
    covariances = array.stack([group.covariance for group in mixture.groups])
    tasks = array.stack([group.task_second_moment for group in mixture.groups])
    moments = array.stack([beta_second_moment(group) for group in mixture.groups])
    scaled = shares * array.stack([array.asarray(group.beta_scale, shares.dtype) for group in mixture.groups])
    found = PopulationMoments(
        energy=array.einsum("g,gij,gij->", shares, covariances, tasks),
        signal=array.einsum("g,gij,gjk,gkl->il", scaled, covariances, tasks, covariances),
        covariances=covariances,
        beta_moments=shares[:, None, None] * moments,
    )
    return PopulationMoments(*map(device_array, found))


def population_loss(matrix: Float[Array | np.ndarray, "D D"], moments: PopulationMoments) -> Float[Array, ""]:
    """Compute the population loss `E[(y_q − βᵀ W x_q)²]`, a mean square without a ½.

    Args:
        matrix: Effective matrix W of the model, (D, D).
        moments: Moments from `population_moments`.

    Returns:
        The loss for targets without noise; noise on the targets would add the constant σ².

    Reference: theory notes, §3.
    """
    penalty = jnp.sum(matrix * _bilinear(matrix, moments))
    return moments.energy - 2.0 * jnp.sum(moments.signal * matrix.T) + penalty


def population_force(matrix: Float[Array | np.ndarray, "D D"], moments: PopulationMoments) -> Float[Array, "D D"]:
    """Compute the force `Ψ(W) = −½ ∂L/∂W = Σ_g π_g (Λ_g S_g Λ_g − B_g W Λ_g)`, which drives the flow of all parameters.

    Reference: theory notes, §3.
    """
    return moments.signal - _bilinear(matrix, moments)


def _bilinear(matrix: Float[Array | np.ndarray, "D D"], moments: PopulationMoments) -> Float[Array, "D D"]:
    return jnp.einsum("gij,jk,gkl->il", moments.beta_moments, matrix, moments.covariances)
