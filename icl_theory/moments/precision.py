"""Moments in the dtype of training, with a warning if that dtype loses digits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from icl_theory.errors import InputError
from icl_theory.moments.empirical import Moments, check_moments
from icl_theory.numerics.tracing import is_traced

LOST_DIGITS = 1e-2  # warn from this relative error of the slowest direction on


class PrecisionWarning(UserWarning):
    """The training dtype cannot resolve the slowest directions of the moments."""


def for_training(moments: Moments, *, dim: int, blocks: str, dtype: Any) -> Moments:
    """Convert moments to means in a model's features and dtype.

    Raises:
        InputError: The dimension is not the model's, the moments are reduced but the model is full, their weight is
            zero, or a field has the wrong shape or is not finite.
    """
    if moments.dim != dim:
        raise InputError("moments", f"dimension {moments.dim}", f"the model takes dimension {dim}")
    check_moments(moments)
    moments = moments.restricted(blocks).mean()
    if not is_traced(moments):
        warn_of_lost_digits(moments.condition_number, dtype)
    return moments.astype(dtype)


def warn_of_lost_digits(condition_number: Callable[[], float], dtype: Any) -> None:
    """Warn if the slowest directions lose their digits in a dtype; for float64 the condition number is not computed."""
    if jnp.dtype(dtype) == np.float64:
        return
    resolved, condition = 1.0 / float(jnp.finfo(dtype).eps), condition_number()
    if condition < LOST_DIGITS * resolved:
        return
    measured = f"is {condition:.1e}" if condition == condition else "was not measured (too many features)"
    warnings.warn(
        f"the condition number of the moments {measured}; {jnp.dtype(dtype).name} resolves {resolved:.0e}, so the "
        "slowest directions may lose their digits; train in float64 (jax.enable_x64)",
        PrecisionWarning,
        stacklevel=4,
    )
