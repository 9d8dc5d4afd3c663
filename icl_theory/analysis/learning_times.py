"""Learning times: when a rising quantity first reaches a fraction of its final value (theory notes, §7)."""

from __future__ import annotations

import numpy as np

from icl_theory.errors import InputError, as_floats, check_number


def learning_times(time: np.ndarray, fraction: np.ndarray, *, threshold: float = 0.5) -> np.ndarray:
    """Find the first time at which a rising quantity, such as `w_d / w_d*`, reaches the threshold.

    Args:
        time: Ascending times of the snapshots, (T,).
        fraction: Values at the snapshots, (..., T, D), interpolated linearly; NaN counts as not reached.
        threshold: Level to reach, between 0 and 1 (default ½).

    Returns:
        The times, (..., D); infinite where the threshold is never reached.

    Raises:
        InputError: Times are not finite or not ascending, shapes do not fit, or the threshold is out of range.
    """
    check_number("threshold", threshold, minimum=0.0, maximum=1.0, exclusive=True)
    time, fraction = as_floats("time", time), as_floats("fraction", fraction)
    if time.ndim != 1 or not time.size or not np.all(np.isfinite(time)) or np.any(np.diff(time) < 0):
        raise InputError("time", time, "give ascending finite numbers, at least one")
    if fraction.ndim < 2 or fraction.shape[-2] != len(time):
        raise InputError("fraction", f"shape {fraction.shape}", f"give shape (..., {len(time)}, D)")
    fraction = np.where(np.isnan(fraction), -np.inf, fraction)
    reached = fraction >= threshold
    index = np.argmax(reached, axis=-2)
    before = np.maximum(index - 1, 0)
    high = np.take_along_axis(fraction, index[..., None, :], axis=-2)[..., 0, :]
    low = np.take_along_axis(fraction, before[..., None, :], axis=-2)[..., 0, :]
    between = (index > 0) & np.isfinite(low) & (high > low)  # else the snapshot itself
    width = np.subtract(high, low, out=np.ones_like(high), where=between)
    share = np.divide(threshold - low, width, out=np.ones_like(high), where=between)
    share = np.clip(share, 0.0, 1.0)
    times = time[before] + share * (time[index] - time[before])
    return np.where(reached.any(axis=-2), times, np.inf)
