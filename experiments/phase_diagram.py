"""Where in the plane of ρ and eigenvalue ratio does SAM even out learning, and where does the reduced flow say so?"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.experiment import Experiment
from icl_theory.analysis import simplicity_bias
from icl_theory.attention import SeparateAttention, aligned_parameters, split_model
from icl_theory.features import find_features
from icl_theory.losses import EffectiveMatrix, MomentsLoss
from icl_theory.run import require_sound
from icl_theory.sharpness import sam
from icl_theory.tasks import TaskMixture
from icl_theory.theory.aligned import AlignedFlow, Ascent
from icl_theory.theory.population import population_moments
from icl_theory.theory.sharpness import stable_learning_rate
from icl_theory.training import train_many
from icl_theory.trajectory import Trajectory
from icl_theory.verification import Data


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


def measure(settings: Settings, progress) -> Data:
    """t_1 and t_2 of the full model and of the flow on the whole grid, (ratio, δ, feature).

    `stable_learning_rate` is the predicted onset of oscillation at the moment feature 1 has 95 % of its optimum;
    NaN where feature 2 is half learned by then, so that there is no plateau.
    """
    rhos = np.asarray(settings.deltas) * np.sqrt(3.0) * settings.start
    spectra = np.asarray([[1.0, 1.0 / ratio] for ratio in settings.ratios])
    shape = (len(spectra), len(rhos))
    grid = np.repeat(spectra, len(rhos), axis=0), np.tile(rhos, len(spectra))
    fine = _train(settings, *grid, settings.learning_rate, lambda done, total: progress(40 * done // total, 100))
    coarse = _train(
        settings, *grid, settings.coarse_learning_rate, lambda done, total: progress(40 + 10 * done // total, 100)
    )
    simulated, oscillating, predicted = (np.empty((*shape, 2)) for _ in range(3))
    stable = np.full(shape, np.nan)
    start = np.full(2, settings.start)
    for i, eigenvalues in enumerate(spectra):
        features = find_features(TaskMixture.single(eigenvalues, num_context=settings.num_context))
        for times, run in ((simulated, fine), (oscillating, coarse)):
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
    return {
        "ratios": np.asarray(settings.ratios),
        "deltas": np.asarray(settings.deltas),
        "simulated_times": simulated,
        "coarse_times": oscillating,
        "predicted_times": predicted,
        "stable_learning_rate": stable,
        "learning_rate": np.asarray(settings.learning_rate),
        "coarse_learning_rate": np.asarray(settings.coarse_learning_rate),
        "start": np.asarray(settings.start),
    }


def _train(settings: Settings, spectra: np.ndarray, rhos: np.ndarray, rate: float, progress) -> Trajectory:
    """One program for the whole grid: spectra and ρ are numbers of each run, traced."""
    graphdef, _ = split_model(SeparateAttention(2, 2, rngs=nnx.Rngs(0)))

    def moments(eigenvalues):
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


EXPERIMENT = Experiment(
    "phase_diagram",
    "How does t_2/t_1 depend on ρ and on the eigenvalue ratio, in the full model and in the reduced flow?",
    Settings(),
    measure,
)
