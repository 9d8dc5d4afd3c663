"""Training over many context lengths, and the loss at lengths that were not trained on (theory notes, §12)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from icl_theory.analysis.simplicity_bias import simplicity_bias
from icl_theory.moments.population import population_loss, population_moments
from icl_theory.tasks.features import Features, find_features
from icl_theory.tasks.mixture import TaskDistribution, TaskMixture
from icl_theory.tasks.sampling import sample_prompts
from icl_theory.tasks.spectra import linear_spectrum, random_basis
from icl_theory.theory.fixed_points import nested_plateau_losses
from icl_theory.verification.changes import known_median
from icl_theory.verification.claim import Claim, Progress, part_of
from icl_theory.verification.ensembles import plateau_levels, random_starts, separate_model, train_starts
from icl_theory.verification.judging import Reading
from icl_theory.verification.labels import LOSS, dataset, variable
from icl_theory.verification.statements import Statements

TRAINED = {"one_length": "at length 31", "many_lengths": "over lengths 1 to 31"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rank one, H = 5, D = 4, the default spectrum; trained at N = 31 or at all of 1 … 31, asked at other lengths.

    Power: four standard errors of the difference of two losses are 0.01 to 0.03.
    """

    dim: int = 4
    num_heads: int = 5
    num_context: int = 31
    asked: tuple[int, ...] = (1, 2, 4, 8, 16, 31, 64, 128, 256, 1024)
    num_prompts: int = 20_000
    num_seeds: int = 16
    init_scale: float = 0.02
    learning_rate: float = 0.2
    duration: float = 20_000.0
    num_snapshots: int = 1500
    seed: int = 1


