"""Late and early examples, told apart by their losses over training (theory notes, §8).

Plain numpy on plain arrays: the losses may come from any model and any trainer. `losses` is (T, P), one row
per checkpoint, the first before training. Groups are boolean, (P,), True for late. No random numbers are drawn.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from icl_theory.analysis.learning_times import learning_times
from icl_theory.errors import InputError, as_floats, check_number

CHUNK = 2**16  # examples processed together
SAME_TIME = 1e-9  # relative difference of learning times up to which they count as equal
SAME_SHARE = 1e-12  # difference of shares that is due to rounding
AT_ONCE = 1e-5  # spread of learning times, or of mean relative losses, below which there are no two groups
CONVERGED = 1e-9  # change of the mean distance at which two-means stops


class Clusters(NamedTuple):
    """Two groups of loss trajectories.

    Attributes:
        late: True in the cluster whose mean relative loss is larger, (P,).
        centres: Mean trajectories of the early and the late cluster, (2, T).
        distance: Distance of each trajectory to the centre of its cluster, (P,), as root mean square over checkpoints.
    """

    late: np.ndarray
    centres: np.ndarray
    distance: np.ndarray


def relative_losses(losses: Float[Any, "*batch T P"], *, floor: np.ndarray | float = 0.0) -> np.ndarray:
    """Return `(L_p(t) − f_p)/(L_p(0) − f_p)`, the share of each example's reducible loss that is left.

    Args:
        losses: The losses, not negative.
        floor: f_p, (P,) or one number: the loss that remains whatever is learned (noise, ambiguity), for example the
            last losses of a converged run. With floor 0 an example that no model can fit counts as late.

    Returns:
        An array shaped like `losses`: 1 at the first checkpoint, negative below the floor. An example with
        L_p(0) ≤ f_p has no reducible loss and gets 0 throughout.

    Raises:
        InputError: There are no examples or checkpoints, a loss is negative or not finite (its place is named), or the
            floor has another shape or is not finite.
    """
    losses = _checked_losses(losses)
    floor = _checked_floor(floor, losses.shape)
    floor = floor[..., None, :] if floor.ndim else floor
    left, room = losses - floor, losses[..., :1, :] - floor
    return np.divide(left, room, out=np.zeros(left.shape), where=room > 0)


def example_learning_times(
    time: np.ndarray, losses: Float[Any, "*batch T P"], *, remaining: float = 0.5, floor: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return when each example's relative loss first falls to `remaining`, linear between checkpoints.

    Args:
        time: Times of the checkpoints, (T,), ascending.
        losses: The losses, (..., T, P), such as `CompressedPrompts.losses` of tracked tensors.
        remaining: The relative loss at which an example counts as learned, at least 0 and below 1.
        floor: As in `relative_losses`.

    Returns:
        The learning times, (..., P): infinite for an example that is never learned, 0 for one with nothing to learn.

    Raises:
        InputError: `relative_losses` refuses its input, or `remaining` is out of range.

    Reference: theory notes, §8.
    """
    check_number("remaining", remaining, minimum=0.0, maximum=1.0)
    if remaining == 1.0:
        raise InputError("remaining", remaining, "give less than 1, or every example counts as learned at once")
    relative = relative_losses(losses, floor=floor)
    times = learning_times(time, 1.0 - relative, threshold=1.0 - remaining)
    return np.where(relative[..., 0, :] > 0, times, 0.0)


def late_by_threshold(
    losses: Float[Any, "T P"], *, threshold: float = 0.5, checkpoint: int = -1, floor: np.ndarray | float = 0.0
) -> Bool[np.ndarray, " P"]:
    """Return True for examples with a relative loss above `threshold` at one checkpoint (default the last).

    Raises:
        InputError: `relative_losses` refuses its input, the checkpoint is missing, or the threshold is not in 0 to 1.
    """
    check_number("threshold", threshold, minimum=0.0, maximum=1.0)
    relative = relative_losses(_matrix(losses), floor=floor)
    check_number("checkpoint", checkpoint, integer=True)
    if not -len(relative) <= checkpoint < len(relative):
        raise InputError("checkpoint", checkpoint, f"there are {len(relative)}")
    return relative[checkpoint] > threshold


