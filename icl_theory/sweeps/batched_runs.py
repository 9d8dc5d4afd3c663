"""Batches of runs of one structure, trained as one program, with the prediction of each run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from icl_theory.analysis.trajectory import relative_error
from icl_theory.models.parameters import aligned_parameters, split_model
from icl_theory.moments.empirical import prompt_moments
from icl_theory.moments.population import population_moments
from icl_theory.moments.population_full import full_population_moments
from icl_theory.moments.precision import for_training
from icl_theory.numerics.tracing import device_array
from icl_theory.simulation.build import (
    basis_and_mixture,
    build_model,
    has_fixed_task,
    hyperparameters,
    prompts_key,
    upsampling_factors,
)
from icl_theory.simulation.config import RunConfig, optimizer_factory
from icl_theory.simulation.prediction import theory_of
from icl_theory.simulation.simulate import CHUNK_SIZE
from icl_theory.sweeps.measures import COMPARED, PREDICTED, measure
from icl_theory.sweeps.predicted_runs import predict_runs
from icl_theory.sweeps.structure import batch_numbers, data_numbers, join_config, numbers_of, structure_of, uses_prompts
from icl_theory.tasks.features import Features, features_along, group_matrices
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.prompts import concatenate_prompts
from icl_theory.tasks.sampling import sample_prompt_chunks
from icl_theory.training.losses import MomentsLoss, PromptsLoss
from icl_theory.training.tracked import FeatureStrength
from icl_theory.training.train import Progress, train_many

CACHED_BYTES = 2**28


class Cache:
    """Data sets, keyed by the numbers they were drawn from; the least recently used are dropped beyond a size."""

    def __init__(self, limit: int = CACHED_BYTES):
        self._held: OrderedDict[Any, Any] = OrderedDict()
        self._bytes, self._limit = 0, limit

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return the data held under the key; make and hold them if there are none."""
        if key not in self._held:
            self._held[key] = made = make()
            self._bytes += _size(made)
            while self._bytes > self._limit and len(self._held) > 1:
                self._bytes -= _size(self._held.popitem(last=False)[1])
        self._held.move_to_end(key)
        return self._held[key]


class Prepared(NamedTuple):
    """A batch before training. The first axis of every leaf is that of the runs.

    Attributes:
        params: The initial parameters of the full model.
        basis: The common eigenbasis; its columns are the directions.
        original: The task mixture before upsampling.
        mixture: The mixture that training draws from.
        factors: κ of each group.
    """

    params: PyTree
    basis: Any
    original: TaskMixture
    mixture: TaskMixture
    factors: Any


