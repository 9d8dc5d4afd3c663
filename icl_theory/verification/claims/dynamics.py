"""Training compared with its reduced systems, flows and closed forms (theory notes, §5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

from icl_theory.analysis.learning_times import learning_times
from icl_theory.analysis.simplicity_bias import simplicity_bias
from icl_theory.analysis.trajectory import Trajectory, compare
from icl_theory.models.attention import MergedAttention, SeparateAttention
from icl_theory.models.cubic_mlp import CubicFeatureMLP
from icl_theory.models.parameters import aligned_parameters, split_model
from icl_theory.tasks.features import find_features
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.sampling import sample_prompts
from icl_theory.tasks.spectra import linear_spectrum, random_basis, white_spectrum
from icl_theory.theory.aligned_dynamics import AlignedClosedForm, AlignedDescent, AlignedFlow, Ascent
from icl_theory.theory.hitting_time import hitting_time
from icl_theory.theory.merged_dynamics import MergedFlow, MergedLogistic, effective_start
from icl_theory.training.gradient_descent import gd
from icl_theory.training.losses import make_loss
from icl_theory.training.run import Run, snapshot_schedule
from icl_theory.training.sam import sam, unnormalised_sam
from icl_theory.training.tracked import EffectiveMatrix
from icl_theory.training.train import train
from icl_theory.verification.claim import Claim, Progress
from icl_theory.verification.claims.dynamics_statements import table
from icl_theory.verification.labels import dataset, variable

Variables = dict[str, tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Three features for the aligned model, four for the merged one; gradient descent close to its flow.

    Power: nothing is drawn for aligned starts, so what remains is the step's error, and its order is tested too.
    """

    eigenvalues: tuple[float, ...] = (0.5, 0.3, 0.2)
    num_context: int = 31
    start: float = 0.2
    learning_rate: float = 0.02
    duration: float = 200.0
    rho: float = 0.15
    unnormalised_rho: float = 0.5
    slope_learning_rates: tuple[float, ...] = (0.08, 0.04, 0.02, 0.01)
    small_start: float = 1e-3
    merged_dim: int = 4
    merged_heads: int = 8
    merged_init_scale: float = 1e-3
    mlp_prompts: int = 500
    mlp_steps: int = 4000
    seed: int = 0


