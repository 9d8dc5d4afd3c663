"""In-context and in-weight learning: some prompts share one task vector, others have random ones (notes, §13)."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

from icl_theory.models.attention import MergedAttention
from icl_theory.moments.empirical import Moments, prompt_moments
from icl_theory.moments.population_full import full_population_moments
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.sampling import sample_prompts
from icl_theory.tasks.spectra import white_spectrum
from icl_theory.theory.least_squares import best_tensor, escape_rate, tensor_loss
from icl_theory.training.losses import make_loss
from icl_theory.training.run import require_sound
from icl_theory.training.tracked import EffectiveTensor
from icl_theory.training.train import train_many
from icl_theory.verification.claim import Claim, Progress, part_of
from icl_theory.verification.ensembles import random_starts
from icl_theory.verification.labels import dataset, variable
from icl_theory.verification.statements import Statements

Pair = tuple[xr.DataArray, xr.DataArray]
TESTS = {
    "in_context": "the loss on random task vectors (in-context test)",
    "fixed": "the loss on the fixed task vector with contexts of its own",
    "in_weight": "the loss on the fixed task after contexts of noise (in-weight test)",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """White inputs, D = 4, N = 31, H = 8 merged heads with all their entries, from a small start.

    ZSLS25's setting, but that prompts of the fixed task have contexts of it at share 0 too (there: noise).
    Power: 8 seeds end at equal losses to 10⁻⁴; their growth rates spread by 0.1 %.
    """

    dim: int = 4
    num_heads: int = 8
    num_context: int = 31
    shares: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    num_seeds: int = 8
    init_scale: float = 1e-4
    learning_rate: float = 0.1
    num_steps: int = 400_000
    num_snapshots: int = 600
    noise_prompts: int = 50_000
    seed: int = 5


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure and predict training and test losses over training, for every share of random task vectors."""
    task_key, start_key, noise_key = jax.random.split(jax.random.key(settings.seed), 3)
    vector = np.asarray(jax.random.normal(task_key, (settings.dim,)))
    vector = vector * np.sqrt(settings.dim) / np.linalg.norm(vector)
    mixture = TaskMixture.single(white_spectrum(settings.dim), num_context=settings.num_context)
    fixed = mixture.with_fixed_task(1.0, vector)
    tests = [full_population_moments(mixture), full_population_moments(fixed)]
    tests.append(_noise_contexts(fixed, settings, noise_key))
    seed = int(jax.random.randint(start_key, (), 0, 2**30))
    merged = partial(MergedAttention, settings.dim, settings.num_heads, init_scale=settings.init_scale, blocks="full")
    model, starts = random_starts(lambda key: merged(rngs=nnx.Rngs(params=key)), settings.num_seeds, seed)
    snapshots = np.unique(np.geomspace(1, settings.num_steps, settings.num_snapshots).astype(int))
    parts = []
    for part, share in enumerate(settings.shares):
        moments = full_population_moments(mixture.with_fixed_task(1.0 - share, vector))
        loss, _ = make_loss(model, moments)
        run = train_many(
            loss,
            starts,
            hyperparameters={"learning_rate": settings.learning_rate},
            num_steps=settings.num_steps,
            snapshots=np.append(0, snapshots),
            track=EffectiveTensor(loss.graphdef),
            progress=part_of(progress, part, len(settings.shares)),
        )
        tensors, best = require_sound(run).tracked, best_tensor(moments)
        curves, ends = ([tensor_loss(each, test) for test in tests] for each in (tensors, best))
        rate = escape_rate(moments, settings.learning_rate)
        variables = {
            "loss": variable("seed snapshot", run.loss, "training loss"),
            "predicted_loss": variable("", tensor_loss(best, moments), "training loss at its end by least squares"),
            "test_loss": variable("test seed snapshot", curves, "loss on test prompts"),
            "predicted_test_loss": variable("test", ends, "loss on test prompts at the end by least squares"),
            "growth": variable("seed", _growth(run.time, tensors), "first rate at which ln |T| grows"),
            "predicted_growth": variable("", rate, "predicted rate of ln |T| under gradient descent"),
        }
        parts.append(dataset(variables))
    shares = variable("share", settings.shares, "share of prompts with random task vectors")
    time = variable("snapshot", run.time, "time")
    return xr.concat(parts, "share").merge(dataset({"time": time}, share=shares, test=list(TESTS)))


