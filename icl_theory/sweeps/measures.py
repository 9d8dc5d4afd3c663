"""The variables that a sweep stores for each run, with their dimensions, units and meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from icl_theory.analysis.simplicity_bias import bias_of_fractions
from icl_theory.simulation.config import RunConfig
from icl_theory.tasks.features import Features
from icl_theory.training.run import Run

DONE, DIVERGED = 1, 2
PREDICTED = "predicted_"
COMPARED = ("learning_time", "learning_time_ratio", "final_loss")  # stored with an error if there is a prediction


class Variable(NamedTuple):
    """A variable of the data set: its dimensions besides the swept ones, its units and its meaning."""

    dims: tuple[str, ...]
    units: str
    meaning: str


MEASURES = {
    "status": Variable((), "1", "1 done, 2 diverged (its measures are NaN); NaN for not run"),
    "diverged_at": Variable((), "step", "first snapshot at or before which the loss left the finite range; else NaN"),
    "learning_time": Variable(
        ("feature",), "learning rate * step", "first time at which w_d reaches the threshold times w_d*; inf for never"
    ),
    "learning_time_ratio": Variable(("feature",), "1", "t_d / t_1; NaN where feature 1 is never learned"),
    "progress": Variable(("feature",), "1", "w_d / w_d* at the moment when the first feature of all is learned"),
    "rank_agreement": Variable((), "1", "Kendall's tau of learning order and order of drives; 1 is simplest first"),
    "final_strength": Variable(("feature",), "w", "w_d after the last step"),
    "final_loss": Variable((), "mean square, no 1/2", "training loss after the last step"),
}
CURVES = {
    "loss": Variable(("snapshot",), "mean square, no 1/2", "training loss at each snapshot"),
    "strength": Variable(("snapshot", "feature"), "w", "w_d at each snapshot"),
}
POPULATION_LOSS = Variable(
    (), "mean square, no 1/2", "loss of the final weights on infinite data, nothing upsampled; NaN for softmax"
)


def variables_of(*, full: bool, reduced: bool, curves: bool) -> dict[str, Variable]:
    """Return everything that a sweep stores, by name."""
    measured = MEASURES | (CURVES if curves else {})
    found: dict[str, Variable] = {}
    if full:
        found |= measured | {"population_loss": POPULATION_LOSS}
    if reduced:
        found |= {
            PREDICTED + name: v._replace(meaning=f"{v.meaning}, as theory predicts") for name, v in measured.items()
        }
    if full and reduced:
        found |= {
            f"{name}_error": Variable(
                MEASURES[name].dims, "1", f"measured / predicted {name} - 1; 0 if both are never, inf if one"
            )
            for name in COMPARED
        }
    return found


def measure(
    run: Run, strength: np.ndarray, features: Features | None, configs: Sequence[RunConfig], *, curves: bool
) -> dict[str, np.ndarray]:
    """Return the measures of a batch of runs, runs first; NaN for those that diverged.

    Args:
        run: The trained batch, with the steps of its S snapshots.
        strength: The strengths, (runs, S, D), NaN without features.
        features: The features of each run, or None if a fixed task leaves none.
        configs: The config of each run, for its learning rate and threshold.
        curves: Whether to keep losses and strengths of all snapshots.
    """
    runs, _, dim = strength.shape
    nothing = np.full((runs, dim), np.nan)
    optimum, drive = (nothing, nothing) if features is None else (features.optimum, features.drive)
    fraction = strength / np.where(optimum > 0, optimum, np.nan)[:, None, :]
    thresholds = np.asarray([config.threshold for config in configs])
    found: dict[str, Any] = {
        "learning_time": nothing.copy(),
        "learning_time_ratio": nothing.copy(),
        "progress": nothing.copy(),
    }
    found["rank_agreement"] = np.full(runs, np.nan)
    for threshold in np.unique(thresholds):
        rows = np.flatnonzero(thresholds == threshold)
        bias = bias_of_fractions(run.step, fraction[rows], drive[rows], threshold=float(threshold))
        rates = np.asarray([configs[int(row)].learning_rate for row in rows])[:, None]
        found["learning_time"][rows] = np.where(np.isfinite(bias.times), rates * bias.times, np.inf)
        found["learning_time_ratio"][rows] = bias.ratios
        found["progress"][rows] = bias.progress
        found["rank_agreement"][rows] = bias.rank_agreement
    if features is None:
        found["learning_time"][:] = np.nan
    found["final_strength"], found["final_loss"] = strength[:, -1], np.asarray(run.loss[:, -1], float)
    if curves:
        found["loss"], found["strength"] = np.asarray(run.loss, float), strength
    diverged = np.asarray(run.diverged_at) >= 0
    for values in found.values():
        values[diverged] = np.nan
    found["status"] = np.where(diverged, float(DIVERGED), float(DONE))
    found["diverged_at"] = np.where(diverged, np.asarray(run.diverged_at, float), np.nan)
    return found
