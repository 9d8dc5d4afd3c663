"""The record of a training run, and the steps at which snapshots are taken."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, PyTree

from icl_theory.analysis.trajectory import Trajectory
from icl_theory.errors import InputError, check_number
from icl_theory.tasks.features import Features


class Run(NamedTuple):
    """Record of a training run. A batch of runs puts its axis first in every field but `step` and `time`.

    Attributes:
        step: (S,) steps at which snapshots were taken.
        time: (S,) learning rate × step; (runs, S) where the learning rate differs between runs; NaN for an
            optimizer without a `learning_rate`.
        loss: (S,) at the unperturbed weights.
        tracked: what `track` returned, leaves (S, ...).
        params: parameters after the last step (the last good ones for a run that diverged).
        diverged_at: first snapshot at or before which the loss was not finite or too large; −1 where none.
    """

    step: np.ndarray
    time: np.ndarray
    loss: np.ndarray
    tracked: PyTree
    params: PyTree
    diverged_at: int | Int[Any, " runs"]

    def trajectory(self, features: Features) -> Trajectory:
        """Loss and strengths in a basis of features, where the effective matrix was tracked.

        Raises:
            InputError: runs with different learning rates have no common time axis.
        """
        if self.time.ndim > 1:
            raise InputError("time", f"shape {self.time.shape}", "runs differ in learning rate: take them one by one")
        if np.ndim(self.tracked) < 3:
            raise InputError("tracked", type(self.tracked).__name__, "train with track=EffectiveMatrix(loss.graphdef)")
        return Trajectory(self.time, self.loss, features.strength(self.tracked))


def require_sound(run: Run) -> Run:
    """The run itself, where none of its runs diverged.

    Raises:
        InputError: some did.
    """
    count = int(np.sum(np.asarray(run.diverged_at) >= 0))
    if count:
        raise InputError("diverged_at", f"{count} runs", "lower the learning rate; a table of them would be untrue")
    return run


def snapshot_schedule(num_steps: int, num_snapshots: int) -> np.ndarray:
    """Ascending steps from 0 to `num_steps`, evenly spaced, without repetition."""
    check_number("num_steps", num_steps, minimum=1, integer=True)
    check_number("num_snapshots", num_snapshots, minimum=2, integer=True)
    return np.unique(np.round(np.linspace(0, num_steps, num_snapshots)).astype(int))


def checked_schedule(num_steps: int, num_snapshots: int, snapshots: np.ndarray | None) -> np.ndarray:
    """The steps of the snapshots: `snapshots` with the last step added, or `num_snapshots` evenly spaced ones."""
    check_number("num_steps", num_steps, minimum=1, integer=True)
    if snapshots is None:
        return snapshot_schedule(num_steps, num_snapshots)
    steps = np.asarray(snapshots)
    if not np.issubdtype(steps.dtype, np.integer):
        raise InputError("snapshots", steps, "give whole numbers of steps")
    if steps.ndim != 1 or steps.size == 0 or np.any(np.diff(steps) <= 0) or steps[0] < 0 or steps[-1] > num_steps:
        raise InputError("snapshots", steps, f"give ascending steps between 0 and num_steps = {num_steps}")
    return np.unique(np.append(steps, num_steps))
