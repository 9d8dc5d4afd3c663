"""What is learned when: learning times, order, plateaus and the measures of simplicity bias (theory notes, §7)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.stats

from icl_theory.errors import InputError, check_number
from icl_theory.features import Features
from icl_theory.lateness import learning_times
from icl_theory.trajectory import Trajectory


class SimplicityBias(NamedTuple):
    """All of §7 for one run or, with a leading axis, many. Judge by all: ratios alone fall under mere delay.

    Attributes:
        times: (..., D) learning time t_d of each feature; infinite where never learned.
        order: (..., D) features in the order in which they are learned, 0 = simplest; ties and never keep theirs.
        ratios: (..., D) `t_d / t_1`, with t_1 the simplest feature's; 1 for itself. NaN where t_1 is infinite or 0.
        progress: (..., D) `w_d(t_first) / w_d*` at the moment the first feature of all is learned.
        rank_agreement: (...) Kendall's τ between learning order and order of drives; 1 = exactly simple first, NaN
            where nothing is learned.
    """

    times: np.ndarray
    order: np.ndarray
    ratios: np.ndarray
    progress: np.ndarray
    rank_agreement: np.ndarray


class Plateau(NamedTuple):
    """A stretch of a loss curve that is flat against log-time."""

    start: float
    stop: float
    level: float


def simplicity_bias(trajectory: Trajectory, features: Features, *, threshold: float = 0.5) -> SimplicityBias:
    """Measure when each feature is learned and how far the slow ones are when the first one is.

    Args:
        trajectory: strengths (..., T, D), simplest feature first; one common time axis (T,).
        features: the features they belong to.
        threshold: fraction of `w_d*` that counts as learned.
    """
    optimum = np.where(features.optimum > 0, features.optimum, np.nan)
    return bias_of_fractions(trajectory.time, trajectory.strength / optimum, features.drive, threshold=threshold)


def bias_of_fractions(
    time: np.ndarray, fraction: np.ndarray, drive: np.ndarray, *, threshold: float = 0.5
) -> SimplicityBias:
    """`simplicity_bias` from `w_d / w_d*`, for runs that may differ in their features.

    Args:
        time: (T,), ascending.
        fraction: (..., T, D); NaN for a feature that has no optimum.
        drive: a_d, (..., D), by which the order of learning is judged.
        threshold: fraction that counts as learned.
    """
    times = learning_times(time, fraction, threshold=threshold)
    start = times[..., :1]
    with np.errstate(invalid="ignore"):
        ratios = np.where(np.isfinite(start) & (start > 0), times / np.where(start > 0, start, 1.0), np.nan)
    return SimplicityBias(
        times=times,
        order=np.argsort(times, axis=-1, kind="stable"),
        ratios=ratios,
        progress=_fraction_at(np.asarray(time, float), fraction, np.asarray(times.min(axis=-1))),
        rank_agreement=_rank_agreement(times, np.asarray(drive)),
    )


def _fraction_at(time: np.ndarray, fraction: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Linear interpolation at one moment of each run, (..., D); NaN where it is infinite."""
    happened = np.isfinite(moment)
    at = np.where(happened, moment, time[0])
    after = np.clip(np.searchsorted(time, at, side="right"), min(1, len(time) - 1), len(time) - 1)
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(fraction, i[..., None, None], axis=-2)[..., 0, :] for i in (before, after))
    width = time[after] - time[before]
    share = np.divide(at - time[before], width, out=np.zeros_like(at), where=width > 0)[..., None]
    return np.where(happened[..., None], low + share * (high - low), np.nan)