def train_aligned(
    mixture: TaskMixture,
    start: np.ndarray,
    *,
    optimizer: Callable[..., Any],
    hyperparameters: dict[str, Any],
    steps: np.ndarray,
) -> Trajectory:
    """Train the full rank-one model from an aligned, balanced start; return its trajectory in the features' basis."""
    features = find_features(mixture)
    dim = mixture.dim
    loss, _ = make_loss(SeparateAttention(dim, dim, rngs=nnx.Rngs(0)), mixture)
    params = aligned_parameters(jnp.asarray(start, float), jnp.asarray(features.directions, float))
    run = train(
        loss,
        params,
        optimizer=optimizer,
        hyperparameters=hyperparameters,
        num_steps=int(steps[-1]),
        snapshots=steps,
        track=EffectiveMatrix(loss.graphdef),
    )
    return run.trajectory(features)


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure deviations, learning times and trajectories; every prediction is made from the initial state alone."""
    variables: Variables = {}
    parts = (_aligned, _flow, _small_start, _merged, _cubic_features)
    for done, part in enumerate(parts, start=1):
        variables |= part(settings)
        progress(done, len(parts))
    return dataset(
        variables,
        optimizer=["gd", "sam", "unnormalised_sam"],
        quantity=["loss", "strength"],
        learning_rate=list(settings.slope_learning_rates),
        spectrum=["white", "linear"],
        merged_feature=np.arange(1, settings.merged_dim + 1),
    )


def _aligned(settings: Settings) -> Variables:
    """Compare the full model in a random basis with the reduced map, for GD and both kinds of SAM."""
    dim = len(settings.eigenvalues)
    basis = random_basis(jax.random.key(settings.seed), dim)
    mixture = TaskMixture.single(settings.eigenvalues, num_context=settings.num_context, basis=basis)
    features = find_features(mixture)
    start = np.full(dim, settings.start)
    rate = settings.learning_rate
    steps = snapshot_schedule(round(settings.duration / rate), 500)
    deviations = []
    for optimizer, ascent in (
        (gd, Ascent()),
        (sam, Ascent(settings.rho)),
        (unnormalised_sam, Ascent(settings.unnormalised_rho, normalised=False)),
    ):
        chosen = {"learning_rate": rate} | ({} if optimizer is gd else {"rho": ascent.rho})
        measured = train_aligned(mixture, start, optimizer=optimizer, hyperparameters=chosen, steps=steps)
        predicted = AlignedDescent(features, start, rate, ascent).predict(measured.time)
        if optimizer is sam:
            # Past this moment the discrete map oscillates about the minimum and amplifies rounding.
            reached = np.flatnonzero(measured.strength[:, 0] > 0.95 * features.optimum[0])
            smooth = int(reached[0]) if reached.size else len(measured.time)
            measured, predicted = (Trajectory(*(field[:smooth] for field in run)) for run in (measured, predicted))
        deviations.append(compare(predicted, measured)[:2])
    meaning = "largest deviation of the reduced system from the full model, relative to the largest value"
    return {"deviation": variable("optimizer quantity", deviations, meaning)}


def _flow(settings: Settings) -> Variables:
    """Measure the distance of GD from its flow at several η; hitting times, and learning times at the smallest η."""
    mixture = TaskMixture.single(settings.eigenvalues, num_context=settings.num_context)
    features = find_features(mixture)
    start = np.full(len(settings.eigenvalues), settings.start)
    time = np.linspace(0.0, settings.duration, 501)
    flow = AlignedFlow(features, start).predict(time)
    distances = []
    for rate in settings.slope_learning_rates:
        steps = np.round(time / rate).astype(int)
        measured = train_aligned(mixture, start, optimizer=gd, hyperparameters={"learning_rate": rate}, steps=steps)
        distances.append(np.max(np.abs(measured.strength - flow.strength)))
    closed = compare(AlignedClosedForm(features, start), flow).strength
    hitting = hitting_time(0.5, drive=features.drive, optimum=features.optimum, start=start)
    learned = learning_times(measured.time, measured.strength / features.optimum)
    return {
        "distance_to_flow": variable("learning_rate", distances, "largest distance of a w_d under GD from its flow"),
        "closed_form_deviation": variable("", closed, "largest relative deviation of the closed form from the flow"),
        "hitting_time": variable("feature", hitting, "when half of the optimum is reached, in closed form"),
        "learning_time": variable("feature", learned, "the same under GD at the smallest learning rate"),
    }


def _small_start(settings: Settings) -> Variables:
    """Measure the ratio of two learning times from a tiny start, where it equals the ratio of drives."""
    mixture = TaskMixture.single([2.0, 1.0], num_context=settings.num_context)
    features = find_features(mixture)
    start = np.full(2, settings.small_start)
    horizon = 1.2 / (2.0 * features.drive[1] * settings.small_start)
    steps = snapshot_schedule(round(horizon / settings.learning_rate), 4000)
    chosen = {"learning_rate": settings.learning_rate}
    run = train_aligned(mixture, start, optimizer=gd, hyperparameters=chosen, steps=steps)
    ratio = simplicity_bias(run, features).ratios[1]
    return {
        "small_start_ratio": variable("", ratio, "t_2 / t_1 from a small start"),
        "drive_ratio": variable("", features.drive[0] / features.drive[1], "a_1 / a_2"),
    }


def _merged(settings: Settings) -> Variables:
    """Compare ATTN_M from small random heads with the logistic curve (white inputs) and with D+1 scalar equations."""
    dim = settings.merged_dim
    variables: Variables = {}
    deviations = []
    for name, spectrum in {"white": white_spectrum(dim), "linear": linear_spectrum(dim)}.items():
        mixture = TaskMixture.single(spectrum, num_context=settings.num_context)
        features = find_features(mixture)
        model = MergedAttention(
            dim, settings.merged_heads, init_scale=settings.merged_init_scale, rngs=nnx.Rngs(params=settings.seed)
        )
        loss, params = make_loss(model, mixture)
        start = effective_start(params["value"], params["merged"], features)
        predictor = MergedLogistic(features, start) if name == "white" else MergedFlow(features, start)
        duration = 2.5 * np.log(1.0 / start) / (2.0 * np.linalg.norm(features.drive))
        run = train(
            loss,
            params,
            hyperparameters={"learning_rate": settings.learning_rate / 4},
            num_steps=round(duration / (settings.learning_rate / 4)),
            track=EffectiveMatrix(loss.graphdef),
            num_snapshots=400,
        ).trajectory(features)
        predicted = predictor.predict(run.time)
        deviations.append(compare(predicted, run).strength)
        along, words = f"{name}_snapshot", f"merged attention, {name} spectrum"
        variables[f"merged_{name}_time"] = variable(along, run.time, f"time, {words}")
        for who, found in (("", run), ("predicted_", predicted)):
            strength = found.strength / features.optimum
            key = f"merged_{name}_{who}"
            variables[f"{key}loss"] = variable(along, found.loss, f"population loss, {words}")
            variables[f"{key}strength"] = variable(f"{along} merged_feature", strength, f"w_d / w_d*, {words}")
    meaning = "largest deviation of strengths from theory, relative to the largest strength"
    return variables | {"merged_deviation": variable("spectrum", deviations, meaning)}


def _cubic_features(settings: Settings) -> Variables:
    """Train ATTN_M and the network on vec(β x_qᵀ) from the same weights on the same prompts."""
    dim = settings.merged_dim
    mixture = TaskMixture.single(linear_spectrum(dim), num_context=settings.num_context)
    prompts = sample_prompts(mixture, settings.mlp_prompts, key=jax.random.key(settings.seed))
    attention = MergedAttention(dim, settings.merged_heads, init_scale=0.1, rngs=nnx.Rngs(params=settings.seed))
    _, weights = split_model(attention)
    network = CubicFeatureMLP(dim, settings.merged_heads, rngs=nnx.Rngs(0))
    copied = {"second": weights["value"], "first": weights["merged"].reshape(settings.merged_heads, -1)}

    def run(model: nnx.Module, params: dict[str, jax.Array], engine: str) -> Run:
        loss, _ = make_loss(model, prompts, engine=engine)
        return train(
            loss,
            params,
            hyperparameters={"learning_rate": 2 * settings.learning_rate},
            num_steps=settings.mlp_steps,
            track=EffectiveMatrix(loss.graphdef),
        )

    left, right = run(attention, weights, "moments"), run(network, copied, "prompts")
    deviation = np.max(np.abs(left.tracked - right.tracked)) / np.max(np.abs(left.tracked))
    return {
        "network_time": variable("network_snapshot", right.time, "time, network on cubic features"),
        "network_loss": variable("network_snapshot", right.loss, "loss on the prompts, network on cubic features"),
        "attention_loss": variable("network_snapshot", left.loss, "loss on the prompts, merged attention"),
        "network_deviation": variable("", deviation, "largest difference of the two W, relative to the largest entry"),
    }


CLAIM = Claim(
    "dynamics",
    "Does training follow the reduced systems, the flows and the closed-form learning times?",
    Settings(),
    measure,
    table,
    single=True,
    seconds=16.0,
)
