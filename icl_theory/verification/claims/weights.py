"""Conserved quantities of the weights of every head, and blocks that stay empty (theory notes, §15)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from icl_theory.analysis.learning_times import learning_times
from icl_theory.models.attention import MergedAttention
from icl_theory.models.parameters import merge_model
from icl_theory.moments.population_full import full_population_moments
from icl_theory.tasks.features import find_features
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.spectra import linear_spectrum, random_basis
from icl_theory.theory.balance import imbalance, imbalance_change
from icl_theory.theory.fixed_points import fixed_point_strengths
from icl_theory.training.gradient_descent import gd
from icl_theory.training.losses import make_loss
from icl_theory.training.run import snapshot_schedule
from icl_theory.training.sam import sam
from icl_theory.training.train import train
from icl_theory.verification.claim import Claim, Progress
from icl_theory.verification.ensembles import all_parameters, merged_model, random_starts, separate_model, train_starts
from icl_theory.verification.judging import Reading
from icl_theory.verification.labels import dataset, variable
from icl_theory.verification.statements import Statements

Variables = dict[str, tuple[Any, ...]]
MODELS: dict[str, Any] = {"merged": merged_model, "rank 1": separate_model, "rank 2": partial(separate_model, rank=2)}
OPTIMIZERS = {"gd": "gradient descent", "sam": "SAM"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """D = 4, N = 31, default spectrum in a random basis; H = 5. The pictures start from smaller weights.

    Power: 64 grown heads of 16 runs give a share of nine tenths to ± 10 % (99 % interval); the drift's order comes from
    four rates.
    """

    dim: int = 4
    num_heads: int = 5
    num_context: int = 31
    init_scale: float = 0.3
    learning_rate: float = 0.02
    rho: float = 0.05
    num_steps: int = 4000
    drift_rates: tuple[float, ...] = (0.16, 0.08, 0.04, 0.02)
    drift_duration: float = 200.0
    aligned_starts: int = 16
    aligned_scale: float = 0.2
    aligned_steps: int = 20_000
    num_seeds: int = 16
    picture_scale: float = 0.02
    picture_rate: float = 0.1
    picture_duration: float = 15_000.0
    seed: int = 3


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure imbalance step by step, its drift against η, weights on the plateaus, and entries of empty blocks."""
    basis = random_basis(jax.random.key(settings.seed), settings.dim)
    mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=settings.num_context, basis=basis)
    parts = (_step_by_step, _drift, _aligned, _pictures, _heads, _empty_blocks)
    variables: Variables = {}
    for done, part in enumerate(parts, start=1):
        variables |= part(settings, mixture)
        progress(done, len(parts))
    moments, rates = ["start", "end"], list(settings.drift_rates)
    data = dataset(variables, optimizer=list(OPTIMIZERS), learning_rate=rates, moment=moments)
    return data.set_coords(["model", "quantity"])


def _step_by_step(settings: Settings, mixture: TaskMixture) -> Variables:
    """Measure the imbalance and sum its predicted changes up to each step, for three models under GD and SAM."""
    every = np.arange(settings.num_steps + 1)
    follow = partial(train, num_steps=settings.num_steps, snapshots=every, track=all_parameters)
    found, quantities = [], []
    for make in MODELS.values():
        loss, params = make_loss(make(settings.dim, settings.num_heads, settings.init_scale)(settings.seed), mixture)
        pairs = []
        for optimizer, rho in ((gd, 0.0), (sam, settings.rho)):
            rates = {"learning_rate": settings.learning_rate} | ({"rho": rho} if rho else {})
            run = follow(loss, params, optimizer=optimizer, hyperparameters=rates)
            states = jax.tree.map(jnp.asarray, run.tracked)
            measured = _flat(jax.vmap(imbalance)(states))
            change = partial(imbalance_change, loss, learning_rate=settings.learning_rate, rho=rho)
            steps = _flat(jax.jit(jax.vmap(change))(jax.tree.map(lambda leaf: leaf[:-1], states)))
            predicted = measured[0] + np.concatenate([np.zeros_like(steps[:1]), np.cumsum(steps, axis=0)])
            pairs.append([measured[::10], predicted[::10]])
        found.append(np.asarray(pairs))  # (optimizer, measured or predicted, snapshot, quantities of all heads)
        shapes = jax.eval_shape(imbalance, params)
        quantities += [name for name in sorted(shapes) for _ in range(shapes[name].size)]
    values = np.concatenate(found, axis=-1)
    models = np.repeat(list(MODELS), [part.shape[-1] for part in found])
    along = "optimizer snapshot conserved"
    return {
        "time": variable("snapshot", run.time[::10], "time"),
        "model": variable("conserved", models, "model that a conserved quantity is of"),
        "quantity": variable("conserved", quantities, "value: v² − |k|² or v² − ‖U‖² of a head; key: KKᵀ − QQᵀ"),
        "imbalance": variable(along, values[:, 0], "conserved by gradient flow, zero in a balanced head"),
        "predicted_imbalance": variable(along, values[:, 1], "the same, as derived for every step"),
    }