def _rank_agreement(times: np.ndarray, drive: np.ndarray) -> np.ndarray:
    """Kendall's τ-b of learning times and −a_d; never learned = last, tied."""
    if times.shape[-1] == 1:
        return np.ones(times.shape[:-1])
    finite = np.where(np.isfinite(times), times, np.finfo(float).max)
    later, weaker = (np.sign(v[..., :, None] - v[..., None, :]) for v in (finite, -np.asarray(drive, float)))
    pairs = np.asarray(np.sqrt(np.sum(later**2, axis=(-2, -1)) * np.sum(weaker**2, axis=(-2, -1))))
    agreement = np.asarray(np.sum(later * weaker, axis=(-2, -1)))
    return np.divide(agreement, pairs, out=np.full(np.shape(agreement), np.nan), where=pairs > 0)


def find_plateaus(time: np.ndarray, loss: np.ndarray, *, flatness: float = 0.1, length: float = 0.1) -> list[Plateau]:
    """Stretches where the loss falls much more slowly, per factor e of time, than at its steepest.

    A stretch counts when `−dL/d ln t` stays below `flatness` times its largest value for at least `length` in
    ln t. Its level is the loss at its flattest point. The last stretch may be the end of training.

    Args:
        time: (T,); times of zero are left out.
        loss: (T,).
        flatness: between 0 and 1.
        length: shortest stretch, in natural log of time.
    """
    check_number("flatness", flatness, minimum=0.0, maximum=1.0, exclusive=True)
    keep = np.asarray(time) > 0
    log_time, loss = np.log(np.asarray(time)[keep]), np.asarray(loss)[keep]
    if len(loss) < 3:
        raise InputError("time", f"{len(loss)} positive times", "give at least three")
    grid = np.linspace(log_time[0], log_time[-1], 2000)
    curve = np.interp(grid, log_time, loss)
    slope = -np.gradient(curve, grid)
    if slope.max() <= 1e-12 * np.abs(curve).max():
        return [Plateau(float(np.exp(grid[0])), float(np.exp(grid[-1])), float(curve.mean()))]
    flat = slope < flatness * slope.max()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]]).astype(int)))
    plateaus = []
    for start, stop in edges.reshape(-1, 2):
        if grid[stop - 1] - grid[start] >= length:
            flattest = start + int(np.argmin(np.abs(slope[start:stop])))
            plateaus.append(Plateau(float(np.exp(grid[start])), float(np.exp(grid[stop - 1])), float(curve[flattest])))
    return plateaus


def level_between(time: np.ndarray, loss: np.ndarray, start: float, stop: float) -> float:
    """The loss where it is flattest against log-time between two moments (the plateau between two drops)."""
    check_number("start", start, minimum=0.0, exclusive=True)
    grid = np.linspace(np.log(start), np.log(stop), 400)
    keep = np.asarray(time) > 0
    curve = np.interp(grid, np.log(np.asarray(time)[keep]), np.asarray(loss)[keep])
    return float(curve[np.argmin(np.abs(np.gradient(curve, grid)))])


def median_interval(values: np.ndarray, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Median and its distribution-free interval from order statistics; infinite values are allowed.

    The k-th smallest and k-th largest of n values enclose the median with probability
    `1 − 2 P(Binomial(n, ½) < k)`; the largest k that keeps this at or above the confidence is taken. Too few values
    for that have an unbounded interval; none at all (or only NaN) have NaN. Single NaNs count as infinite (never).
    """
    check_number("confidence", confidence, minimum=0.0, maximum=1.0, exclusive=True)
    ordered = np.sort(np.asarray(values, dtype=float))  # NaN sorts last, like never
    if np.isnan(ordered).all():
        return np.nan, np.nan, np.nan
    ordered = np.where(np.isnan(ordered), np.inf, ordered)
    k = max(int(scipy.stats.binom.ppf((1.0 - confidence) / 2.0, len(ordered), 0.5)), 1)
    middle = ordered[[(len(ordered) - 1) // 2, len(ordered) // 2]]
    median = middle[0] if middle[0] == middle[1] else middle.mean()
    if 1.0 - 2.0 * scipy.stats.binom.cdf(k - 1, len(ordered), 0.5) < confidence:
        return float(median), -np.inf, np.inf
    return float(median), float(ordered[k - 1]), float(ordered[-k])
