"""Predictions of a batch of runs: the reduced system trained as they are, or the cascade of random starts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from icl_theory.simulation.config import RunConfig
from icl_theory.simulation.prediction import ASCENTS, theory_of
from icl_theory.sweeps.measures import measure
from icl_theory.tasks.features import Features
from icl_theory.theory import reduced_loss as reduced
from icl_theory.theory.aligned_dynamics import Ascent
from icl_theory.theory.merged_dynamics import effective_head
from icl_theory.theory.random_start_cascade import RandomStartCascade
from icl_theory.training.run import Run, snapshot_schedule
from icl_theory.training.train import train_many


def predict_runs(
    kind: str,
    configs: Sequence[RunConfig],
    params: PyTree,
    features: Features,
    *,
    curves: bool,
    settings: dict[str, Any],
) -> dict[str, np.ndarray]:
    """Return the measures of the theory of each run, runs first; NaN for a run without one.

    Args:
        kind: The theory of the batch, as `theory_of` names it.
        configs: The settings of the runs, of one structure and schedule.
        params: The initial parameters of the full models.
        features: The features of each run.
        curves: Whether to keep losses and strengths of all snapshots.
        settings: The arguments of `train_many` besides loss and parameters.
    """
    if kind == "cascade":
        return _cascade(configs, params, features, curves, settings)
    dtype = jax.tree.leaves(params)[0].dtype
    drive, curvature, energy = (jnp.asarray(v, dtype) for v in (features.drive, features.curvature, features.energy))
    if kind == "aligned":
        strength: Any = reduced.AlignedStrength()
        starts = [config.init_scale for config in configs]
        begin = jax.vmap(partial(reduced.aligned_start, dim=drive.shape[1]))(jnp.asarray(starts, dtype))
    else:
        strength = reduced.MergedStrength()
        values, matrices = (np.asarray(params[name]) for name in ("value", "merged"))
        each = [_rows(features, run) for run in range(len(configs))]
        heads = jnp.asarray([effective_head(*start) for start in zip(values, matrices, each, strict=True)], dtype)
        begin = {"value": heads[:, 0], "merged": heads[:, 1:]}
    loss = reduced.ReducedLoss(strength, drive, curvature, energy)
    run = train_many(loss, begin, loss_axes=0, track=strength, **settings)
    return measure(run, np.asarray(run.tracked, float), features, configs, curves=curves)


def _cascade(
    configs: Sequence[RunConfig], params: PyTree, features: Features, curves: bool, settings: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Return the measures of gradient flow from random starts at the snapshots of the runs."""
    step = snapshot_schedule(settings["num_steps"], settings["num_snapshots"])
    rows = [row for row, config in enumerate(configs) if theory_of(config) == "cascade"]  # the others lack a drive
    own = _rows(features, rows)
    chosen = {name: np.asarray(leaf)[rows] for name, leaf in params.items()}
    ascents = [ASCENTS[configs[row].optimizer](configs[row].rho) for row in rows]
    ascent = Ascent(np.asarray([each.rho for each in ascents], float), ascents[0].normalised if ascents else True)
    rates = np.asarray([configs[row].learning_rate for row in rows])
    strength = np.full((len(configs), len(step), configs[0].dim), np.nan)
    if rows:
        strength[rows] = RandomStartCascade.from_params(own, chosen, ascent).strengths(rates[:, None] * step)
    levels = features._replace(
        drive=features.drive[:, None],
        curvature=features.curvature[:, None],
        energy=np.asarray(features.energy)[:, None],
    )
    loss = levels.loss(strength)
    finite = np.isfinite(loss)
    diverged_at = np.where(finite.all(axis=1), -1, step[np.argmin(finite, axis=1)])
    found = measure(Run(step, step, loss, strength, None, diverged_at), strength, features, configs, curves=curves)
    for name in ("status", "diverged_at"):
        found[name][~finite.all(axis=1)] = np.nan  # no theory, or not known: its integration ran out of steps
    report = settings.get("progress")
    if report is not None:
        report(settings["num_steps"], settings["num_steps"])
    return found


def _rows(features: Features, rows: Any) -> Features:
    """Return the features of some of the runs."""
    return Features(*(np.asarray(part)[rows] for part in features))
