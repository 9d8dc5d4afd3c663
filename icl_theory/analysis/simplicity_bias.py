"""Measures of simplicity bias: order of learning, learning-time ratios, progress (theory notes, §7)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from icl_theory.analysis.learning_times import learning_times
from icl_theory.analysis.trajectory import Trajectory
from icl_theory.tasks.features import Features


class SimplicityBias(NamedTuple):
    """The measures of §7 for one run or, with leading axes, many.

    Judge by all of them: a mere delay of all learning already lowers the ratios.

    Attributes:
        times: Learning time t_d of each feature, (..., D); infinite if it is never learned.
        order: Features in the order in which they are learned, (..., D), 0 = simplest. Features that tie or are never
            learned stay in order of simplicity.
        ratios: Ratio `t_d / t_1` to the learning time of the simplest feature, (..., D); NaN if t_1 is infinite or 0.
        progress: Fraction `w_d(t_first) / w_d*` at the time t_first when the first feature is learned, (..., D).
        rank_agreement: Kendall's τ between learning order and order of drives, (...); 1 = exactly simple first, NaN
            where nothing is learned.
    """

    times: np.ndarray
    order: np.ndarray
    ratios: np.ndarray
    progress: np.ndarray
    rank_agreement: np.ndarray


def simplicity_bias(trajectory: Trajectory, features: Features, *, threshold: float = 0.5) -> SimplicityBias:
    """Measure when each feature is learned and how far the slow ones are when the first one is.

    Args:
        trajectory: Strengths (..., T, D), simplest feature first, on one common time axis (T,).
        features: Features to which the strengths belong.
        threshold: Fraction of `w_d*` that counts as learned.
    """
    optimum = np.where(features.optimum > 0, features.optimum, np.nan)
    return bias_of_fractions(trajectory.time, trajectory.strength / optimum, features.drive, threshold=threshold)


def bias_of_fractions(
    time: np.ndarray, fraction: np.ndarray, drive: np.ndarray, *, threshold: float = 0.5
) -> SimplicityBias:
    """Measure simplicity bias from the fractions `w_d / w_d*`, for runs that may differ in their features.

    Args:
        time: Ascending times, (T,).
        fraction: Fractions `w_d / w_d*`, (..., T, D); NaN for a feature that has no optimum.
        drive: Drive a_d of each feature, (..., D), with which the order of learning is compared.
        threshold: Fraction that counts as learned.
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
    """Interpolate the fractions linearly at one time for each run, (..., D); NaN where that time is infinite."""
    happened = np.isfinite(moment)
    at = np.where(happened, moment, time[0])
    after = np.clip(np.searchsorted(time, at, side="right"), min(1, len(time) - 1), len(time) - 1)
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(fraction, i[..., None, None], axis=-2)[..., 0, :] for i in (before, after))
    width = time[after] - time[before]
    share = np.divide(at - time[before], width, out=np.zeros_like(at), where=width > 0)[..., None]
    return np.where(happened[..., None], low + share * (high - low), np.nan)


def _rank_agreement(times: np.ndarray, drive: np.ndarray) -> np.ndarray:
    """Kendall's τ-b of learning times and −a_d; features that are never learned tie for last."""
    if times.shape[-1] == 1:
        return np.ones(times.shape[:-1])
    finite = np.where(np.isfinite(times), times, np.finfo(float).max)
    later, weaker = (np.sign(v[..., :, None] - v[..., None, :]) for v in (finite, -np.asarray(drive, float)))
    pairs = np.asarray(np.sqrt(np.sum(later**2, axis=(-2, -1)) * np.sum(weaker**2, axis=(-2, -1))))
    agreement = np.asarray(np.sum(later * weaker, axis=(-2, -1)))
    return np.divide(agreement, pairs, out=np.full(np.shape(agreement), np.nan), where=pairs > 0)
