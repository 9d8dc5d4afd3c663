"""Plateaus of a loss curve: stretches that are flat against log-time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from icl_theory.errors import InputError, check_number


class Plateau(NamedTuple):
    """A stretch of a loss curve that is flat in log-time, from time `start` to `stop` at loss `level`."""

    start: float
    stop: float
    level: float


def find_plateaus(time: np.ndarray, loss: np.ndarray, *, flatness: float = 0.1, length: float = 0.1) -> list[Plateau]:
    """Find the stretches where the loss falls, in log-time, much more slowly than at its steepest.

    A stretch counts when `−dL/d ln t` stays below `flatness` times its largest value for at least `length` in
    ln t. Its level is the loss at its flattest point. The last stretch may be the end of training.

    Args:
        time: Times, (T,); zero is left out.
        loss: Loss at each time, (T,).
        flatness: Fraction of the largest slope below which the curve is flat, between 0 and 1.
        length: Shortest length of a stretch, in natural log of time.

    Raises:
        InputError: There are fewer than three positive times, or `flatness` is out of range.
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
    """Loss at its flattest point in log-time between two times (the plateau between two drops)."""
    check_number("start", start, minimum=0.0, exclusive=True)
    grid = np.linspace(np.log(start), np.log(stop), 400)
    keep = np.asarray(time) > 0
    curve = np.interp(grid, np.log(np.asarray(time)[keep]), np.asarray(loss)[keep])
    return float(curve[np.argmin(np.abs(np.gradient(curve, grid)))])