def run_batch(
    configs: Sequence[RunConfig],
    *,
    size: int,
    shared: bool,
    full: bool,
    theory: bool,
    curves: bool,
    cache: Cache,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Train configs of one structure and one schedule, and return the variables of `measures`, runs first.

    Args:
        configs: The settings of the runs.
        size: Number of runs in the program. A smaller batch is filled up with copies of its last run.
        shared: Whether to hold the data once for all runs, if they all have the same.
        full: Whether to train the full model.
        theory: Whether to predict the runs, if there is a theory of them.
        curves: Whether to keep losses and strengths of all snapshots.
        cache: Holds data sets of prompts between batches.
        progress: Called with (steps done, steps in all).
    """
    structure = structure_of(configs[0])
    padded = [*configs, *[configs[-1]] * (size - len(configs))]
    with jax.enable_x64(structure.dtype == "float64"):
        numbers = batch_numbers(padded)
        with jax.enable_x64(True):  # for one start in either precision
            exact = _prepare(numbers, structure)
        prepared = jax.tree.map(lambda leaf: device_array(np.asarray(leaf), float), exact)
        features = None if has_fixed_task(structure) else _features(prepared)
        shared = shared and full and len({_data_key(structure, config) for config in configs}) == 1
        kind = theory_of(structure) if theory else None
        found: dict[str, np.ndarray] = {}
        schedule = {"num_steps": configs[0].num_steps, "num_snapshots": configs[0].num_snapshots}
        parts = int(full) + int(kind is not None)
        common = schedule | {
            "hyperparameters": {name: numbers[name] for name in hyperparameters(structure)},
            "optimizer": optimizer_factory(structure.optimizer),
        }
        if full:
            settings = common | {"progress": _part(progress, 0, parts)}
            loss = _loss(structure, padded, prepared, shared, cache)
            found |= _train_full(structure, padded, prepared, features, loss, shared, curves, settings)
        if kind is not None and features is not None:
            settings = common | {"progress": _part(progress, parts - 1, parts)}
            predicted = predict_runs(kind, padded, prepared.params, features, curves=curves, settings=settings)
            found |= {PREDICTED + name: values for name, values in predicted.items()}
        if full and kind is not None:
            found |= {f"{name}_error": relative_error(found[name], found[PREDICTED + name]) for name in COMPARED}
    return {name: values[: len(configs)] for name, values in found.items()}


def _train_full(
    structure: RunConfig,
    configs: Sequence[RunConfig],
    prepared: Prepared,
    features: Features | None,
    loss: Any,
    shared: bool,
    curves: bool,
    settings: dict[str, Any],
) -> dict[str, np.ndarray]:
    graphdef = loss.graphdef
    tracked: dict[str, Any] = {}
    if features is not None:
        dtype = jax.tree.leaves(prepared.params)[0].dtype
        directions = jnp.asarray(features.directions, dtype)
        tracked = {"track": FeatureStrength(graphdef, directions), "track_axes": FeatureStrength(None, 0)}
    run = train_many(loss, prepared.params, loss_axes=None if shared else 0, **tracked, **settings)
    nothing = np.full((*run.loss.shape, structure.dim), np.nan)
    strength = nothing if features is None else np.asarray(run.tracked, float)
    measured = measure(run, strength, features, configs, curves=curves)
    population = np.full(len(configs), np.nan)
    if structure.scores == "linear":
        population = _population_losses(structure, run.params, prepared.original, graphdef)
    return measured | {"population_loss": np.where(run.diverged_at >= 0, np.nan, population)}


@partial(jax.jit, static_argnames="structure")
def _prepare(numbers: Any, structure: RunConfig) -> Prepared:
    """Return the initial parameters and task mixtures of all runs of a batch."""

    def prepare(numbers: Any) -> Prepared:
        config = join_config(structure, numbers)
        basis, original = basis_and_mixture(config)
        basis = jnp.eye(config.dim) if basis is None else basis
        factors = upsampling_factors(config, original)
        mixture = original.upsampled(factors)
        if config.init == "aligned":
            params = aligned_parameters(jnp.full(config.dim, config.init_scale), basis)
        else:
            _, params = split_model(build_model(config))
        return Prepared(params, basis, original, mixture, factors)

    real = lambda leaf: leaf if leaf.dtype == np.uint32 else jnp.asarray(leaf, float)  # noqa: E731
    return jax.vmap(prepare)(jax.tree.map(real, numbers))


def _features(prepared: Prepared) -> Features:
    """Return the features of each run, numbered by their drive before upsampling."""
    matrices = [jax.vmap(group_matrices)(group) for group in prepared.original.groups]
    shares = np.asarray(prepared.original.shares, float)
    found = features_along(np.asarray(prepared.basis, float), matrices, shares)
    return found.with_shares(shares * np.asarray(prepared.factors, float))


def _loss(
    structure: RunConfig, configs: Sequence[RunConfig], prepared: Prepared, shared: bool, cache: Cache
) -> PromptsLoss | MomentsLoss:
    """Return one loss that all runs share, or the losses of all runs, runs first."""
    graphdef, _ = split_model(build_model(structure))
    mixtures = jax.tree.map(lambda leaf: leaf[:1], prepared.mixture) if shared else prepared.mixture
    if structure.data == "population":
        loss: PromptsLoss | MomentsLoss = MomentsLoss(graphdef, _population(mixtures, structure.blocks))
    else:
        drawn = [
            cache.get(_data_key(structure, config), partial(_draw, structure, config, _row(mixtures, run)))
            for run, config in enumerate(configs[:1] if shared else configs)
        ]
        data = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
        loss = PromptsLoss(graphdef, data) if uses_prompts(structure) else MomentsLoss(graphdef, data)
    return _row(loss, 0) if shared else loss


def _draw(structure: RunConfig, config: RunConfig, mixture: TaskMixture) -> Any:
    """Draw the prompts of one run and return them, or their mean moments."""
    mixture = mixture._replace(
        groups=tuple(group._replace(num_context=int(group.num_context)) for group in mixture.groups)
    )
    chunks = sample_prompt_chunks(mixture, structure.num_prompts, key=prompts_key(config), chunk_size=CHUNK_SIZE)
    if uses_prompts(structure):
        return concatenate_prompts(list(chunks))
    moments = prompt_moments(chunks, blocks=structure.blocks)
    return for_training(moments, dim=structure.dim, blocks=structure.blocks, dtype=jnp.dtype(structure.dtype))


def _population(mixtures: TaskMixture, blocks: str) -> Any:
    """Return the moments of infinite data, runs first, in the precision of the mixture."""
    if blocks == "reduced":
        return _reduced_moments(mixtures)
    dtype = mixtures.shares.dtype
    with jax.enable_x64(True):
        exact = _full_moments(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), mixtures))
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), dtype), exact)


_reduced_moments = jax.jit(jax.vmap(population_moments))
_full_moments = jax.jit(jax.vmap(full_population_moments))


def _population_losses(structure: RunConfig, params: PyTree, original: TaskMixture, graphdef: Any) -> np.ndarray:
    """Return the loss of each run's weights on infinite data without upsampling."""
    return np.asarray(_losses(params, MomentsLoss(graphdef, _population(original, structure.blocks))))


_losses = jax.jit(jax.vmap(lambda params, loss: loss(params)))


def _data_key(structure: RunConfig, config: RunConfig) -> Any:
    numbers = data_numbers(numbers_of(config))
    return structure, tuple(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(numbers))


def _row(tree: PyTree, run: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[run], tree)


def _size(tree: PyTree) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))


def _part(progress: Progress | None, index: int, parts: int) -> Progress | None:
    """Return a callback that reports one of several equal parts as progress of the whole."""
    if progress is None:
        return None
    return lambda done, total: progress(index * total + done, parts * total)
