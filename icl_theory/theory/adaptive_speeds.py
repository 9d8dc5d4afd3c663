"""Speeds at which sign descent and Adam learn a feature, and what upsampling does to them (theory notes, §17).

In an aligned head every weight of a feature has the same gradient. An optimizer that divides it by its own size moves
the amplitude u_d by η times a *speed* between 0 and 1, whatever the drive. Batches are drawn group by group: each of
the b examples comes from group g with probability π_g, and feature d belongs to one group.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.signal import lfilter
from scipy.stats import binom

from icl_theory.errors import InputError, as_floats, check_finite, check_number, check_shape

LAWS = ("gd", "sign", "adam")


def signal_speed(signal: Any, variance: Any, batch_size: Any) -> np.ndarray:
    """Return Adam's speed `S/√(S² + V/b)` along a weight; the critical batch size is `V/S²`.

    It holds where the gradient changes little within the memory of Adam's second moment and this memory holds many
    independent gradients.

    Args:
        signal: S, the mean gradient.
        variance: V, the variance of the gradient of one example.
        batch_size: b; infinite for full batches.

    Raises:
        InputError: Signal or variance is not finite, the variance is negative, or a batch size is below one.

    Reference: theory notes, §17.
    """
    signal, variance, batch = _fields(signal=signal, variance=variance, batch_size=batch_size)
    check_finite("signal", signal)
    check_finite("variance", variance)
    if not np.all(variance >= 0):
        raise InputError("variance", variance, "give numbers that are not negative")
    _check_batch(batch)
    size = np.sqrt(signal**2 + variance / batch)
    return np.asarray(np.divide(np.abs(signal), size, out=np.zeros(size.shape), where=size > 0))


def group_speed(share: Any, batch_size: Any, *, optimizer: str = "adam") -> np.ndarray:
    """Return the speed of a feature that only the share π of the examples knows.

    Adam: `√(πb/(1 − π + πb))`. Sign descent: `1 − (1 − π)^b`, the probability that a batch has such an example.
    Gradient descent: π, the speed relative to that of a group which has all examples.

    Raises:
        InputError: A share is outside (0, 1], a batch size is below one, or the optimizer has no law here.

    Reference: theory notes, §17.
    """
    share, batch = _shares(share, batch_size, optimizer)
    if optimizer == "gd":
        return share.copy()
    if optimizer == "sign":
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            missed = np.where(share < 1.0, np.exp(batch * np.log1p(-np.minimum(share, 1.0 - 1e-16))), 0.0)
        return np.asarray(1.0 - missed)
    return signal_speed(share, share * (1.0 - share), batch)


def upsampling_exponent(share: Any, batch_size: Any, *, optimizer: str = "adam") -> np.ndarray:
    """Return `−d ln(t_2/t_1) / d ln(odds)`, where the late group has share π and the early one the rest.

    Upsampling by κ multiplies the odds π/(1−π) by κ. Gradient descent: 1. Adam:
    `½ [(1−π)/(1−π+πb) + π/(π+(1−π)b)]`, from ½ at b = 1 to 0 at full batch. Sign descent: `e(π) + e(1−π)` with
    `e(π) = πb (1−π)^b / (1 − (1−π)^b)`, from 1 to 0.

    Raises:
        InputError: A share is outside (0, 1], a batch size is below one, or the optimizer has no law here.

    Reference: theory notes, §17.
    """
    share, batch = _shares(share, batch_size, optimizer)
    if optimizer == "gd":
        return np.ones(share.shape)
    return np.asarray(_log_slope(share, batch, optimizer) + _log_slope(np.asarray(1.0 - share), batch, optimizer))


def sign_learning_time(
    fraction: float, *, optimum: np.ndarray, start: np.ndarray | float, speed: np.ndarray | float = 1.0
) -> np.ndarray:
    """Return `t = (z u* − u_0)/speed`, when the strength is `fraction` of `w* = u*³`: `z = fraction^{1/3}`.

    The drive is absent: at speed 1 all features are learned at nearly the same time.

    Raises:
        InputError: The fraction is outside (0, 1), or an optimum, a start or a speed is not positive.

    Reference: theory notes, §17.
    """
    check_number("fraction", fraction, minimum=0.0, below=1.0, exclusive=True)
    optimum, start, speed = _fields(optimum=optimum, start=start, speed=speed)
    for field, values in (("optimum", optimum), ("start", start), ("speed", speed)):
        if not np.all(values > 0):
            raise InputError(field, values, "give positive numbers")
    return np.asarray(np.maximum(np.cbrt(fraction) * np.cbrt(optimum) - start, 0.0) / speed)


def stationary_speed(sizes: Any, probabilities: Any, *, b1: float = 0.9, b2: float = 0.999) -> float:
    """Return Adam's mean step, in units of η, for independent gradients G of which each takes one of `sizes`.

    No memory is taken to be long. With `v = (1−β_2) Σ_k β_2^k G_k²` and `1/√v = π^{-1/2} ∫ s^{-1/2} e^{-sv} ds`,

        E[m/√v] = (π(1−β_2))^{-1/2} ∫ s^{-1/2} Π_k E_0(sβ_2^k) Σ_j (1−β_1) β_1^j E_1(sβ_2^j)/E_0(sβ_2^j) ds

    where `E_0(y) = E[e^{-yG²}]` and `E_1(y) = E[G e^{-yG²}]`. Where the memory of v holds many events it is the law of
    `signal_speed`. A gradient that is there in a share p ≪ 1 − β_2 of the steps moves its weight at a speed ∝ p: there
    upsampling acts as under gradient descent.

    Args:
        sizes: Values of the gradient, (K,); only their ratios matter.
        probabilities: Their probabilities, (K,), summing to one.
        b1: β_1.
        b2: β_2, above β_1².

    Raises:
        InputError: A size is not finite, shapes differ, the probabilities are none, or a decay rate is out of range.

    Reference: derived in the theory notes, §17.
    """
    sizes, chances = (as_floats(field, given) for field, given in (("sizes", sizes), ("probabilities", probabilities)))
    check_finite("sizes", sizes)
    check_shape("probabilities", chances, sizes.shape)
    if sizes.ndim != 1 or not np.all(chances >= 0) or abs(chances.sum() - 1.0) > 1e-6 or not np.any(chances * sizes):
        raise InputError(
            "probabilities", chances, "give one for each size, summing to one, some for a size that is not 0"
        )
    check_number("b1", b1, minimum=0.0, below=1.0)
    check_number("b2", b2, minimum=b1**2, maximum=1.0 - 1e-6, exclusive=True)
    squares = sizes**2 / np.max(sizes[chances > 0] ** 2)
    least = np.min(squares[(chances > 0) & (squares > 0)])
    step = -np.log(b2)  # the grid is even in ln s, so that s β_2^k lies on it
    exponents = np.arange(np.log(1e-14 * (1.0 - b2)), np.log(1e3 / least) + 40.0 * step, step)
    s = np.exp(exponents)
    zeroth, first = np.zeros(s.shape), np.zeros(s.shape)
    for chance, size, square in zip(chances, sizes / np.abs(sizes).max(), squares, strict=True):
        term = chance * np.exp(-s * square)
        zeroth, first = zeroth + term, first + size * term
    first = np.divide(first, zeroth, out=np.zeros(s.shape), where=zeroth > 0)
    with np.errstate(divide="ignore"):
        missed = np.exp(np.cumsum(np.log(zeroth)))
    moved = lfilter([1.0 - b1], [1.0, -b1], first)
    return float(np.sum(np.sqrt(s) * missed * moved) * step / np.sqrt(np.pi * (1.0 - b2)))


def batch_speed(share: float, batch_size: int, *, b1: float = 0.9, b2: float = 0.999) -> float:
    """Return `stationary_speed` of a feature that only the share π of the examples knows, with n ~ Bin(b, π) of them.

    Raises:
        InputError: The share is outside (0, 1], the batch size is no whole number, or a decay rate is out of range.
    """
    check_number("share", share, minimum=0.0, maximum=1.0, exclusive=True)
    check_number("batch_size", batch_size, minimum=1, integer=True)
    counts = np.arange(batch_size + 1)
    chances = binom.pmf(counts, batch_size, share)
    kept = chances > 1e-12
    return stationary_speed(counts[kept], chances[kept] / chances[kept].sum(), b1=b1, b2=b2)


def _log_slope(share: np.ndarray, batch: np.ndarray, optimizer: str) -> np.ndarray:
    """Return `d ln(speed) / d ln(odds)` of a group of this share; 0 for a share of 0."""
    rest = 1.0 - share
    if optimizer == "adam":
        return np.asarray(0.5 * rest / (rest + share * batch))
    missed = 1.0 - np.where(share > 0, group_speed(np.maximum(share, 1e-300), batch, optimizer="sign"), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(share > 0, batch * share * missed / (1.0 - missed), 1.0)
    return np.asarray(np.where(missed > 0, slope, 0.0))


def _shares(share: Any, batch_size: Any, optimizer: str) -> tuple[np.ndarray, np.ndarray]:
    if optimizer not in LAWS:
        remedy = f"no law for its batches here; give one of {', '.join(LAWS)}, or measure it with train_many"
        raise InputError("optimizer", optimizer, remedy)
    share, batch = _fields(share=share, batch_size=batch_size)
    if not np.all((share > 0) & (share <= 1)):
        raise InputError("share", share, "give shares above 0, at most 1")
    _check_batch(batch)
    return share, batch


def _check_batch(batch: np.ndarray) -> None:
    if not np.all(batch >= 1):
        raise InputError("batch_size", batch, "give at least 1")


def _fields(**given: Any) -> list[np.ndarray]:
    values = [as_floats(field, value) for field, value in given.items()]
    try:
        return [np.asarray(value, float) for value in np.broadcast_arrays(*values)]
    except ValueError:
        shapes = [value.shape for value in values]
        raise InputError(", ".join(given), f"shapes {shapes}", "give shapes that go together") from None
