"""One run from a config: train, measure, and predict where a theory applies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icl_theory.analysis.plateaus import find_plateaus
from icl_theory.analysis.simplicity_bias import simplicity_bias
from icl_theory.analysis.trajectory import Trajectory, compare
from icl_theory.environment import memory_bytes
from icl_theory.errors import InputError
from icl_theory.models.cubic_features import num_features
from icl_theory.models.parameters import aligned_parameters
from icl_theory.moments.empirical import prompt_moments
from icl_theory.simulation.build import build_mixture, build_model, config_features, hyperparameters, prompts_key
from icl_theory.simulation.config import RunConfig, optimizer_factory
from icl_theory.simulation.prediction import features_without_a_head, predicted_dynamics
from icl_theory.simulation.simulation import Simulation
from icl_theory.tasks.prompts import Prompts, concatenate_prompts
from icl_theory.tasks.sampling import sample_prompt_chunks
from icl_theory.training.losses import make_loss
from icl_theory.training.tracked import EffectiveMatrix
from icl_theory.training.train import Progress, train

CHUNK_SIZE = 2**15  # prompts drawn at a time


def simulate(config: RunConfig, *, progress: Progress | None = None, folding: Progress | None = None) -> Simulation:
    """Run one config, in its own precision whatever that of the session.

    Args:
        config: The settings.
        progress: Called with (steps done, steps in all) while training.
        folding: Called with (prompts done, prompts in all) while prompts are folded into moments.

    Raises:
        DivergenceError: The loss left the finite range; the error carries the last good state.
        InputError: Settings exclude each other, or the run does not fit into memory.
    """
    check_memory(config)
    with jax.enable_x64(config.dtype == "float64"):
        return _simulate(config, progress, folding)


def check_memory(config: RunConfig) -> None:
    """Raise `InputError` if the snapshots of W, covariances, weights and prompts do not fit into memory."""
    dim, width = config.dim, 8 if config.dtype == "float64" else 4
    needs = {  # bytes, by the setting that lowers them
        "num_snapshots": width * dim**2 * config.num_snapshots,
        "num_heads": width * dim**2 * 4 * config.num_heads,
        "dim": width * dim**2 * 20,
    }
    compressed = _uses_moments(config)
    if compressed or (config.data == "population" and config.blocks == "full"):
        needs["dim"] += 8 * 8 * num_features(dim, config.blocks) ** 2  # moments are folded in float64
    if config.data == "prompts":
        longest = config.longest_context
        held = min(config.num_prompts, CHUNK_SIZE) if compressed else config.num_prompts
        lower = "num_context" if compressed or longest > config.num_prompts else "num_prompts"
        needs[lower] = width * 6 * held * longest * (dim + config.num_heads)
    total, available = sum(needs.values()), memory_bytes()
    if total > available:
        largest = max(needs, key=lambda name: needs[name])
        remedy = f"the run needs about {total / 2**30:.0f} GiB, this machine has {available / 2**30:.0f}; lower it"
        raise InputError(largest, getattr(config, largest), remedy)


def _uses_moments(config: RunConfig) -> bool:
    return config.data == "prompts" and config.engine != "prompts" and config.scores == "linear"


def _reporting(chunks: Iterator[Prompts], total: int, report: Progress | None) -> Iterator[Prompts]:
    """Yield the chunks, reporting progress after each has been used."""
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk.y_query)
        if report is not None:
            report(done, total)


def _simulate(config: RunConfig, progress: Progress | None, folding: Progress | None) -> Simulation:
    mixture = build_mixture(config)
    try:
        features = config_features(config)
    except InputError:
        features = None
    if features is None and config.init == "aligned":
        raise InputError("init", "aligned", "the groups share no eigenbasis, so no head can be aligned; use random")
    data: Any = mixture
    if config.data == "prompts":
        key = prompts_key(config)
        chunks = sample_prompt_chunks(mixture, config.num_prompts, key=key, chunk_size=CHUNK_SIZE)
        compressed = _uses_moments(config)
        if compressed:
            data = prompt_moments(_reporting(chunks, config.num_prompts, folding), blocks=config.blocks)
        else:
            data = concatenate_prompts(list(chunks))
    loss, params = make_loss(build_model(config), data, engine=config.engine)
    if config.init == "aligned" and features is not None:
        params = aligned_parameters(jnp.full(config.dim, config.init_scale), jnp.asarray(features.directions, float))
    run = train(
        loss,
        params,
        optimizer=optimizer_factory(config.optimizer),
        hyperparameters=hyperparameters(config),
        num_steps=config.num_steps,
        num_snapshots=config.num_snapshots,
        track=EffectiveMatrix(loss.graphdef),
        progress=progress,
    )
    prediction, predicted_bias = None, None
    never: tuple[int, ...] = ()
    if features is None:
        strength = np.full((len(run.step), config.dim), np.nan)
        trajectory, bias = Trajectory(run.time, run.loss, strength), None
    else:
        trajectory = run.trajectory(features)
        bias = simplicity_bias(trajectory, features, threshold=config.threshold)
        dynamics = predicted_dynamics(config, features, params)
        if dynamics is not None:
            prediction = dynamics.predict(run.time)
            predicted_bias = simplicity_bias(prediction, features, threshold=config.threshold)
            unknown = np.isinf(predicted_bias.times) & np.isnan(prediction.strength[-1])
            predicted_bias = predicted_bias._replace(times=np.where(unknown, np.nan, predicted_bias.times))
            never = features_without_a_head(dynamics, np.isfinite(bias.times))
    return Simulation(
        config=config,
        run=run,
        features=features,
        trajectory=trajectory,
        bias=bias,
        plateaus=find_plateaus(run.time, run.loss) if len(run.time) > 4 and config.learning_rate > 0 else [],
        prediction=prediction,
        predicted_bias=predicted_bias,
        comparison=None if prediction is None else compare(prediction, trajectory),
        start_norm=float(np.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(params)))),
        never=never,
    )
