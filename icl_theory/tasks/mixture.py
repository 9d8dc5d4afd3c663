"""The distribution of in-context regression tasks: one group, or a mixture of groups (theory notes, §1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from icl_theory.errors import InputError, check_finite, check_number, check_shape
from icl_theory.numerics.tracing import array_module, device_array, is_traced
from icl_theory.tasks.spectra import from_eigenvalues, given_spectrum

SHARE_TOLERANCE = 1e-6


class TaskDistribution(NamedTuple):
    """One group of prompts: `x ~ N(0, Λ)`, `w ~ N(μ, Γ)`, `y = w·x + σ ε`, N context tokens.

    Attributes:
        covariance: Input covariance Λ, shape (D, D).
        task_covariance: Task covariance Γ, shape (D, D); zero for a fixed task.
        task_mean: Task mean μ, shape (D,); zero for in-context learning, the fixed task vector for in-weight learning.
        noise_std: Standard deviation σ of the label noise on the context; the target `w·x_q` has no noise.
        num_context: Number N of context tokens, not counting the query.
        count_query: Whether averages over a prompt's tokens divide by N + 1, the query counted, and not by N.
    """

    covariance: Float[Any, "D D"]
    task_covariance: Float[Any, "D D"]
    task_mean: Float[Any, " D"]
    noise_std: float | Float[Any, ""]
    num_context: int | Int[Any, ""]
    count_query: bool | Bool[Any, ""] = False

    @classmethod
    def create(
        cls,
        eigenvalues: Any,
        *,
        num_context: int | Any,
        task_eigenvalues: Any = None,
        noise_std: float | Any = 0.0,
        basis: Float[Array | np.ndarray, "D D"] | None = None,
        task_mean: Float[Array | np.ndarray, " _"] | None = None,
        count_query: bool = False,
    ) -> TaskDistribution:
        """Build a group whose input and task covariances have given spectra in one common basis.

        Args:
            eigenvalues: Eigenvalues λ_d of Λ, shape (D,), not negative.
            num_context: Number of context tokens, N ≥ 1.
            task_eigenvalues: Eigenvalues γ_d of Γ in the same basis and order; ones by default (Γ = I). They may all be
                zero only if `task_mean` is given.
            noise_std: Standard deviation of the label noise, σ ≥ 0.
            basis: Orthogonal matrix (D, D) with the eigendirections as columns; the coordinate axes by default.
            task_mean: Task mean μ in coordinates (not in the basis); zero by default.
            count_query: Whether averages over a prompt's tokens divide by N + 1 in place of N.

        Raises:
            InputError: A field is negative, NaN or of the wrong shape; the error names it.
        """
        eigenvalues = given_spectrum(eigenvalues)
        (dim,) = np.shape(eigenvalues)
        if task_eigenvalues is None:
            task_eigenvalues = np.ones(dim)
        if task_mean is None or is_traced(task_eigenvalues) or np.any(np.asarray(task_eigenvalues)):
            task_eigenvalues = given_spectrum(task_eigenvalues, field="task_eigenvalues")
        check_shape("task_eigenvalues", task_eigenvalues, (dim,))
        check_number("num_context", num_context, minimum=1, integer=True)
        check_number("noise_std", noise_std, minimum=0.0)
        if basis is not None:
            check_shape("basis", basis, (dim, dim))
            check_finite("basis", basis)
            if not is_traced(basis) and np.abs(np.asarray(basis).T @ np.asarray(basis) - np.eye(dim)).max() > 1e-4:
                raise InputError("basis", basis, "its columns must be orthonormal (see random_basis)")
        task_mean = np.zeros(dim) if task_mean is None else task_mean
        task_mean = device_array(task_mean, dtype=float)
        check_shape("task_mean", task_mean, (dim,))
        check_finite("task_mean", task_mean)
        return cls(
            covariance=from_eigenvalues(device_array(eigenvalues), basis),
            task_covariance=from_eigenvalues(device_array(task_eigenvalues), basis),
            task_mean=task_mean,
            noise_std=device_array(noise_std, dtype=float),
            num_context=num_context if is_traced(num_context) else int(num_context),
            count_query=bool(count_query),
        )

    @property
    def dim(self) -> int:
        """D, the dimension of the inputs."""
        return self.covariance.shape[-1]

    @property
    def beta_scale(self) -> Any:
        """Factor on β = (1/N) Σ_n y_n x_n: `N/(N + 1)` if the query is counted, else 1."""
        return self.num_context / (self.num_context + self.count_query)

    @property
    def task_second_moment(self) -> Float[Array, "D D"]:
        """Second moment `E[w wᵀ] = Γ + μμᵀ`, through which alone the tasks enter the loss of the reduced models."""
        array = array_module((self.task_covariance, self.task_mean))
        return device_array(array.asarray(self.task_covariance) + array.outer(self.task_mean, self.task_mean))


class TaskMixture(NamedTuple):
    """A mixture of groups g with shares π_g (theory notes, §1).

    Attributes:
        groups: The `TaskDistribution` of each group, all of the same dimension D.
        shares: Share π_g of each group, shape (G,), summing to one.
    """

    groups: tuple[TaskDistribution, ...]
    shares: Float[Any, " G"]

    @classmethod
    def create(cls, groups: Sequence[TaskDistribution], shares: Any) -> TaskMixture:
        """Build a mixture after checking the groups and shares.

        Raises:
            InputError: There are no groups, their dimensions differ, or the shares are not one for each group, not
                finite, negative or do not sum to one.
        """
        groups = tuple(groups)
        if not groups:
            raise InputError("groups", "()", "give at least one group")
        dims = [group.dim for group in groups]
        if len(set(dims)) > 1:
            raise InputError("groups", f"dimensions {dims}", "all groups must have the same dimension")
        if not is_traced(shares):
            values = np.asarray(shares, dtype=float)
            if values.shape != (len(groups),):
                raise InputError("shares", f"shape {values.shape}", f"give one share per group ({len(groups)})")
            if not np.all(np.isfinite(values)) or np.any(values < 0):
                raise InputError("shares", values, "every share must be finite and not negative")
            if abs(values.sum() - 1.0) > SHARE_TOLERANCE:
                raise InputError("shares", values, f"they must sum to 1, not {values.sum():g}")
        return cls(groups=groups, shares=device_array(shares, dtype=float))

    @classmethod
    def single(cls, eigenvalues: Any, **settings: Any) -> TaskMixture:
        """A mixture of one group; the settings are those of `TaskDistribution.create`."""
        return cls.create([TaskDistribution.create(eigenvalues, **settings)], [1.0])

    @property
    def dim(self) -> int:
        """D, the dimension of the inputs."""
        return self.groups[0].dim

    def upsampled(self, factors: Any) -> TaskMixture:
        """The mixture after drawing group g κ_g times as often: `π_g κ_g / Σ_h π_h κ_h`.

        Examples:
            >>> group = TaskDistribution.create([1.0], num_context=4)
            >>> TaskMixture.create([group, group], [0.5, 0.5]).upsampled([1.0, 3.0]).shares.tolist()
            [0.25, 0.75]
        """
        if not is_traced(factors):
            values = np.asarray(factors, dtype=float)
            check_shape("factors", values, (len(self.groups),))
            if not np.all(np.isfinite(values)) or np.any(values < 0) or values.sum() == 0:
                raise InputError("factors", values, "every factor must be finite, not negative, not all zero")
        array = array_module((self.shares, factors))
        weighted = array.asarray(self.shares) * array.asarray(factors, dtype=float)
        return self._replace(shares=device_array(weighted / weighted.sum()))

    def with_fixed_task(self, share: float | Float[Array, ""], task_vector: Any) -> TaskMixture:
        """Give a share of the prompts one fixed task vector (in-weight learning).

        Each group g is split in two: a part of share (1 − share) π_g stays as it was, and in the other, of share
        share·π_g, the task vector is always `w = task_vector`.
        """
        check_number("share", share, minimum=0.0, maximum=1.0)
        task_vector = device_array(task_vector, dtype=float)
        check_shape("task_vector", task_vector, (self.dim,))
        check_finite("task_vector", task_vector)
        nothing = np.zeros((self.dim, self.dim), self.groups[0].covariance.dtype)
        fixed = tuple(
            group._replace(task_covariance=device_array(nothing), task_mean=task_vector) for group in self.groups
        )
        array = array_module((self.shares, share))
        own = array.asarray(self.shares)
        shares = array.concatenate([(1.0 - share) * own, share * own])
        return TaskMixture.create(self.groups + fixed, shares)


def beta_second_moment(task: TaskDistribution) -> Float[Array, "D D"]:
    """Second moment `B = E[ββᵀ] = ΛSΛ + (ΛSΛ + tr(ΛS) Λ)/N + σ²Λ/N` with `S = E[wwᵀ]` (Γ when the mean is zero).

    Inputs are assumed Gaussian, and `β` includes the factor 1/N (B has the factor `beta_scale²`). Reference: theory
    notes, §3.
    """
    array = array_module(task)
    covariance, second, noise_std = map(array.asarray, (task.covariance, task.task_second_moment, task.noise_std))
    with np.errstate(all="ignore"):  # values that are not finite are refused later, by the loss
        signal = covariance @ second @ covariance
        energy = array.sum(covariance * second)
        moment = signal + (signal + energy * covariance + noise_std**2 * covariance) / task.num_context
    return device_array(task.beta_scale**2 * moment)