def at_lengths(settings: Settings, lengths: range | tuple[int, ...], basis: np.ndarray) -> TaskMixture:
    """Return the default task with each of the context lengths in equal shares."""
    groups = [
        TaskDistribution.create(linear_spectrum(settings.dim), num_context=length, basis=basis) for length in lengths
    ]
    return TaskMixture.create(groups, np.full(len(groups), 1.0 / len(groups)))


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure losses of both trainings, and of their final models at every test length, also on fresh prompts."""
    basis = np.asarray(random_basis(jax.random.key(settings.seed), settings.dim))
    eigenvalues = linear_spectrum(settings.dim)
    matrices, parts = [], []
    for part, shortest in enumerate((settings.num_context, 1)):
        mixture = at_lengths(settings, range(shortest, settings.num_context + 1), basis)
        model, starts = random_starts(
            separate_model(settings.dim, settings.num_heads, settings.init_scale), settings.num_seeds, settings.seed
        )
        features = find_features(mixture)
        run = train_starts(
            model,
            starts,
            mixture,
            learning_rate=settings.learning_rate,
            duration=settings.duration,
            num_snapshots=settings.num_snapshots,
            progress=part_of(progress, part, len(TRAINED)),
        )
        times = simplicity_bias(run.trajectory(features), features).times
        complete = np.isfinite(times).all(axis=1)
        matrices.append(run.tracked[complete, -1])
        population = np.full((settings.num_seeds, len(settings.asked)), np.nan)
        population[complete] = np.transpose([_losses(settings, matrices[-1], n, basis) for n in settings.asked])
        predicted = [_loss_at(settings, features, n, basis) for n in settings.asked]
        endless = np.sum(eigenvalues * (1 - eigenvalues * features.optimum) ** 2)
        levels = plateau_levels(run.time, run.loss, times)
        variables = {
            "loss": variable("seed snapshot", run.loss, "loss over training, mean over the lengths trained at"),
            "level": variable("seed learned", levels, "that with so many features learned; NaN for no plateau"),
            "plateau_loss": variable("plateau", nested_plateau_losses(features), "predicted, so many features learned"),
            "predicted_end_loss": variable("length", predicted, "predicted loss of the end of training at a length"),
            "endless_loss": variable("", endless, "predicted loss of the end of training where N → ∞"),
            "end_loss": variable("seed length", population, "population loss; NaN where not all features were learned"),
        }
        parts.append(dataset(variables))
    variables = {"time": variable("snapshot", run.time, "time"), **_asked(settings, matrices, basis)}
    counts = {"learned": np.arange(1, settings.dim), "plateau": np.arange(settings.dim + 1)}
    of_both = dataset(variables, counts, trained=list(TRAINED), length=list(settings.asked))
    return xr.concat(parts, "trained").merge(of_both)


def _loss_at(settings: Settings, features: Features, length: int, basis: np.ndarray) -> float:
    """Return the population loss, at another context length, of the optimum of a training distribution."""
    return float(find_features(at_lengths(settings, (length,), basis)).loss(features.optimum))


def _losses(settings: Settings, matrices: np.ndarray, length: int, basis: np.ndarray) -> np.ndarray:
    """Return the population loss of every trained W at another context length, (seeds,)."""
    moments = population_moments(at_lengths(settings, (length,), basis))
    return np.asarray(jax.vmap(lambda matrix: population_loss(matrix, moments))(jnp.asarray(matrices)))


def _asked(settings: Settings, matrices: list[np.ndarray], basis: np.ndarray) -> dict[str, tuple[Any, ...]]:
    """Return the mean loss over runs of both trainings on the same fresh prompts of each length, and the difference."""
    squares: list[list[np.ndarray]] = []
    for index, length in enumerate(settings.asked):
        key = jax.random.fold_in(jax.random.key(settings.seed + 1), index)
        prompts = sample_prompts(at_lengths(settings, (length,), basis), settings.num_prompts, key=key)
        beta, query, target = (np.asarray(part, float) for part in (prompts.beta, prompts.x_query, prompts.y_query))
        errors = [[(target - np.einsum("pd,de,pe->p", beta, end, query)) ** 2 for end in ends] for ends in matrices]
        squares.append([np.mean(each, axis=0) for each in errors])
    fresh, variables = np.swapaxes(squares, 0, 1), {}
    for name, dims, values, words in (
        ("fresh_loss", "trained length", fresh, "loss on fresh prompts"),
        ("difference", "length", fresh[1] - fresh[0], "the same, trained over many lengths − at one"),
    ):
        error = values.std(axis=-1) / np.sqrt(settings.num_prompts)
        variables[name] = variable(dims, values.mean(axis=-1), words, LOSS)
        variables[f"{name}_error"] = variable(dims, error, "its standard error", LOSS)
    return variables


table = Statements("context_lengths", source="notes §12")


@table.agrees(
    "Trained on the mean over context lengths 1 to 31, plateaus lie at the losses predicted for that mixture",
    rtol=0.02,
    source="notes §12; ZSLS25",
    predictor=nested_plateau_losses,
    figure="context_lengths",
)
def plateaus_lie_at_the_mixture_losses(data: xr.Dataset) -> Reading:
    many = data.sel(trained="many_lengths")
    seen = int(np.isfinite(many.level).sum("seed").min())
    note = f"medians, at least {seen} of {data.sizes['seed']} seeds"
    return Reading(known_median(many.level), many.plateau_loss.sel(plateau=many.learned), note=note)


@table.agrees(
    "Trained {case}, the loss on fresh prompts of {length} lengths from 1 to 1024 is the predicted one",
    standard_errors=4.0,
    predictor=Features.loss,
    figure="context_lengths",
    cases=TRAINED,
)
def fresh_loss_is_as_predicted_after(data: xr.Dataset, trained: str) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    data = data.sel(trained=trained)
    return data.predicted_end_loss, data.fresh_loss, data.fresh_loss_error


@table.at_least(
    "Trained over lengths 1 to 31, the loss is {case} than trained at 31 alone",
    predictor=Features.loss,
    figure="context_lengths",
    cases={"short_contexts": "lower on contexts of 1 to 8", "long_contexts": "higher on contexts of 31 and more"},
)
def training_lengths_change_the_loss_on(data: xr.Dataset, contexts: str) -> Reading:
    sign, asked = (-1.0, slice(None, 8)) if contexts == "short_contexts" else (1.0, slice(31, None))
    gap, error = sign * data.difference.sel(length=asked).values, data.difference_error.sel(length=asked).values
    worst = np.argmin(gap / error)
    interval = tuple(gap[worst] + 4.0 * error[worst] * np.array([-1.0, 1.0]))
    note = f"difference, the least clear of {gap.size}, with 4 standard errors"
    return Reading(gap[worst], interval=interval, compared=gap.size, note=note)


@table.agrees(
    "The population loss of the trained W is the predicted one at each of {length} lengths, trained at 31 or "
    "over lengths 1 to 31",
    rtol=1e-3,
    predictor=Features.loss,
    figure="context_lengths",
)
def population_loss_is_as_predicted(data: xr.Dataset) -> Reading:
    one, many = np.isfinite(data.end_loss).all("length").sum("seed").values
    note = f"medians of {one} and {many} runs that learned every feature"
    return Reading(known_median(data.end_loss, axis=1), data.predicted_end_loss, note=note)


CLAIM = Claim(
    "context_lengths",
    "What does training over many context lengths change, and what is the loss at lengths never trained on?",
    Settings(),
    measure,
    table,
    seconds=15.0,
)
