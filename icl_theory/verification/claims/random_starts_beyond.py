"""Random starts beyond rank-one linear attention: softmax scores, heads of rank R, merged heads (theory notes, §16)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from jaxtyping import Array, PyTree

from icl_theory.analysis.learning_times import learning_times
from icl_theory.models.attention import MergedAttention
from icl_theory.models.parameters import merge_model, split_model
from icl_theory.tasks.features import Features, find_features
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.prompts import Prompts
from icl_theory.tasks.sampling import sample_prompts
from icl_theory.tasks.spectra import linear_spectrum
from icl_theory.theory.merged_dynamics import effective_head, effective_start
from icl_theory.theory.random_start_cascade import RandomStartCascade
from icl_theory.theory.reduced_loss import MergedStrength, ReducedLoss
from icl_theory.theory.softmax import softmax_cascade
from icl_theory.training.losses import PromptsLoss
from icl_theory.training.run import require_sound
from icl_theory.training.train import train_many
from icl_theory.verification.claim import Claim, Progress, part_of
from icl_theory.verification.claims.random_starts_beyond_statements import HEADS, SCORES, table
from icl_theory.verification.ensembles import random_starts, separate_model, train_starts
from icl_theory.verification.labels import MEANING, dataset, variable

PREDICTED = "the same, predicted"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Softmax: D = 2, H = 4, prompts in pairs of x_q and −x_q, float32. Rank R and merged heads: D = 4, H = 5, N = 31.

    Pairs free finite prompts of the force `E[y_q ȳ]` on values, which is 0 on infinite data. Power: 24 starts give the
    median to half the distance between quartiles (99 % interval).
    """

    num_starts: int = 24
    contexts: tuple[int, ...] = (15, 31, 63)
    softmax_dim: int = 2
    softmax_heads: int = 4
    num_pairs: int = 256
    asked_pairs: int = 64
    softmax_scale: float = 0.2
    softmax_rate: float = 0.5
    softmax_duration: float = 40.0
    dim: int = 4
    num_heads: int = 5
    num_context: int = 31
    ranks: tuple[int, ...] = (2, 4)
    rank_scale: float = 0.1
    rank_rate: float = 0.1
    rank_duration: float = 1200.0
    merged_scales: tuple[float, ...] = (0.2, 0.1, 0.05)
    merged_rate: float = 0.2
    merged_duration: float = 400.0
    seed: int = 1


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure and predict learning times of every start, for softmax scores, heads of rank R and merged heads."""
    variables: dict[str, Any] = {}
    for part, measured in enumerate((_softmax, _ranks, _merged)):
        variables |= measured(settings, part_of(progress, part, 3))
    return dataset(
        variables,
        context=list(settings.contexts),
        scores=list(SCORES),
        rank=list(settings.ranks),
        scale=list(settings.merged_scales),
        head=list(HEADS),
    )


class _Share(NamedTuple):
    """Share `E[ŷ y_d]/E[y_d²]` of each feature in a model's predictions, with `y_d = w_d x_q,d`."""

    graphdef: Any
    prompts: Prompts

    def __call__(self, params: PyTree) -> Array:
        parts = self.prompts.task_vector * self.prompts.x_query
        return merge_model(self.graphdef, params)(self.prompts) @ parts / jnp.sum(parts**2, axis=0)


def _softmax(settings: Settings, progress: Progress) -> dict[str, Any]:
    spectrum, scale = linear_spectrum(settings.softmax_dim), settings.softmax_scale
    key, count = jax.random.key(settings.seed), settings.num_starts
    measured: list[np.ndarray] = []
    predicted: list[list[np.ndarray]] = []
    for num_context in settings.contexts:
        mixture = TaskMixture.single(spectrum, num_context=num_context)
        features = find_features(mixture)
        train_key, asked_key = jax.random.split(jax.random.fold_in(key, num_context))
        prompts = _pairs(mixture, (count, settings.num_pairs), train_key)
        asked = jax.tree.map(lambda leaf: leaf[0], _pairs(mixture, (1, settings.asked_pairs), asked_key))
        for scores in SCORES:
            make = separate_model(settings.softmax_dim, settings.softmax_heads, scale, scores=scores)
            model, starts = random_starts(make, count, settings.seed)
            graphdef, _ = split_model(model)
            run = train_many(
                PromptsLoss(graphdef, prompts),
                jax.tree.map(lambda leaf: leaf.astype(jnp.float32), starts),
                loss_axes=0,
                hyperparameters={"learning_rate": settings.softmax_rate},
                num_steps=round(settings.softmax_duration / settings.softmax_rate),
                num_snapshots=81,
                track=_Share(graphdef, asked),
                progress=part_of(progress, len(measured), len(SCORES) * len(settings.contexts)),
            )
            share = np.asarray(require_sound(run).tracked, float)
            measured.append(learning_times(run.time, share / (spectrum * features.optimum)))
        cascades = (softmax_cascade(features, starts, num_context), RandomStartCascade.from_params(features, starts))
        predicted.append([cascade.learning_times(until=settings.softmax_duration) for cascade in cascades])
    shape = "context scores seed softmax_feature"
    times = np.reshape(measured, (len(settings.contexts), len(SCORES), count, -1))
    return {
        "softmax_learning_time": variable(shape, times, MEANING["learning_time"]),
        "predicted_softmax_learning_time": variable(
            shape, predicted, f"{PREDICTED} by the cascade, braked for softmax"
        ),
    }