def _drift(settings: Settings, mixture: TaskMixture) -> Variables:
    """Measure the largest change of the imbalance in a fixed time, for several learning rates of gradient descent."""
    model = separate_model(settings.dim, settings.num_heads, settings.init_scale)(settings.seed)
    loss, params = make_loss(model, mixture)
    drifts = []
    for rate in settings.drift_rates:
        num_steps = round(settings.drift_duration / rate)
        run = train(loss, params, hyperparameters={"learning_rate": rate}, num_steps=num_steps, num_snapshots=2)
        before, after = (np.asarray(ravel_pytree(imbalance(weights))[0], float) for weights in (params, run.params))
        drifts.append(np.abs(after - before).max())
    return {"drift": variable("learning_rate", drifts, "largest change of rank one's imbalance in a fixed time")}


def _aligned(settings: Settings, mixture: TaskMixture) -> Variables:
    """Measure the imbalance before and after SAM, for heads that each hold one feature and start unbalanced."""
    features, dim = find_features(mixture), settings.dim
    key, shape = jax.random.key(settings.seed), (3, settings.aligned_starts, dim)
    lengths = settings.aligned_scale * jax.random.uniform(key, shape, float, minval=0.5, maxval=1.5)
    rows = [(length[:, :, None] * jnp.asarray(features.directions.T))[:, :, None] for length in lengths[1:]]
    starts = {"value": lengths[0], "key": rows[0], "query": rows[1]}
    rate = settings.learning_rate
    under: dict[str, Any] = {"optimizer": sam, "learning_rate": rate, "rho": settings.rho}
    model, duration = separate_model(dim, dim, 0.1)(0), rate * settings.aligned_steps
    run = train_starts(model, starts, mixture, duration=duration, num_snapshots=2, **under)
    sizes = [np.linalg.norm(_flat(jax.vmap(imbalance)(params)), axis=1) for params in (starts, run.params)]
    return {"aligned_imbalance": variable("moment start", sizes, "norm, of heads that hold a feature each, SAM")}


def _pictures(settings: Settings, mixture: TaskMixture) -> Variables:
    """Record value, keys and queries in the features' basis, at the start, between learning times, and at the end."""
    features = find_features(mixture)
    model = separate_model(settings.dim, settings.num_heads, settings.picture_scale)(settings.seed)
    loss, params = make_loss(model, mixture)
    num_steps = round(settings.picture_duration / settings.picture_rate)
    rate, schedule = {"learning_rate": settings.picture_rate}, snapshot_schedule(num_steps, 3001)
    run = train(loss, params, hyperparameters=rate, num_steps=num_steps, snapshots=schedule, track=all_parameters)
    value, key, query = (np.asarray(run.tracked[name], float) for name in ("value", "key", "query"))
    key, query = (rows[:, :, 0] @ features.directions for rows in (key, query))
    strength = np.einsum("th,thd,thd->td", value, key, query) / features.optimum
    times = learning_times(run.time, strength)
    learned = np.sort(times[np.isfinite(times)])
    moments = [0.0, *np.sqrt(learned[:-1] * learned[1:]), run.time[-1]]
    shown = np.searchsorted(run.time, moments).clip(max=len(run.time) - 1)
    return {
        "picture_time": variable("picture", run.time[shown], "start, half-way between learning times, end"),
        "value": variable("picture head", value[shown], "v of a head"),
        "key": variable("picture head feature", key[shown], "k of a head in the features' basis"),
        "query": variable("picture head feature", query[shown], "q of a head in the features' basis"),
        "strength": variable("picture feature", strength[shown], "w_d / w_d*"),
    }


def _heads(settings: Settings, mixture: TaskMixture) -> Variables:
    """Measure the final share of |k||q| on one feature, for heads above a tenth of the size of their run's largest."""
    features = find_features(mixture)
    make = separate_model(settings.dim, settings.num_heads, settings.picture_scale)
    model, starts = random_starts(make, settings.num_seeds, settings.seed)
    rate, duration = settings.picture_rate, settings.picture_duration
    run = train_starts(model, starts, mixture, learning_rate=rate, duration=duration, num_snapshots=2)
    value, key, query = (np.asarray(run.params[name], float) for name in ("value", "key", "query"))
    squares = [np.square(rows[:, :, 0] @ features.directions) for rows in (key, query)]
    length = np.sqrt(squares[0].sum(axis=-1) * squares[1].sum(axis=-1))
    size = np.abs(value) * length
    together = np.sqrt(squares[0] * squares[1]).max(axis=-1) / length
    grown = size > 0.1 * size.max(axis=1, keepdims=True)
    return {
        "head_share": variable("grown_head", together[grown], "largest share of |k||q| on one feature"),
        "grown_heads": variable("seed", grown.sum(axis=1), "number of grown heads of a run"),
    }


