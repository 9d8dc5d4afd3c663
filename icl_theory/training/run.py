"""The record of a training run, and the steps at which snapshots are taken."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, PyTree

from icl_theory.analysis.trajectory import Trajectory
from icl_theory.errors import InputError, check_number
from icl_theory.tasks.features import Features


class Run(NamedTuple):
    """Record of a training run. For a batch of runs, their axis comes first in every field but `step` and `time`.

    Attributes:
        step: Steps at which snapshots were taken, (S,).
        time: Learning rate × step, (S,), or (runs, S) if the learning rate differs between runs; NaN for an optimizer
            without a `learning_rate`.
        loss: Loss at the unperturbed weights, (S,).
        tracked: Values that `track` returned, leaves (S, ...).
        params: Parameters after the last step (the last good ones for a run that diverged).
        diverged_at: Step of the first snapshot at or before which the loss was not finite or too large; −1 if none.
    """

    step: np.ndarray
    time: np.ndarray
    loss: np.ndarray
    tracked: PyTree
    params: PyTree
    diverged_at: int | Int[Any, " runs"]

    def trajectory(self, features: Features) -> Trajectory:
        """Return the loss and feature strengths over time, for a run that tracked the effective matrix.

        Raises:
            InputError: The learning rate differs between runs, so there is no common time axis, or no matrix was
                tracked.
        """
        if self.time.ndim > 1:
            raise InputError("time", f"shape {self.time.shape}", "runs differ in learning rate: take them one by one")
        if np.ndim(self.tracked) < 3:
            raise InputError("tracked", type(self.tracked).__name__, "train with track=EffectiveMatrix(loss.graphdef)")
        return Trajectory(self.time, self.loss, features.strength(self.tracked))


def require_sound(run: Run) -> Run:
    """Return the run unchanged after checking that it, or each run of a batch, did not diverge.

    Raises:
        InputError: At least one run diverged.
    """
    count = int(np.sum(np.asarray(run.diverged_at) >= 0))
    if count:
        raise InputError("diverged_at", f"{count} runs", "lower the learning rate; a table of them would be untrue")
    return run


def snapshot_schedule(num_steps: int, num_snapshots: int) -> np.ndarray:
    """Ascending whole steps from 0 to `num_steps`, evenly spaced up to rounding, without repetition."""
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
