"""The time at which gradient flow learns a feature, in closed form (theory notes, §5)."""

from __future__ import annotations

import numpy as np

from icl_theory.errors import InputError, as_floats, check_number


def antiderivative(z: np.ndarray | float) -> np.ndarray:
    """`F(z) = −1/z − ln(1−z)/3 + ln(z²+z+1)/6 − arctan((2z+1)/√3)/√3`, with `F'(z) = 1/(z²(1−z³))`, 0 < z < 1."""
    z = np.asarray(z, dtype=float)
    return np.asarray(
        -1.0 / z
        - np.log1p(-z) / 3.0
        + np.log(z * z + z + 1.0) / 6.0
        - np.arctan((2.0 * z + 1.0) / np.sqrt(3.0)) / np.sqrt(3.0)
    )


def hitting_time(fraction: float, *, drive: np.ndarray, optimum: np.ndarray, start: np.ndarray | float) -> np.ndarray:
    """Return `t = [F(z) − F(z_0)] / (2 a u*)`, when the strength is `fraction` of `w* = u*³`: `z = fraction^{1/3}`.

    Time is η × step, and the head is aligned and balanced. The time is 0 if the start is already that strong.

    Args:
        fraction: The fraction of the optimal strength, between 0 and 1.
        drive: a_d.
        optimum: w_d* > 0.
        start: u_d(0) > 0.

    Raises:
        InputError: The fraction is outside (0, 1), or a start or an optimum is not positive.

    Reference: theory notes, §5.
    """
    check_number("fraction", fraction, minimum=0.0, below=1.0, exclusive=True)
    start, optimum = np.asarray(start, float), np.asarray(optimum, float)
    for field, values in (("start", start), ("optimum", optimum)):
        if not np.all(values > 0):
            raise InputError(field, values, "give positive numbers")
    limit = np.cbrt(optimum)
    z = np.cbrt(fraction)
    before = np.minimum(start / limit, z)
    return np.asarray((antiderivative(z) - antiderivative(before)) / (2.0 * np.asarray(drive) * limit))


def fraction_at_time(time: np.ndarray, *, drive: np.ndarray, limit: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return `z_d(t) = u_d/u_d*`, (T, D): the hitting time inverted by bisection to machine precision."""
    if not np.all((start > 0) & (start < limit)):
        raise InputError("start", start, "the closed form needs 0 < u_d(0) < u_d*")
    target = antiderivative(start / limit) + 2.0 * drive * limit * np.asarray(time, float)[:, None]
    # Bisect in the logit of z: resolves both the plateau near 0 and the approach to 1.
    low, high = np.full_like(target, -40.0), np.full_like(target, 36.0)
    for _ in range(70):
        middle = (low + high) / 2.0
        below = antiderivative(1.0 / (1.0 + np.exp(-middle))) < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 1.0 / (1.0 + np.exp(-(low + high) / 2.0))


def start_of_each(start: np.ndarray | float, dim: int) -> np.ndarray:
    """Return u_d(0) as (D,) from one number for all features or one for each.

    Raises:
        InputError: The shape is another, or a number is not positive and finite.
    """
    values = as_floats("start", start)
    if values.shape not in ((), (dim,)):
        raise InputError("start", f"shape {values.shape}", f"give one number, or one for each of {dim} features")
    if not np.all(np.isfinite(values) & (values > 0)):
        raise InputError("start", start, "give positive finite numbers")
    return np.broadcast_to(values, (dim,))
