"""Measures of simplicity bias: order of learning, learning-time ratios, progress (theory notes, §7)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from icl_theory.analysis.learning_times import learning_times
from icl_theory.analysis.trajectory import Trajectory
from icl_theory.tasks.features import Features


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