def late_by_quantile(times: Float[Any, " P"], *, quantile: float = 0.5) -> Bool[np.ndarray, " P"]:
    """Return True for examples learned later than a quantile of those that learn; equal times are never separated.

    Examples with time 0 had nothing to learn: they are not late and do not count. The cut lies between two different
    times, where the share of late examples is nearest to `1 − quantile` (of two equally near, the smaller late group).
    Infinite times (never learned) are the latest. If all times are equal, to 1e-5, no example is late.

    Raises:
        InputError: There are no times, some are NaN or negative, or the quantile is outside 0 to 1.
    """
    check_number("quantile", quantile, minimum=0.0, maximum=1.0)
    times = checked_times(times)
    values, counts = np.unique(times[times > 0], return_counts=True)
    if len(values) < 2 or values[-1] - values[0] <= AT_ONCE * values[0]:
        return np.zeros(len(times), bool)
    with np.errstate(invalid="ignore"):
        apart = np.diff(values) > SAME_TIME * values[:-1]  # a cut above a value is allowed if the next value differs
    share = 1.0 - np.cumsum(counts[:-1]) / counts.sum()  # late, at each cut
    miss = np.where(apart, np.abs(share - (1.0 - quantile)), np.inf)
    cut = np.flatnonzero(miss <= miss.min() + SAME_SHARE)[-1]
    return times > values[cut]


def late_by_clustering(losses: Float[Any, "T P"], *, floor: np.ndarray | float = 0.0) -> Bool[np.ndarray, " P"]:
    """Return True for examples in the slower of two clusters of relative-loss trajectories (`trajectory_clusters`)."""
    return trajectory_clusters(losses, floor=floor).late


def trajectory_clusters(losses: Float[Any, "T P"], *, floor: np.ndarray | float = 0.0) -> Clusters:
    """Cluster the relative-loss trajectories by two-means, from their upper and lower halves by mean relative loss.

    The result is deterministic. Relative losses are clipped to 0 … 2, so that a few examples whose loss explodes, or
    that have hardly any reducible loss, do not form a cluster of their own. If the means of all trajectories are equal,
    to 1e-5, no example is late.

    Raises:
        InputError: `relative_losses` refuses its input.
    """
    import scipy.cluster.vq

    losses = _checked_losses(_matrix(losses))
    floor = _checked_floor(floor, losses.shape)
    rows = np.empty(losses.T.shape)
    for part in _parts(len(rows)):
        rows[part] = np.clip(relative_losses(losses[:, part], floor=floor[part] if floor.ndim else floor), 0.0, 2.0).T
    level = rows.mean(axis=1)
    if np.ptp(level) <= AT_ONCE:
        return Clusters(np.zeros(len(rows), bool), np.stack([rows.mean(axis=0)] * 2), np.zeros(len(rows)))
    upper = level > np.median(level)
    upper = upper if upper.any() else level == level.max()  # more than half share the highest level
    begin = np.stack([rows[~upper].mean(axis=0), rows[upper].mean(axis=0)])
    centres, _ = scipy.cluster.vq.kmeans(rows, begin, thresh=CONVERGED)
    label, _ = scipy.cluster.vq.vq(rows, centres)
    slow = int(np.argmax(centres.mean(axis=1)))
    distance = np.concatenate(
        [np.sqrt(np.mean(np.square(rows[part] - centres[label[part]]), axis=1)) for part in _parts(len(rows))]
    )
    return Clusters(label == slow, centres if slow == 1 else centres[::-1], distance)


def _parts(count: int) -> list[slice]:
    """Return slices of the examples that keep temporary arrays small."""
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]


def _checked_losses(losses: Any) -> np.ndarray:
    losses = as_floats("losses", losses)
    if losses.ndim < 2 or not losses.size:
        raise InputError("losses", f"shape {losses.shape}", "give shape (..., T, P), both at least one")
    bad = ~((losses >= 0) & np.isfinite(losses))
    if bad.any():
        place = tuple(int(axis) for axis in np.argwhere(bad)[0])
        raise InputError(
            f"losses[{', '.join(map(str, place))}]", float(losses[place]), "must be a finite number, not negative"
        )
    return losses


def _checked_floor(floor: Any, shape: tuple[int, ...]) -> np.ndarray:
    floor = as_floats("floor", floor)
    if floor.ndim and floor.shape not in (shape[-1:], shape[:-2] + shape[-1:]):
        raise InputError("floor", f"shape {floor.shape}", f"give one number, or one for each of {shape[-1]}")
    if not np.all(np.isfinite(floor)):
        raise InputError("floor", "NaN or infinity", "every floor must be a finite number")
    return floor


def _matrix(losses: Any) -> np.ndarray:
    losses = as_floats("losses", losses)
    if losses.ndim != 2:
        raise InputError("losses", f"shape {losses.shape}", "give shape (T, P)")
    return losses


def checked_times(times: Any) -> np.ndarray:
    """Return learning times as floats, (P,); `InputError` names the first that is NaN or negative."""
    times = as_floats("times", times)
    if times.ndim != 1 or not times.size:
        raise InputError("times", f"shape {times.shape}", "give shape (P,), at least one")
    bad = ~(times >= 0)
    if bad.any():
        place = int(np.argmax(bad))
        raise InputError(f"times[{place}]", float(times[place]), "give a number from 0; infinity means never")
    return times


def floor_of(floor: Any, part: slice | np.ndarray) -> Any:
    return floor[part] if np.ndim(floor) else floor
