"""M. The weights themselves: what the flow conserves in every head, and which blocks stay empty (theory notes, §15)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from icl_theory.analysis import learning_times
from icl_theory.attention import MergedAttention, SeparateAttention, merge_model
from icl_theory.features import find_features
from icl_theory.losses import make_loss
from icl_theory.run import snapshot_schedule
from icl_theory.sharpness import gd, sam
from icl_theory.spectra import linear_spectrum, random_basis
from icl_theory.tasks import TaskMixture
from icl_theory.theory.balance import imbalance, imbalance_change
from icl_theory.theory.gaussian_moments import full_population_moments
from icl_theory.training import train, train_many
from icl_theory.verification.claim import Claim, Data
from icl_theory.verification.ensembles import all_parameters, random_starts, separate_model
from icl_theory.verification.statement import Statement, agrees, at_least, at_most

STEP_BY_STEP = {
    "merged": lambda dim, heads, scale, rngs: MergedAttention(dim, heads, init_scale=scale, rngs=rngs),
    "rank 1": lambda dim, heads, scale, rngs: SeparateAttention(dim, heads, init_scale=scale, rngs=rngs),
    "rank 2": lambda dim, heads, scale, rngs: SeparateAttention(dim, heads, rank=2, init_scale=scale, rngs=rngs),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """D = 4, N = 31, default spectrum in a random basis; H = 5. The pictures start from smaller weights.

    Power: 64 grown heads of 16 runs give a share of nine tenths to ± 10 % (99 % interval); the drift's order comes from four rates.
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


def measure(settings: Settings, progress) -> Data:
    """Imbalance step by step, its drift against η, weights at the plateaus, and the largest entry of empty blocks."""
    basis = random_basis(jax.random.key(settings.seed), settings.dim)
    mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=settings.num_context, basis=basis)
    parts = (_step_by_step, _drift, _aligned, _pictures, _heads, _empty_blocks)
    data: Data = {}
    for done, part in enumerate(parts, start=1):
        data |= part(settings, mixture)
        progress(done, len(parts))
    return data


def _step_by_step(settings: Settings, mixture: TaskMixture) -> Data:
    """Predicted and measured change of the imbalance, summed up to each step, for three models under GD and SAM."""
    data: Data = {}
    for name, make in STEP_BY_STEP.items():
        model = make(settings.dim, settings.num_heads, settings.init_scale, nnx.Rngs(params=settings.seed))
        loss, params = make_loss(model, mixture)
        for optimizer, rho in (("gd", 0.0), ("sam", settings.rho)):
            run = train(
                loss,
                params,
                optimizer=sam if rho else gd,
                hyperparameters={"learning_rate": settings.learning_rate} | ({"rho": rho} if rho else {}),
                num_steps=settings.num_steps,
                snapshots=np.arange(settings.num_steps + 1),
                track=all_parameters,
            )
            states = jax.tree.map(jnp.asarray, run.tracked)
            measured = _flat(jax.vmap(imbalance)(states))
            change = partial(imbalance_change, loss, learning_rate=settings.learning_rate, rho=rho)
            steps = _flat(jax.jit(jax.vmap(change))(jax.tree.map(lambda leaf: leaf[:-1], states)))
            predicted = measured[0] + np.concatenate([np.zeros_like(steps[:1]), np.cumsum(steps, axis=0)])
            keep = slice(None, None, 10)
            data |= {
                "time": run.time[keep],
                f"{name}_{optimizer}_measured": measured[keep],
                f"{name}_{optimizer}_predicted": predicted[keep],
            }
    return data


def _drift(settings: Settings, mixture: TaskMixture) -> Data:
    """Largest change of the imbalance after a fixed time, for several learning rates of gradient descent."""
    make = STEP_BY_STEP["rank 1"]
    model = make(settings.dim, settings.num_heads, settings.init_scale, nnx.Rngs(params=settings.seed))
    loss, params = make_loss(model, mixture)
    before = _flat(jax.tree.map(lambda leaf: leaf[None], imbalance(params)))[0]
    drifts = []
    for rate in settings.drift_rates:
        num_steps = round(settings.drift_duration / rate)
        run = train(loss, params, hyperparameters={"learning_rate": rate}, num_steps=num_steps, num_snapshots=2)
        after = _flat(jax.tree.map(lambda leaf: leaf[None], imbalance(run.params)))[0]
        drifts.append(np.abs(after - before).max())
    slope = np.polyfit(np.log(settings.drift_rates), np.log(drifts), 1)[0]
    return {
        "drift_rates": np.asarray(settings.drift_rates),
        "drifts": np.asarray(drifts),
        "drift_slope": np.asarray(slope),
    }


