"""Held-out losses of trained runs, in closed form from their W, and their comparison with gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from icl_theory.moments.empirical import Moments

TINY = 1e-12
CHANGES = {  # name -> where the held-out losses of an arm and of gradient descent are compared
    "mean_change": "mean over training, at equal steps",
    "equal_evaluations_change": "mean over training, at equal gradient evaluations",
    "end_change": "at the end, after equal steps",
    "pilot_paid_change": "at the end, gradient descent having trained twice as long",
    "matched_change": "when the training loss first falls to a level",
}


class Losses(NamedTuple):
    """Losses of all runs of one arm, on their own data, (run, T), and on each test distribution, (run, T, test)."""

    training: np.ndarray
    held_out: np.ndarray


def quadratic(tensors: np.ndarray, moments: Moments) -> np.ndarray | np.floating:
    """Return the losses of coefficients (…, F) on data with these moments."""
    mean = moments.mean()
    gram, cross = np.asarray(mean.gram, float), np.asarray(mean.cross, float)
    return np.sum(tensors * (tensors @ gram - 2.0 * cross), axis=-1) + float(mean.energy)


def training_losses(matrices: np.ndarray, data: Sequence[Moments]) -> np.ndarray:
    """Return the losses of W (run, T, D, D) on each run's own data, (run, T)."""
    rows = matrices.reshape(*matrices.shape[:2], -1)
    return np.stack([quadratic(each, moments) for each, moments in zip(rows, data, strict=True)])


def held_out_losses(matrices: np.ndarray, tests: Sequence[Sequence[Moments]]) -> np.ndarray:
    """Return the losses of W (run, T, D, D), with runs ordered by case, on the tests of their case, (run, T, test)."""
    rows = matrices.reshape(len(tests), -1, matrices.shape[-2] * matrices.shape[-1])
    losses = [
        np.stack([quadratic(own, moments) for moments in each], axis=-1) for own, each in zip(rows, tests, strict=True)
    ]
    return np.stack(losses).reshape(*matrices.shape[:2], -1)


def lowest(data: Sequence[Moments]) -> np.ndarray:
    """Return the lowest loss that any W reaches on the data of each run, (run,)."""
    best = []
    for moments in data:
        tensor = np.linalg.lstsq(np.asarray(moments.gram, float), np.asarray(moments.cross, float), rcond=None)[0]
        best.append(float(quadratic(tensor, moments)))
    return np.asarray(best)


def at_level(training: np.ndarray, held_out: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Return interpolated held-out losses when the training loss first falls to `level`; infinite for never."""
    reached = training <= level[:, None]
    after = np.argmax(reached, axis=1)
    before = np.maximum(after - 1, 0)
    runs = np.arange(len(training))
    high, low = training[runs, before], training[runs, after]
    share = np.clip((high - level) / np.maximum(high - low, TINY), 0.0, 1.0)[:, None]
    values = (1.0 - share) * held_out[runs, before] + share * held_out[runs, after]
    return np.where(np.any(reached, axis=1, keepdims=True), values, np.inf)


def changes(
    own: Losses, gd: Losses, paid: np.ndarray, levels: Sequence[np.ndarray], *, gradients: int
) -> dict[str, np.ndarray]:
    """Return the log-ratio of held-out losses of an arm and gradient descent, (run, test), for each of `CHANGES`.

    Args:
        own: losses of the arm.
        gd: losses of gradient descent at the same snapshots.
        paid: held-out losses of gradient descent after twice the time, (run, test).
        levels: training losses (run,) at which to compare; they form the last axis of `matched_change`.
        gradients: number of gradients that the arm evaluates per step; gradient descent evaluates one.
    """
    fewer = (
        own.held_out.shape[1] - 1
    ) // gradients + 1  # number of snapshots within the gradient budget of gradient descent
    as_many = gd.held_out[:, : gradients * (fewer - 1) + 1 : gradients]
    with np.errstate(invalid="ignore"):  # NaN if neither reaches the level
        matched = [np.log(at_level(*own, level)) - np.log(at_level(*gd, level)) for level in levels]
    return {
        "mean_change": np.log(own.held_out.mean(axis=1) / gd.held_out.mean(axis=1)),
        "equal_evaluations_change": np.log(own.held_out[:, :fewer].mean(axis=1) / as_many.mean(axis=1)),
        "end_change": np.log(own.held_out[:, -1] / gd.held_out[:, -1]),
        "pilot_paid_change": np.log(own.held_out[:, -1] / paid),
        "matched_change": np.stack(matched, axis=-1),
    }
