"""Late examples by the ratios of consecutive losses: the selection of a published recipe.

The recipe takes `L_p(t)/L_p(t−1)` at consecutive checkpoints, parts the examples into two clusters of least squared
distance, and calls the cluster with the higher mean ratio late: its losses fell least. It knows no learning times and
no floor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from icl_theory.errors import InputError, as_floats, check_shape
from icl_theory.upsampling.lateness import AT_ONCE, CONVERGED


def loss_ratios(losses: Float[Any, "T P"], *, gaps: Bool[Any, "T P"] | None = None) -> Float[np.ndarray, "P T-1"]:
    """Return `L_p(t)/L_p(t−1)` for each example and each checkpoint after the first.

    A ratio that is NaN or infinite counts as 1, the loss as unchanged: after a loss of 0, and on both sides of a gap.

    Args:
        losses: The losses, not negative.
        gaps: True where a loss is missing (`LossRecord.gaps`). None for nowhere.

    Raises:
        InputError: There are fewer than two checkpoints, or shapes differ.
    """
    losses = as_floats("losses", losses)
    if losses.ndim != 2 or len(losses) < 2:
        raise InputError("losses", f"shape {losses.shape}", "give shape (T, P), T at least 2: a ratio needs two losses")
    known = np.ones(losses.shape, bool)
    if gaps is not None:
        check_shape("gaps", gaps, losses.shape)
        known = ~np.asarray(gaps, bool)
    with np.errstate(all="ignore"):
        ratios = losses[1:] / losses[:-1]
    return np.where(np.isfinite(ratios) & known[1:] & known[:-1], ratios, 1.0).T


def late_by_loss_ratios(losses: Float[Any, "T P"], *, gaps: Bool[Any, "T P"] | None = None) -> Bool[np.ndarray, " P"]:
    """Return True for the examples in the cluster with the higher mean ratio of consecutive losses.

    If the ratios of all examples are equal, to 1e-5, no example is late.

    Raises:
        InputError: `loss_ratios` refuses its input.
    """
    return upper_cluster(loss_ratios(losses, gaps=gaps))


def upper_cluster(rows: Float[np.ndarray, "P K"]) -> Bool[np.ndarray, " P"]:
    """Part points by two-means and return True for those in the cluster whose centre has the larger mean coordinate.

    The result is deterministic and does not depend on the order of the points; equal points are never separated. Lloyd
    iterations start from the best cut along the mean coordinate and from the best cut along the first principal axis,
    and the partition with the smaller squared distance is kept. In one dimension, the cut is the exact optimum.
    """
    import scipy.cluster.vq

    if np.all(np.ptp(rows, axis=0) <= AT_ONCE):
        return np.zeros(len(rows), bool)
    best, least = np.zeros(len(rows), bool), np.inf
    for axis in _axes(rows):
        upper = _best_cut((rows * axis).sum(axis=1))  # not a product of matrices, which rounds equal rows differently
        if not upper.any():
            continue
        begin = np.stack([rows[~upper].mean(axis=0), rows[upper].mean(axis=0)])
        centres, _ = scipy.cluster.vq.kmeans(rows, begin, thresh=CONVERGED)
        label, distance = scipy.cluster.vq.vq(rows, centres)
        scatter = float(np.sum(np.square(distance)))
        if scatter < least * (1.0 - AT_ONCE):
            best, least = label == int(np.argmax(centres.mean(axis=1))), scatter
    return best


def _axes(rows: np.ndarray) -> list[np.ndarray]:
    """Return directions along which two clusters may lie apart."""
    count = rows.shape[1]
    axes = [np.full(count, 1.0 / count)]
    if count > 1:
        axis = np.linalg.eigh(np.cov(rows.T))[1][:, -1]
        axes.append(axis * np.sign(axis[np.argmax(np.abs(axis))]))
    return axes


def _best_cut(values: np.ndarray) -> np.ndarray:
    """Return True above the cut that leaves the least squared distance to the means of both sides."""
    order = np.sort(values)
    below = np.arange(1, len(order))
    sums = np.cumsum(order - order.mean())[:-1]
    gain = np.where(np.diff(order) > 0, np.square(sums) / (below * (len(order) - below)), -1.0)
    if not len(gain) or gain.max() < 0:
        return np.zeros(len(values), bool)
    return values > order[int(np.argmax(gain))]