def _aligned(settings: Settings, mixture: TaskMixture) -> Data:
    """Size of the imbalance before and after SAM, of heads that each hold one feature and start unbalanced."""
    features, dim = find_features(mixture), settings.dim
    loss, _ = make_loss(STEP_BY_STEP["rank 1"](dim, dim, 0.1, nnx.Rngs(0)), mixture)
    shape = (3, settings.aligned_starts, dim)
    lengths = settings.aligned_scale * jax.random.uniform(
        jax.random.key(settings.seed), shape, float, minval=0.5, maxval=1.5
    )
    rows = [(length[:, :, None] * jnp.asarray(features.directions.T))[:, :, None] for length in lengths[1:]]
    starts = {"value": lengths[0], "key": rows[0], "query": rows[1]}
    run = train_many(
        loss,
        starts,
        optimizer=sam,
        hyperparameters={"learning_rate": settings.learning_rate, "rho": settings.rho},
        num_steps=settings.aligned_steps,
        num_snapshots=2,
    )
    sizes = [np.linalg.norm(_flat(jax.vmap(imbalance)(params)), axis=1) for params in (starts, run.params)]
    return {"aligned_before": sizes[0], "aligned_after": sizes[1]}


def _pictures(settings: Settings, mixture: TaskMixture) -> Data:
    """Value, keys and queries in the features' basis, at the start, half-way between learning times, and at the end."""
    features = find_features(mixture)
    make = STEP_BY_STEP["rank 1"]
    model = make(settings.dim, settings.num_heads, settings.picture_scale, nnx.Rngs(params=settings.seed))
    loss, params = make_loss(model, mixture)
    num_steps = round(settings.picture_duration / settings.picture_rate)
    run = train(
        loss,
        params,
        hyperparameters={"learning_rate": settings.picture_rate},
        num_steps=num_steps,
        snapshots=snapshot_schedule(num_steps, 3001),
        track=all_parameters,
    )
    value, key, query = (np.asarray(run.tracked[name], float) for name in ("value", "key", "query"))
    key, query = (rows[:, :, 0] @ features.directions for rows in (key, query))
    strength = np.einsum("th,thd,thd->td", value, key, query)
    times = learning_times(run.time, strength / features.optimum)
    learned = np.sort(times[np.isfinite(times)])
    moments = [0.0, *np.sqrt(learned[:-1] * learned[1:]), run.time[-1]]
    looks = np.searchsorted(run.time, moments).clip(max=len(run.time) - 1)
    return {
        "picture_time": run.time[looks],
        "picture_value": value[looks],
        "picture_key": key[looks],
        "picture_query": query[looks],
        "picture_strength": strength[looks] / features.optimum,
    }


def _heads(settings: Settings, mixture: TaskMixture) -> Data:
    """How much of |k||q| of each grown head (above a tenth of its run's largest) lies on one feature at the end, all runs together."""
    features = find_features(mixture)
    model, starts = random_starts(
        separate_model(settings.dim, settings.num_heads, settings.picture_scale), settings.num_seeds, settings.seed
    )
    loss, _ = make_loss(model, mixture)
    run = train_many(
        loss,
        starts,
        hyperparameters={"learning_rate": settings.picture_rate},
        num_steps=round(settings.picture_duration / settings.picture_rate),
        num_snapshots=2,
    )
    value = np.abs(np.asarray(run.params["value"], float))
    squares = [
        np.square(np.asarray(run.params[name], float)[:, :, 0] @ features.directions) for name in ("key", "query")
    ]
    lengths = [square.sum(axis=-1) for square in squares]
    size = value * np.sqrt(lengths[0] * lengths[1])
    together = np.sqrt(squares[0] * squares[1]).max(axis=-1) / np.sqrt(lengths[0] * lengths[1])
    grown = size > 0.1 * size.max(axis=1, keepdims=True)
    return {"head_share": together[grown], "grown_heads": grown.sum(axis=1)}