def _pairs(mixture: TaskMixture, shape: tuple[int, int], key: Any) -> Prompts:
    """Return sets of pairs of prompts (x_q, y_q) and (−x_q, −y_q), every leaf (sets, 2 × pairs, …), in float32."""
    drawn = sample_prompts(mixture, shape[0] * shape[1], key=key)
    turned = drawn._replace(x_query=-drawn.x_query, y_query=-drawn.y_query)

    def joined(*leaves: Array) -> Array:
        both = jnp.concatenate([leaf.reshape(*shape, *leaf.shape[1:]) for leaf in leaves], axis=1)
        return both.astype(jnp.float32) if jnp.issubdtype(both.dtype, jnp.floating) else both

    return jax.tree.map(joined, drawn, turned)


def _ranks(settings: Settings, progress: Progress) -> dict[str, Any]:
    mixture, features = _four(settings)
    measured, predicted, most = [], [], []
    for part, rank in enumerate(settings.ranks):
        make = separate_model(settings.dim, settings.num_heads, settings.rank_scale, rank=rank)
        model, starts = random_starts(make, settings.num_starts, settings.seed)
        starts |= {name: starts[name] / np.sqrt(rank) for name in ("key", "query")}
        run = train_starts(
            model,
            starts,
            mixture,
            learning_rate=settings.rank_rate,
            duration=settings.rank_duration,
            num_snapshots=1500,
            progress=part_of(progress, part, len(settings.ranks)),
        )
        measured.append(learning_times(run.time, run.trajectory(features).strength / features.optimum))
        predicted.append(RandomStartCascade.from_params(features, starts).learning_times())
        last = {name: np.asarray(leaf, float) for name, leaf in run.params.items()}
        rows = (last["key"] @ features.directions) * (last["query"] @ features.directions)
        holder = np.argmax(last["value"][..., None] * rows.sum(axis=2), axis=1)  # (seed, feature)
        most.append([np.bincount(each).max() for each in holder])
    return {
        "rank_learning_time": variable("rank seed feature", measured, MEANING["learning_time"]),
        "predicted_rank_learning_time": variable("rank seed feature", predicted, f"{PREDICTED} by the cascade"),
        "most_held": variable("rank seed", most, "largest number of features of which one head has the largest part"),
    }


def _merged(settings: Settings, progress: Progress) -> dict[str, Any]:
    mixture, features = _four(settings)
    reduced = ReducedLoss(MergedStrength(), features.drive, features.curvature, features.energy)
    steps: dict[str, Any] = {"hyperparameters": {"learning_rate": settings.merged_rate}, "num_snapshots": 1000}
    steps["num_steps"] = round(settings.merged_duration / settings.merged_rate)
    balanced = np.append(1.0, features.drive / np.linalg.norm(features.drive))
    measured, predicted = [], []
    for part, scale in enumerate(settings.merged_scales):
        model, starts = random_starts(_maker(settings, scale), settings.num_starts, settings.seed)
        run = train_starts(
            model,
            starts,
            mixture,
            learning_rate=settings.merged_rate,
            duration=settings.merged_duration,
            num_snapshots=1000,
            progress=part_of(progress, part, len(settings.merged_scales)),
        )
        measured.append(learning_times(run.time, run.trajectory(features).strength / features.optimum))
        each = list(zip(np.asarray(starts["value"]), np.asarray(starts["merged"]), strict=True))
        heads = [[effective_start(*one, features) * balanced for one in each]]
        heads.append([effective_head(*one, features) for one in each])
        for begin in np.asarray(heads):  # the same steps of gradient descent, so that η makes no difference
            start = {"value": begin[:, 0], "merged": begin[:, 1:]}
            run = require_sound(train_many(reduced, start, track=MergedStrength(), **steps))
            predicted.append(learning_times(run.time, np.asarray(run.tracked, float) / features.optimum))
    shape = (len(settings.merged_scales), len(HEADS), settings.num_starts, -1)
    return {
        "merged_learning_time": variable("scale seed feature", measured, MEANING["learning_time"]),
        "predicted_merged_learning_time": variable(
            "scale head seed feature", np.reshape(predicted, shape), f"{PREDICTED} by one merged head"
        ),
        "growth": variable("", np.linalg.norm(features.drive), "‖a‖, half the rate at which merged heads first grow"),
    }


def _four(settings: Settings) -> tuple[TaskMixture, Features]:
    mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=settings.num_context)
    return mixture, find_features(mixture)


def _maker(settings: Settings, scale: float) -> Any:
    return lambda key: MergedAttention(
        settings.dim,
        settings.num_heads,
        value_scale=scale,
        key_query_scale=scale / settings.dim,
        rngs=nnx.Rngs(params=key),
    )


CLAIM = Claim(
    "random_starts_beyond",
    "Does the theory of random starts hold for softmax attention, for heads of rank R and for merged heads?",
    Settings(),
    measure,
    table,
    seconds=30.0,
)