def _noise_contexts(fixed: TaskMixture, settings: Settings, key: jax.Array) -> Moments:
    """Return ZSLS25's in-weight test: the fixed task after noise contexts, so that only the weights can solve it."""
    prompt_key, label_key = jax.random.split(key)
    prompts = sample_prompts(fixed, settings.noise_prompts, key=prompt_key)
    return prompt_moments(prompts._replace(y=jax.random.normal(label_key, jnp.shape(prompts.y))), blocks="full")


def _growth(time: np.ndarray, tensors: np.ndarray) -> np.ndarray:
    """Return the growth rate of `ln |T|` of each seed, while |T| is between 1/10 000 and 1/100 of its final value."""
    size = np.linalg.norm(tensors, axis=-1)
    rates = []
    for curve in size:
        early = (curve > 1e-4 * curve[-1]) & (curve < 1e-2 * curve[-1])
        rates.append(np.polyfit(time[early], np.log(curve[early]), 1)[0] if early.sum() > 2 else np.nan)
    return np.asarray(rates)


table = Statements("in_weight_learning", source="notes §13")


@table.agrees(
    "For every share of random task vectors the training loss ends where least squares on the cubic features puts it "
    "(median of {seed} seeds)",
    rtol=1e-3,
    predictor=best_tensor,
)
def training_loss_ends_at_least_squares(data: xr.Dataset) -> Pair:
    return data.predicted_loss, data.loss.isel(snapshot=-1).median("seed", skipna=False)


@table.agrees(
    "For every share of random task vectors {case} ends where least squares on the cubic features puts it (median of "
    "{seed} seeds)",
    rtol=1e-3,
    predictor=best_tensor,
    figure="in_weight_learning",
    cases=TESTS,
)
def tests_end_at_least_squares(data: xr.Dataset, test: str) -> Pair:
    data = data.sel(test=test)
    return data.predicted_test_loss, data.test_loss.isel(snapshot=-1).median("seed", skipna=False)


@table.agrees(
    "From a small start the coefficients first grow at the rate that the largest singular value of the correlations "
    "with the target gives gradient descent, 2 ln(1 + 2ησ₁)/η (medians)",
    rtol=0.02,
    predictor=escape_rate,
    after_measurement="the first run showed that the rate is that of steps, and in which range it is measured",
)
def coefficients_first_grow_as_predicted(data: xr.Dataset) -> Pair:
    return data.predicted_growth, data.growth.median("seed", skipna=False)


def _mixed(data: xr.Dataset, test: str) -> xr.DataArray:
    """Return test losses for shares strictly between 0 and 1."""
    return data.test_loss.sel(test=test, share=data.share[(data.share > 0) & (data.share < 1)])


def _rise(loss: xr.DataArray) -> np.ndarray:
    """Return the log-ratio of the last loss to the lowest loss."""
    return np.log(loss.values[..., -1] / loss.values.min(axis=-1))


@table.at_least(
    "With shares between 0 and 1 in-context learning is best on the way and worse at the end by one per cent and more "
    "(log of last over lowest in-context test loss, the least of all seeds and shares)",
    bound=0.01,
    source="found here",
    predictor=tensor_loss,
    figure="in_weight_learning",
    after_measurement="found in a first run; the bound was narrowed later",
)
def in_context_learning_is_best_midway(data: xr.Dataset) -> np.ndarray:
    return _rise(_mixed(data, "in_context"))


@table.at_least(
    "With shares between 0 and 1 weights know the fixed task better on the way than at the end: the in-weight "
    "test loss rises by a fifth and more (log of last over lowest, the least of all)",
    bound=np.log(1.2),
    source="found here",
    predictor=tensor_loss,
    figure="in_weight_learning",
    after_measurement="found in a first run",
)
def weights_know_the_fixed_task_midway(data: xr.Dataset) -> np.ndarray:
    return _rise(_mixed(data, "in_weight"))


@table.at_least(
    "With shares between 0 and 1 the in-weight test loss ends no lower than 1, the loss of predicting zero (the "
    "least of all seeds and shares)",
    bound=1.0,
    predictor=tensor_loss,
    figure="in_weight_learning",
)
def weights_end_no_better_than_zero(data: xr.Dataset) -> xr.DataArray:
    return _mixed(data, "in_weight").isel(snapshot=-1)


CLAIM = Claim(
    "in_weight_learning",
    "Prompts that share one task vector among prompts that do not: what ends in context, what in the weights?",
    Settings(),
    measure,
    table,
    seconds=23.0,
)