def _empty_blocks(settings: Settings, mixture: TaskMixture) -> Variables:
    """Measure the largest entry outside the relevant blocks, if all D+1 entries train and these start empty."""
    rngs = nnx.Rngs(params=settings.seed)
    model = MergedAttention(settings.dim, settings.num_heads, init_scale=settings.init_scale, blocks="full", rngs=rngs)
    loss, params = make_loss(model, full_population_moments(mixture))
    inner = slice(0, settings.dim)
    start = {
        "value": jnp.zeros_like(params["value"]).at[:, -1].set(params["value"][:, -1]),
        "merged": jnp.zeros_like(params["merged"]).at[:, inner, inner].set(params["merged"][:, inner, inner]),
    }
    rate = {"learning_rate": settings.learning_rate}
    run = train(loss, start, hyperparameters=rate, num_steps=settings.num_steps, num_snapshots=2)
    value, merged = np.asarray(run.params["value"]), np.asarray(run.params["merged"]).copy()
    grown = np.abs(np.asarray(merge_model(loss.graphdef, run.params).effective_matrix())).max()
    merged[:, inner, inner] = 0.0
    empty = max(np.abs(value[:, :-1]).max(), np.abs(merged).max())
    return {
        "largest_empty": variable("", empty, "largest entry of the blocks that started empty"),
        "largest_grown": variable("", grown, "largest entry of W"),
    }


def _flat(tree: PyTree) -> np.ndarray:
    """Flatten all leaves into one array (T, numbers)."""
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


table = Statements("weights", source="notes §15")


def _largest(values: xr.DataArray) -> xr.DataArray:
    """Return the largest absolute value for each model."""
    return abs(values).groupby("model").max(..., skipna=False)


@table.at_most(
    "Step by step {case} changes v² − |k|², KKᵀ − QQᵀ and v² − ‖U‖² as derived (merged, rank 1 and 2; largest error "
    "over the largest change)",
    bound=1e-9,
    predictor=imbalance_change,
    figure="weights",
    cases=OPTIMIZERS,
)
def imbalance_changes_as_derived(data: xr.Dataset, optimizer: str) -> xr.DataArray:
    measured, predicted = (data[name].sel(optimizer=optimizer) for name in ("imbalance", "predicted_imbalance"))
    return _largest(measured - predicted) / _largest(predicted - predicted[0])


@table.agrees(
    "What the flow conserves drifts under gradient descent in proportion to η (slope, log-log)",
    atol=0.05,
    predictor=imbalance_change,
    figure="weights",
)
def drift_is_proportional_to_learning_rate(data: xr.Dataset) -> tuple[float, float]:
    return 1.0, np.polyfit(np.log(data.learning_rate), np.log(data.drift), 1)[0]


@table.at_least(
    "SAM brings unbalanced heads that hold a feature each towards balance (log of the imbalance at the start over "
    "that at the end, the least of the starts)",
    predictor=imbalance_change,
    after_measurement="which heads it speaks of was settled after a first run",
)
def sam_balances_heads_of_one_feature(data: xr.Dataset) -> xr.DataArray:
    return np.log(data.aligned_imbalance.sel(moment="start") / data.aligned_imbalance.sel(moment="end"))


@table.at_least(
    "From a random start SAM moves what the flow conserves by more than ten times what gradient descent's steps do "
    "(log of the ratio of largest changes, less ln 10; merged, rank 1 and 2)",
    source="found here",
    predictor=imbalance_change,
    figure="weights",
    after_measurement="found in a first run",
)
def sam_moves_imbalance_tenfold(data: xr.Dataset) -> xr.DataArray:
    change = data.imbalance.isel(snapshot=-1) - data.imbalance.isel(snapshot=0)
    by_gd, by_sam = (np.log(_largest(change.sel(optimizer=name))) for name in OPTIMIZERS)
    return by_sam - by_gd - np.log(10.0)


@table.at_most(
    "Blocks of value and key-query weights that touch other entries stay empty, in population (largest entry over "
    "that of W)",
    bound=1e-10,
    source="notes §2; ZSLS25",
    predictor=full_population_moments,
)
def other_blocks_stay_empty(data: xr.Dataset) -> xr.DataArray:
    return data.largest_empty / data.largest_grown


@table.at_least(
    "From small random starts nine of ten grown heads end with nine tenths of key and query on one feature, the same "
    "for both (share of the {grown_head} grown heads of {seed} runs)",
    bound=0.9,
    source="found here",
    predictor=fixed_point_strengths,
    figure="weights",
    after_measurement="found in a first run",
)
def heads_end_on_one_feature(data: xr.Dataset) -> Reading:
    return Reading((data.head_share > 0.9).mean(), compared=data.head_share.size)


CLAIM = Claim(
    "weights",
    "What do the weights look like on each plateau, what does the flow conserve, and what does SAM do to it?",
    Settings(),
    measure,
    table,
    seconds=16.0,
)