def _empty_blocks(settings: Settings, mixture: TaskMixture) -> Data:
    """Train all D+1 entries from a start in which only those that matter are not zero; the others' largest entry."""
    model = MergedAttention(
        settings.dim,
        settings.num_heads,
        init_scale=settings.init_scale,
        blocks="full",
        rngs=nnx.Rngs(params=settings.seed),
    )
    loss, params = make_loss(model, full_population_moments(mixture))
    inner = slice(0, settings.dim)
    start = {
        "value": jnp.zeros_like(params["value"]).at[:, -1].set(params["value"][:, -1]),
        "merged": jnp.zeros_like(params["merged"]).at[:, inner, inner].set(params["merged"][:, inner, inner]),
    }
    run = train(
        loss,
        start,
        hyperparameters={"learning_rate": settings.learning_rate},
        num_steps=settings.num_steps,
        num_snapshots=2,
    )
    value, merged = np.asarray(run.params["value"]), np.asarray(run.params["merged"]).copy()
    grown = np.abs(np.asarray(merge_model(loss.graphdef, run.params).effective_matrix())).max()
    merged[:, inner, inner] = 0.0
    return {
        "empty": np.asarray(max(np.abs(value[:, :-1]).max(), np.abs(merged).max())),
        "grown": np.asarray(grown),
    }


def _flat(tree: Any) -> np.ndarray:
    """(T, everything)."""
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def statements(data: Data) -> list[Statement]:
    """M1 to M7."""
    code, source = "icl_theory.theory.balance.imbalance_change", "notes §15"
    table = []
    for number, (optimizer, words) in enumerate((("gd", "gradient descent"), ("sam", "SAM")), start=1):
        errors = []
        for name in STEP_BY_STEP:
            measured, predicted = (data[f"{name}_{optimizer}_{kind}"] for kind in ("measured", "predicted"))
            errors.append(np.abs(measured - predicted).max() / np.abs(predicted - predicted[0]).max())
        table.append(
            at_most(
                f"M{number}",
                f"Step by step {words} changes v² − |k|², KKᵀ − QQᵀ and v² − ‖U‖² as derived "
                "(merged, rank 1 and 2; largest error over the largest change)",
                source=source,
                code=code,
                bound=1e-9,
                measured=max(errors),
                figure="weights",
            )
        )
    table.append(
        agrees(
            "M3",
            "What the flow conserves drifts under gradient descent in proportion to η (slope, log-log)",
            source=source,
            code=code,
            predicted=1.0,
            measured=data["drift_slope"],
            tolerance=0.05,
            relative=False,
            figure="weights",
        )
    )
    moved = [
        np.log(np.abs(np.diff(data[f"{name}_sam_measured"][[0, -1]], axis=0)).max())
        - np.log(np.abs(np.diff(data[f"{name}_gd_measured"][[0, -1]], axis=0)).max())
        for name in STEP_BY_STEP
    ]
    shrinking = np.log(data["aligned_before"] / data["aligned_after"])
    table += [
        at_least(
            "M4",
            "SAM brings unbalanced heads that hold a feature each towards balance "
            "(log of the imbalance at the start over that at the end, the least of the starts)",
            source=source,
            code=code,
            bound=0.0,
            measured=float(shrinking.min()),
            count=shrinking.size,
        ),
        at_least(
            "M5",
            "From a random start SAM moves what the flow conserves by ten times what gradient descent's steps do, and more "
            "(log of the ratio of largest changes, less ln 10; merged, rank 1 and 2)",
            source="found here",
            code=code,
            bound=0.0,
            measured=float(min(moved) - np.log(10.0)),
            count=len(moved),
            figure="weights",
        ),
        at_most(
            "M6",
            "Blocks of value and key-query weights that touch other entries stay empty, in population (largest entry over that of W)",
            source="notes §2; ZSLS25",
            code="icl_theory.theory.gaussian_moments.full_population_moments",
            bound=1e-10,
            measured=float(data["empty"] / data["grown"]),
        ),
        at_least(
            "M7",
            "From small random starts nine of ten grown heads end with nine tenths of key and query on one feature, the same for both "
            f"(share of the {data['head_share'].size} grown heads of {data['grown_heads'].size} runs)",
            source="found here",
            code="icl_theory.theory.fixed_points.fixed_point_strengths",
            bound=0.9,
            measured=float((data["head_share"] > 0.9).mean()),
            count=data["head_share"].size,
            figure="weights",
        ),
    ]
    return table


CLAIM = Claim(
    "M",
    "weights",
    "Weights and what the flow conserves",
    "What do the weights look like on each plateau, what does the flow conserve, and what does SAM do to it?",
    Settings(),
    measure,
    statements,
    single=False,
)
