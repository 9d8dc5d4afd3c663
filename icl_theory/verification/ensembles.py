"""Training of many attention models at once: random starts on one mixture, or runs on data of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Key, PyTree

from icl_theory.analysis.plateaus import level_between
from icl_theory.analysis.simplicity_bias import SimplicityBias, simplicity_bias
from icl_theory.analysis.trajectory import Trajectory
from icl_theory.models.attention import MergedAttention, SeparateAttention
from icl_theory.models.parameters import aligned_parameters, split_model
from icl_theory.moments.empirical import Moments
from icl_theory.moments.population_full import full_population_moments
from icl_theory.numerics.tracing import device_array
from icl_theory.tasks.features import Features, find_features
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.training.gradient_descent import gd
from icl_theory.training.losses import MomentsLoss, make_loss
from icl_theory.training.optimizer_step import OptimizerFactory
from icl_theory.training.run import Run, require_sound
from icl_theory.training.tracked import EffectiveMatrix
from icl_theory.training.train import Progress, train_many

KEYS_AT_ONCE = 64
Maker = Callable[[Any], nnx.Module]  # makes a model from a key


def random_starts(make_model: Maker, num_seeds: int, seed: int) -> tuple[nnx.Module, Any]:
    """Return one model, for its structure, and the stacked parameters of `num_seeds` random initialisations."""
    keys = split_keys(jax.random.key(seed), num_seeds)
    return make_model(keys[0]), stacked([split_model(make_model(key))[1] for key in keys])


def split_keys(key: Key[Array, ""], count: int) -> list[Key[Array, ""]]:
    """Return the same keys as `jax.random.split(key, count)`, with fewer compilations.

    The keys are the first of a split into the next multiple of 64. The default generator derives each key from its
    index alone, so the number of keys makes no difference.
    """
    words = jax.random.key_data(jax.random.split(key, -(-count // KEYS_AT_ONCE) * KEYS_AT_ONCE))
    return [jax.random.wrap_key_data(each, impl=jax.random.key_impl(key)) for each in np.asarray(words)[:count]]


def stacked(trees: Sequence[Any], dtype: Any = None) -> Any:
    """Stack trees along a new first axis of each leaf, on the host to avoid compilation."""
    return jax.tree.map(lambda *leaves: device_array(np.stack([np.asarray(leaf, dtype) for leaf in leaves])), *trees)


def train_starts(
    model: nnx.Module,
    starts: Any,
    data: TaskMixture | Moments,
    *,
    learning_rate: float,
    duration: float,
    num_snapshots: int,
    optimizer: OptimizerFactory = gd,
    rho: np.ndarray | float | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train every start on the same data, with one ρ or a ρ for each run; `tracked` holds W, (runs, S, D, D)."""
    loss, _ = make_loss(model, data)
    run = train_many(
        loss,
        starts,
        optimizer=optimizer,
        hyperparameters={"learning_rate": learning_rate} | ({} if rho is None else {"rho": rho}),
        num_steps=round(duration / learning_rate),
        num_snapshots=num_snapshots,
        track=EffectiveMatrix(loss.graphdef),
        progress=progress,
    )
    return require_sound(run)


def train_ensemble(
    model: nnx.Module, starts: Any, mixture: TaskMixture, *, rhos: tuple[float, ...] | None = None, **settings: Any
) -> tuple[Trajectory, Features]:
    """Train every start on infinite data, with each ρ if any are given.

    Returns strengths (ρ, seed, T, D) and losses (ρ, seed, T) as a trajectory, and the features. Further settings are
    those of `train_starts`.
    """
    features = find_features(mixture)
    num_seeds = jax.tree.leaves(starts)[0].shape[0]
    copies = 1 if rhos is None else len(rhos)
    rho = None if rhos is None else np.repeat(rhos, num_seeds)
    run = train_starts(model, repeated(starts, copies), mixture, rho=rho, **settings)
    trajectory, shape = run.trajectory(features), (copies, num_seeds)
    return (
        Trajectory(
            trajectory.time,
            trajectory.loss.reshape(*shape, *trajectory.loss.shape[1:]),
            trajectory.strength.reshape(*shape, *trajectory.strength.shape[1:]),
        ),
        features,
    )


