"""Eigenvalue spectra of the input covariance Λ, and orthogonal bases to put them in."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from icl_theory.errors import InputError, check_number
from icl_theory.numerics.draws import standard_normal
from icl_theory.numerics.tracing import array_module, device_array, is_traced


def linear_spectrum(dim: int) -> Float[np.ndarray, " D"]:
    """Linear spectrum λ_d = d / Σ_j j for d = D..1 (largest first), with trace one; the default of ZSLS25.

    Examples:
        >>> linear_spectrum(4)
        array([0.4, 0.3, 0.2, 0.1])
    """
    check_number("dim", dim, minimum=1, integer=True)
    values = np.arange(dim, 0, -1, dtype=float)
    return values / values.sum()


def white_spectrum(dim: int) -> Float[np.ndarray, " D"]:
    """White spectrum λ_d = 1/D, the same in every direction, with trace one."""
    check_number("dim", dim, minimum=1, integer=True)
    return np.full(dim, 1.0 / dim)


def power_law_spectrum(dim: int, exponent: float | Float[Array, ""]) -> Float[np.ndarray | Array, " D"]:
    """Power-law spectrum λ_d ∝ d^(−exponent), with trace one (exponent 0 is white)."""
    check_number("dim", dim, minimum=1, integer=True)
    check_number("exponent", exponent, minimum=0.0)
    values = np.arange(1, dim + 1, dtype=float) ** -exponent
    return values / values.sum()


def geometric_spectrum(dim: int, ratio: float | Float[Array, ""]) -> Float[np.ndarray | Array, " D"]:
    """Geometric spectrum λ_d ∝ ratio^(−(d−1)), with trace one: each eigenvalue is `ratio` times the next one.

    Ratio 1 is white.

    Examples:
        >>> geometric_spectrum(2, 3.0)
        array([0.75, 0.25])
    """
    check_number("dim", dim, minimum=1, integer=True)
    check_number("eigenvalue_ratio", ratio, minimum=0.0, exclusive=True)
    powers = -np.arange(dim) * (jnp.log(ratio) if is_traced(ratio) else np.log(ratio))
    array = jnp if is_traced(ratio) else np
    values = array.exp(powers - powers.max())
    return values / values.sum()


def given_spectrum(eigenvalues: Any, *, field: str = "eigenvalues") -> Any:
    """The eigenvalues as an array, after checking that they are finite, not negative and not all zero."""
    if is_traced(eigenvalues):
        return eigenvalues
    try:
        values = np.asarray(eigenvalues, dtype=float)
    except (TypeError, ValueError):
        raise InputError(field, eigenvalues, "give a list of numbers") from None
    if values.ndim != 1 or values.size == 0:
        raise InputError(field, f"shape {values.shape}", "give a one-dimensional list with one number per dimension")
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise InputError(field, values, "every eigenvalue must be finite and not negative")
    if not np.any(values):
        raise InputError(field, values, "at least one eigenvalue must be positive")
    return values


def random_basis(key: Key[Array, ""], dim: int) -> Float[Array, "D D"]:
    """Draw an orthogonal matrix from the uniform (Haar) distribution; its columns are the basis vectors.

    It is the factor Q of the QR decomposition of a normal matrix, with signs chosen so that R has a positive diagonal.
    """
    check_number("dim", dim, minimum=1, integer=True)
    normal = standard_normal(key, (dim, dim))
    array = array_module(normal)
    rotation, triangle = array.linalg.qr(normal)
    return device_array(rotation * array.sign(array.diagonal(triangle)))


def from_eigenvalues(
    eigenvalues: Float[Array, " D"], basis: Float[Array | np.ndarray, "D D"] | None
) -> Float[Array, "D D"]:
    """The matrix `Q diag(λ) Qᵀ` for eigenvalues λ and a basis Q; `basis=None` means the coordinate axes."""
    array = array_module((eigenvalues, basis))
    eigenvalues = array.asarray(eigenvalues, dtype=float)
    if basis is None:
        return device_array(array.diag(eigenvalues), float)
    basis = array.asarray(basis)
    return device_array((basis * eigenvalues) @ basis.T, float)
