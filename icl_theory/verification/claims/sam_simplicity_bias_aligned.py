"""SAM from aligned starts: the full model, the reduced system and its approximations, and the saddle trap."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from icl_theory.analysis.simplicity_bias import simplicity_bias
from icl_theory.analysis.trajectory import Trajectory
from icl_theory.models.attention import SeparateAttention
from icl_theory.models.parameters import aligned_parameters
from icl_theory.tasks.features import Features, find_features
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.theory.aligned_dynamics import AlignedDescent, AlignedFlow, Ascent
from icl_theory.theory.sam_dynamics import (
    first_learning_time,
    stable_learning_rate,
    stall_strengths,
    trap_radius,
    two_phase_ratio,
)
from icl_theory.training.losses import make_loss
from icl_theory.training.run import require_sound, snapshot_schedule
from icl_theory.training.sam import sam
from icl_theory.training.tracked import EffectiveMatrix
from icl_theory.training.train import train_many
from icl_theory.verification.claim import Progress
from icl_theory.verification.labels import MEANING, variable

Variables = dict[str, tuple[Any, ...]]

# t_2/t_1 as measured independently for the theory notes (§6), for δ = 0, 0.2, 0.5, 0.8, 0.95.
REFERENCE_DELTAS = (0.0, 0.2, 0.5, 0.8, 0.95)
REFERENCE_RATIOS = {
    (2.0, 1.0): (4.02, 3.62, 2.61, 1.28, 1.05),
    (3.0, 1.0): (9.02, 8.61, 6.25, 2.54, 1.09),
    (1.5, 1.0): (2.26, 1.99, 1.48, 1.09, 1.03),
}

# Trajectories kept for the figure of strengths: λ = (2, 1), δ = 0 and 0.5, every fourth snapshot.
SHOWN_EIGENVALUES, SHOWN_DELTAS, SHOWN_EVERY = (2.0, 1.0), [0, 2], 4

ONSET_EIGENVALUES = ((2.0, 1.0), (3.0, 1.0))  # spectra for which the onset of oscillation is measured


@dataclasses.dataclass(frozen=True)
class AlignedSettings:
    """The notes' setting: N = 31, u_0 = 0.05, normalised SAM, η = 10⁻³; and a finer step."""

    num_context: int = 31
    start: float = 0.05
    learning_rate: float = 1e-3
    fine_learning_rate: float = 1e-4
    duration: float = 30.0
    fine_delta: float = 0.5
    oscillation_start: float = 0.0125
    trap_grid: int = 46
    trap_duration: float = 300.0


def train_aligned_many(
    mixture: TaskMixture,
    start: np.ndarray | float,
    rhos: np.ndarray,
    *,
    learning_rate: float,
    duration: float,
    snapshots: int,
) -> tuple[Trajectory, Features]:
    """Train the full rank-one model from one aligned start at many ρ at once; return strengths (ρ, T, D)."""
    features = find_features(mixture)
    loss, _ = make_loss(SeparateAttention(mixture.dim, mixture.dim, rngs=nnx.Rngs(0)), mixture)
    single = aligned_parameters(
        jnp.broadcast_to(jnp.asarray(start, float), mixture.dim), jnp.asarray(features.directions, float)
    )
    steps = snapshot_schedule(round(duration / learning_rate), snapshots)
    run = train_many(
        loss,
        jax.tree.map(lambda leaf: jnp.stack([leaf] * len(rhos)), single),
        optimizer=sam,
        hyperparameters={"learning_rate": learning_rate, "rho": np.asarray(rhos)},
        num_steps=int(steps[-1]),
        snapshots=steps,
        track=EffectiveMatrix(loss.graphdef),
    )
    return require_sound(run).trajectory(features), features


def measure_aligned(settings: AlignedSettings, progress: Progress) -> Variables:
    """Measure learning times of model, reduced map and flow, a finer step, the oscillation, and the saddle trap."""
    variables: Variables = {}
    parts = (_table, _fine_step, _oscillation, _trap)
    for done, part in enumerate(parts, start=1):
        variables |= part(settings)
        progress(done, len(parts))
    return variables


def _table(settings: AlignedSettings) -> Variables:
    """Measure learning times of full model, reduced map and flow in the cells of the notes' table."""
    deltas = np.asarray(REFERENCE_DELTAS)
    rhos = deltas * np.sqrt(3.0) * settings.start
    start = np.full(2, settings.start)
    times = []
    for eigenvalues in REFERENCE_RATIOS:
        mixture = TaskMixture.single(eigenvalues, num_context=settings.num_context)
        trajectory, features = train_aligned_many(
            mixture, start, rhos, learning_rate=settings.learning_rate, duration=settings.duration, snapshots=6001
        )
        time, strengths = trajectory.time, [trajectory.strength]
        for predictors in (
            [AlignedDescent(features, start, settings.learning_rate, Ascent(rho)) for rho in rhos],
            [AlignedFlow(features, start, Ascent(rho)) for rho in rhos],
        ):
            strengths.append(np.stack([each.predict(time).strength for each in predictors]))
        strength = np.stack(strengths)  # (system, δ, T, feature)
        times.append(simplicity_bias(Trajectory(time, np.zeros(()), strength), features).times)
        if eigenvalues == SHOWN_EIGENVALUES:
            shown_time, shown = time[::SHOWN_EVERY], strength[:, SHOWN_DELTAS, ::SHOWN_EVERY] / features.optimum
    cell = "eigenvalue_ratio delta"
    alphas = np.asarray([(low / high) ** 2 for high, low in REFERENCE_RATIOS])
    first = [first_learning_time(high**2, settings.start, deltas) for high, _ in REFERENCE_RATIOS]
    cells, curves = f"system {cell} aligned_feature", "system shown_delta aligned_snapshot aligned_feature"
    return {
        "system": variable("system", ["model", "reduced", "flow"], "full model, reduced map or flow"),
        "eigenvalue_ratio": variable("eigenvalue_ratio", [high / low for high, low in REFERENCE_RATIOS], "λ_1 / λ_2"),
        "delta": variable("delta", deltas, "ρ / (√3 u_0)"),
        "aligned_feature": variable("aligned_feature", [1, 2], "features of aligned starts"),
        "aligned_learning_time": variable(cells, np.stack(times, axis=1), MEANING["learning_time"]),
        "reference_ratio": variable(cell, list(REFERENCE_RATIOS.values()), "t_2 / t_1 in the notes' table"),
        "two_phase_ratio": variable(cell, two_phase_ratio(alphas[:, None], deltas), "t_2 / t_1 by the two phases"),
        "first_learning_time": variable(cell, first, "t_1 by the closed form for one dominant feature"),
        "aligned_time": variable("aligned_snapshot", shown_time, "time, λ = (2, 1)"),
        "aligned_strength": variable(curves, shown, "w_d / w_d*, λ = (2, 1)"),
        "shown_delta": variable("shown_delta", deltas[SHOWN_DELTAS], "ρ / (√3 u_0)"),
    }