def train_on(
    moments: Sequence[Moments],
    graphdef: Any,
    starts: Any,
    *,
    duration: float,
    learning_rate: float,
    num_snapshots: int,
    optimizer: OptimizerFactory = gd,
    rho: np.ndarray | float | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train start r on `moments[r]` for each r; `tracked` holds W, (runs, S, D, D)."""
    dtype = jax.tree.leaves(starts)[0].dtype
    means = {name: each.mean() for name, each in {id(each): each for each in moments}.items()}  # runs may share theirs
    run = train_many(
        MomentsLoss(graphdef, stacked([means[id(each)] for each in moments], dtype)),
        starts,
        loss_axes=0,
        optimizer=optimizer,
        hyperparameters={"learning_rate": learning_rate} | ({} if rho is None else {"rho": rho}),
        num_steps=round(duration / learning_rate),
        num_snapshots=num_snapshots,
        track=EffectiveMatrix(graphdef),
        progress=progress,
    )
    return require_sound(run)


def reduced_population(mixture: TaskMixture) -> Moments:
    """Return the moments of infinite data in the form of those of a data set."""
    return full_population_moments(mixture).restricted("reduced")


def measure_arms(run: Run, features: Features, arms: int) -> SimplicityBias:
    """Measure the simplicity bias (arm, seed, D) of runs with tracked W, ordered by arm and then by seed."""
    strength = features.strength(run.tracked)
    shaped = strength.reshape(arms, -1, *strength.shape[1:])
    return simplicity_bias(Trajectory(run.time, np.zeros(()), shaped), features)


def aligned_start(start: float, directions: np.ndarray, copies: int) -> tuple[Any, Any]:
    """Return the structure of the rank-one model with one head per feature, and `copies` of one aligned start."""
    dim = len(directions)
    graphdef, _ = split_model(SeparateAttention(dim, dim, rngs=nnx.Rngs(0)))
    return graphdef, stacked([aligned_parameters(np.full(dim, start), directions)] * copies)


def repeated(starts: Any, copies: int) -> Any:
    """Repeat the starts for each of several arms, one arm after the other."""
    return jax.tree.map(lambda leaf: device_array(np.concatenate([leaf] * copies)), starts)


def clear_plateaus(learned: np.ndarray) -> Iterator[tuple[int, float, float]]:
    """Yield `(m, from, until)` for each clear plateau of a run with learning times `learned` (D,), m = 1 … D−1.

    On the plateau exactly the first m features are learned. It is skipped if features are learned in another order, if
    the next one is learned before 1.2 times its start, or if no further feature is learned.
    """
    for m in range(1, len(learned)):
        before, after = learned[:m].max(), learned[m:].min()
        if 1.2 * before < after < np.inf:
            yield m, before, after


def plateau_levels(time: np.ndarray, losses: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the loss on each plateau, (seeds, D−1), from losses (seeds, T) and learning times (seeds, D).

    Column m is the plateau with the first m + 1 features learned; NaN if there is no clear plateau.
    """
    levels = np.full((len(losses), times.shape[1] - 1), np.nan)
    for seed, (loss, learned) in enumerate(zip(losses, times, strict=True)):
        for m, before, after in clear_plateaus(learned):
            levels[seed, m - 1] = level_between(time, loss, before, after)
    return levels


def all_parameters(params: PyTree) -> Any:
    """Return all parameters; a function for `track` that records the weights themselves."""
    return params


def separate_model(dim: int, num_heads: int, init_scale: float, **settings: Any) -> Maker:
    """Return a function from a key to a `SeparateAttention`, of rank one with linear scores unless set otherwise."""
    return lambda key: SeparateAttention(dim, num_heads, init_scale=init_scale, rngs=nnx.Rngs(params=key), **settings)


def merged_model(dim: int, num_heads: int, init_scale: float) -> Maker:
    """Return a function from a key to a `MergedAttention`."""
    return lambda key: MergedAttention(dim, num_heads, init_scale=init_scale, rngs=nnx.Rngs(params=key))
