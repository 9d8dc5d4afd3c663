"""Learning times against ρ and eigenvalue ratio, in the full model and in the reduced flow (theory notes, §6)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

from icl_theory.analysis.simplicity_bias import simplicity_bias
from icl_theory.analysis.trajectory import Trajectory
from icl_theory.models.attention import SeparateAttention
from icl_theory.models.parameters import aligned_parameters, split_model
from icl_theory.moments.population import PopulationMoments, population_moments
from icl_theory.tasks.features import find_features
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.theory.aligned_dynamics import AlignedFlow, Ascent
from icl_theory.theory.sam_dynamics import stable_learning_rate
from icl_theory.training.losses import MomentsLoss
from icl_theory.training.run import require_sound
from icl_theory.training.sam import sam
from icl_theory.training.tracked import EffectiveMatrix
from icl_theory.training.train import train_many
from icl_theory.verification.claim import Claim, Progress
from icl_theory.verification.labels import MEANING, dataset, variable
from icl_theory.verification.statements import Statements


@dataclasses.dataclass(frozen=True)
class Settings:
    """λ = (1, 1/ratio), aligned start u_0 in both features, normalised SAM with ρ = √3 u_0 δ.

    Power: nothing is drawn; the grid at a step five times as large shows the step's error.
    """

    ratios: tuple[float, ...] = tuple(np.round(np.linspace(1.0, 3.0, 25), 6))
    deltas: tuple[float, ...] = tuple(np.round(np.linspace(0.0, 1.6, 33), 6))
    num_context: int = 31
    start: float = 0.05
    learning_rate: float = 2e-3
    coarse_learning_rate: float = 1e-2
    duration: float = 250.0
    num_snapshots: int = 2501


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure t_1 and t_2 on the whole grid, for the full model at both learning rates and for the flow."""
    rhos = np.asarray(settings.deltas) * np.sqrt(3.0) * settings.start
    spectra = np.asarray([[1.0, 1.0 / ratio] for ratio in settings.ratios])
    shape = (len(spectra), len(rhos))
    grid = np.repeat(spectra, len(rhos), axis=0), np.tile(rhos, len(spectra))
    rates = (settings.learning_rate, settings.coarse_learning_rate)
    fine = _train(settings, *grid, rates[0], lambda done, total: progress(40 * done // total, 100))
    coarse = _train(settings, *grid, rates[1], lambda done, total: progress(40 + 10 * done // total, 100))
    simulated, predicted = np.empty((2, *shape, 2)), np.empty((*shape, 2))
    stable = np.full(shape, np.nan)
    start = np.full(2, settings.start)
    for i, eigenvalues in enumerate(spectra):
        features = find_features(TaskMixture.single(eigenvalues, num_context=settings.num_context))
        for times, run in zip(simulated, (fine, coarse), strict=True):
            rows = run.strength[i * len(rhos) : (i + 1) * len(rhos)]
            times[i] = simplicity_bias(Trajectory(run.time, np.zeros(()), rows), features).times
        for j, rho in enumerate(rhos):
            flow = AlignedFlow(features, start, Ascent(rho)).predict(fine.time)
            predicted[i, j] = simplicity_bias(flow, features).times
            reached = np.flatnonzero(flow.strength[:, 0] > 0.95 * features.optimum[0])
            slow = flow.strength[reached[0], 1] if reached.size else np.inf
            if slow < 0.5 * features.optimum[1]:
                stable[i, j] = stable_learning_rate(features, rho, float(np.cbrt(slow)))
        progress(50 + 50 * (i + 1) // len(spectra), 100)
    cell, times_meaning = "eigenvalue_ratio delta", MEANING["learning_time"]
    onset = "learning rate from which SAM should oscillate when feature 1 has 95 % of its optimum; NaN: no plateau then"
    variables = {
        "learning_time": variable(f"learning_rate {cell} feature", simulated, f"{times_meaning}; full model"),
        "predicted_learning_time": variable(f"{cell} feature", predicted, f"{times_meaning}; reduced flow"),
        "stable_learning_rate": variable(cell, stable, onset),
    }
    return dataset(
        variables, learning_rate=list(rates), eigenvalue_ratio=list(settings.ratios), delta=list(settings.deltas)
    )


def _train(settings: Settings, spectra: np.ndarray, rhos: np.ndarray, rate: float, progress: Progress) -> Trajectory:
    """Train the whole grid in one compiled program, with the spectrum and ρ of each run traced."""
    graphdef, _ = split_model(SeparateAttention(2, 2, rngs=nnx.Rngs(0)))

    def moments(eigenvalues: jax.Array) -> PopulationMoments:
        return population_moments(TaskMixture.single(eigenvalues, num_context=settings.num_context))

    start = aligned_parameters(jnp.full(2, settings.start))
    run = train_many(
        MomentsLoss(graphdef, jax.vmap(moments)(jnp.asarray(spectra))),
        jax.tree.map(lambda leaf: jnp.stack([leaf] * len(rhos)), start),
        loss_axes=0,
        optimizer=sam,
        hyperparameters={"learning_rate": rate, "rho": rhos},
        num_steps=round(settings.duration / rate),
        num_snapshots=settings.num_snapshots,
        track=EffectiveMatrix(graphdef),
        progress=progress,
    )
    run = require_sound(run)
    return Trajectory(run.time, run.loss, np.diagonal(run.tracked, axis1=-2, axis2=-1))


CLAIM = Claim(
    "phase_diagram",
    "How does t_2/t_1 depend on ρ and on the eigenvalue ratio, in the full model and in the reduced flow?",
    Settings(),
    measure,
    Statements("phase_diagram", source="notes §6"),
    seconds=28.0,
)