def _fine_step(settings: AlignedSettings) -> Variables:
    """Measure t_2/t_1 for λ = (3, 1), where η = 10⁻³ oscillates, at a finer step."""
    rho = settings.fine_delta * np.sqrt(3.0) * settings.start
    mixture = TaskMixture.single([3.0, 1.0], num_context=settings.num_context)
    trajectory, features = train_aligned_many(
        mixture,
        settings.start,
        np.asarray([rho]),
        learning_rate=settings.fine_learning_rate,
        duration=settings.duration / 1.5,
        snapshots=4001,
    )
    ratio = simplicity_bias(trajectory, features).ratios[0, 1]
    return {"fine_step_ratio": variable("", ratio, "t_2 / t_1 of the full model at the finer step, λ = (3, 1)")}


def _oscillation(settings: AlignedSettings) -> Variables:
    """Find, by bisection, the η at which the reduced map begins to oscillate about the first plateau."""
    predicted, measured = [], []
    for eigenvalues in ONSET_EIGENVALUES:
        features = find_features(TaskMixture.single(eigenvalues, num_context=settings.num_context))
        start = np.full(2, settings.oscillation_start)
        ascent = Ascent(settings.fine_delta * np.sqrt(3.0) * settings.oscillation_start)
        time = np.linspace(0.0, settings.duration, 6001)
        flow = AlignedFlow(features, start, ascent).predict(time)
        begin = time[np.argmax(flow.strength[:, 0] > 0.999 * features.optimum[0])]
        end = begin + 0.5  # an instability has time to grow, while feature 2 and κ change by a few percent
        slow = float(np.cbrt(np.interp(end, time, flow.strength[:, 1])))
        expected = stable_learning_rate(features, float(ascent.rho), slow)
        low, high = expected / 8.0, expected * 8.0
        for _ in range(12):
            middle = np.sqrt(low * high)
            steps = round(end / middle) + np.arange(-100, 1)
            w = AlignedDescent(features, start, middle, ascent).predict(steps * middle).strength[:, 0]
            oscillates = np.abs(np.diff(w, 2)).mean() > 1e-5 * features.optimum[0]
            low, high = (low, middle) if oscillates else (middle, high)
        predicted.append(expected)
        measured.append(np.sqrt(low * high))
    ratios = [high / low for high, low in ONSET_EIGENVALUES]
    return {
        "onset_ratio": variable("onset_ratio", ratios, "λ_1 / λ_2"),
        "predicted_onset": variable("onset_ratio", predicted, "learning rate at which SAM should begin to oscillate"),
        "onset": variable("onset_ratio", measured, "learning rate at which the reduced map begins to"),
    }


def _trap(settings: AlignedSettings) -> Variables:
    """Measure which ρ keep SAM from learning feature 1, with one feature and two, and where a trapped run stalls."""

    def run(eigenvalues: tuple[float, ...], factors: np.ndarray) -> tuple[Trajectory, Features, np.ndarray]:
        start = np.full(len(eigenvalues), settings.start)
        rhos = trap_radius(start) * factors
        mixture = TaskMixture.single(eigenvalues, num_context=settings.num_context)
        rate, duration = 5 * settings.learning_rate, settings.trap_duration
        found = train_aligned_many(mixture, start, rhos, learning_rate=rate, duration=duration, snapshots=1001)
        return *found, rhos

    grid = np.linspace(0.5, 5.0, settings.trap_grid)
    learned, predicted, measured = [], [], []
    for eigenvalues in ((1.0,), (2.0, 1.0)):
        trajectory, features, _ = run(eigenvalues, grid)
        learned.append(np.isfinite(simplicity_bias(trajectory, features).times[:, 0]))
    for eigenvalues, factor in (((1.0,), 2.0), ((1.0, 1.0), 1.4)):
        trajectory, features, rhos = run(eigenvalues, np.asarray([factor]))
        predicted.append(stall_strengths(features.drive, rhos[0]))
        measured.append(np.cbrt(trajectory.strength[0, -1]))
    return {
        "trap_features": variable("trap_features", [1, 2], "number of features, λ = (1,) or (2, 1)"),
        "trap_rho": variable("trap_rho", grid, "ρ / ‖θ(0)‖"),
        "learns": variable("trap_features trap_rho", learned, "feature 1 is learned"),
        "predicted_stall": variable("stalled_head", np.concatenate(predicted), "u_d where a trapped run should stall"),
        "stall": variable("stalled_head", np.concatenate(measured), "u_d of the trapped run at its end"),
    }
