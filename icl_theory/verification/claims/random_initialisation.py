"""Gradient descent from random starts: order of learning, plateaus, learning-time ratios (theory notes, §4 to §7)."""

from __future__ import annotations

import dataclasses

import numpy as np
import xarray as xr

from icl_theory.analysis.intervals import median_interval
from icl_theory.analysis.simplicity_bias import simplicity_bias
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.spectra import linear_spectrum
from icl_theory.theory.fixed_points import nested_plateau_losses
from icl_theory.theory.random_start_cascade import RandomStartCascade
from icl_theory.training.gradient_descent import gd
from icl_theory.verification.changes import CONFIDENCE, Change, known_median, typical_error
from icl_theory.verification.claim import Claim, Progress, part_of
from icl_theory.verification.ensembles import plateau_levels, random_starts, separate_model, train_ensemble
from icl_theory.verification.judging import Reading
from icl_theory.verification.labels import bias_variables, dataset, variable
from icl_theory.verification.statements import Statements

STARTS = ("notes", "small")
ALLOWED = {"notes": (0.02, 0.08, 0.1, 0.2), "small": (0.02, 0.02, 0.02, 0.04)}  # errors of learning times, by feature


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rank one, H = 5, D = 4; a small start shows clean plateaus, the notes' start is the one of their table.

    Power: 64 seeds give the level of a plateau to 2·10⁻⁵ of it (99 % interval of the median).
    """

    dim: int = 4
    num_heads: int = 5
    num_context: int = 31
    num_seeds: int = 64
    init_scale: float = 0.1
    learning_rate: float = 0.02
    duration: float = 2500.0
    small_init_scale: float = 0.02
    small_learning_rate: float = 0.1
    small_duration: float = 15_000.0
    num_snapshots: int = 1500
    seed: int = 1


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure losses and strengths of every seed, from the notes' initial scale and from a smaller one."""
    mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=settings.num_context)
    starts_of = {
        "notes": (settings.init_scale, settings.learning_rate, settings.duration),
        "small": (settings.small_init_scale, settings.small_learning_rate, settings.small_duration),
    }
    parts = []
    for part, (scale, rate, duration) in enumerate(starts_of.values()):
        model, starts = random_starts(
            separate_model(settings.dim, settings.num_heads, scale), settings.num_seeds, settings.seed
        )
        trajectory, features = train_ensemble(
            model,
            starts,
            mixture,
            optimizer=gd,
            learning_rate=rate,
            duration=duration,
            num_snapshots=settings.num_snapshots,
            progress=part_of(progress, part, len(starts_of)),
        )
        bias = simplicity_bias(trajectory._replace(strength=trajectory.strength[0]), features)
        levels = plateau_levels(trajectory.time, trajectory.loss[0], bias.times)
        strength = (trajectory.strength[0] / features.optimum).astype(np.float32)
        variables = {
            "time": variable("snapshot", trajectory.time, "time"),
            "loss": variable("seed snapshot", trajectory.loss[0], "population loss"),
            "strength": variable("seed snapshot feature", strength, "w_d / w_d*"),
            "level": variable(
                "seed learned", levels, "loss on the plateau with so many features learned; NaN for none"
            ),
            **bias_variables(bias, "seed"),
            "predicted_learning_time": variable(
                "seed feature",
                RandomStartCascade.from_params(features, starts).learning_times(until=duration),
                "the same by theory, from the start alone",
            ),
        }
        parts.append(dataset(variables, learned=np.arange(1, settings.dim)))
    data = xr.concat(parts, xr.Variable("start", list(STARTS)))
    theory = {
        "plateau_loss": variable(
            "plateau", nested_plateau_losses(features), "predicted loss, so many features learned"
        ),
        "drive": variable("feature", features.drive, "a_d"),
    }
    return dataset({**data.data_vars, **theory}, data.coords, plateau=np.arange(settings.dim + 1))


table = Statements("random_initialisation", source="notes §4")


@table.at_least(
    "From small random initialisation all features are learned, in the order of their drives (share of seeds)",
    bound=0.9,
    predictor=simplicity_bias,
    figure="feature_strengths",
)
def learned_in_the_order_of_their_drives(data: xr.Dataset) -> float:
    times = data.learning_time.sel(start="small").values
    with np.errstate(invalid="ignore"):
        in_order = np.isfinite(times).all(axis=1) & np.all(np.diff(times, axis=1) > 0, axis=1)
    return float(in_order.mean())


@table.agrees(
    "The plateau with {case} of 4 features learned lies at the predicted loss",
    rtol_of_largest=0.02,
    predictor=nested_plateau_losses,
    figure="loss_plateaus",
    cases=("1", "2", "3"),
)
def plateau_lies_at_the_predicted_loss(data: xr.Dataset, learned: str) -> Reading:
    levels = data.level.sel(start="small", learned=int(learned)).values
    levels = levels[np.isfinite(levels)]
    median, low, high = median_interval(levels, confidence=CONFIDENCE)
    predicted = data.plateau_loss.sel(plateau=int(learned))
    return Reading(median, predicted, interval=(low, high), note=f"median of {len(levels)} seeds")


@table.agrees(
    "Where all features are learned, the last loss is that of the optimum (median over seeds)",
    rtol_of_largest=0.01,
    source="notes §3",
    predictor=nested_plateau_losses,
    figure="loss_plateaus",
)
def last_loss_is_that_of_the_optimum(data: xr.Dataset) -> tuple[xr.DataArray, float]:
    small = data.sel(start="small")
    complete = np.isfinite(small.learning_time).all("feature").values
    return data.plateau_loss.isel(plateau=-1), float(np.median(small.loss.values[complete, -1]))


@table.at_least(
    "At the larger initial scale of the notes' table the order is still simple first (Kendall's τ, median)",
    bound=1.0,
    source="notes §7",
    predictor=simplicity_bias,
)
def still_simple_first_from_a_larger_start(data: xr.Dataset) -> Reading:
    agreement = data.rank_agreement.sel(start="notes").fillna(-1.0)  # a run that learns nothing counts as disagreement
    median, low, high = median_interval(agreement.values, confidence=CONFIDENCE)
    return Reading(median, interval=(low, high))


@table.at_most(
    "Learning times are predicted start by start, from the start alone, entries of v, k, q of size {case} (median "
    "error over starts, in units of the allowed, worst of 4 features)",
    bound=1.0,
    source="notes §16",
    predictor=RandomStartCascade,
    figure="random_starts",
    cases={"notes": "0.1, 0.05, 0.05; allowed 2, 8, 10 and 20 %", "small": "0.02, 0.01, 0.01; allowed 2, 2, 2 and 4 %"},
)
def learning_times_of_every_start_are_predicted(data: xr.Dataset, start: str) -> list[Change]:
    case = data.sel(start=start)
    return [error.over(allowed) for error, allowed in zip(_errors(case), ALLOWED[start], strict=True)]


@table.at_least(
    "Predicted and measured learning times rise and fall together over starts, entries {case} (correlation of ln t_d, "
    "least of 4 features)",
    bound=0.8,
    source="notes §16",
    predictor=RandomStartCascade,
    figure="random_starts",
    cases={"notes": "0.1, 0.05, 0.05", "small": "0.02, 0.01, 0.01"},
)
def predictions_follow_the_start(data: xr.Dataset, start: str) -> np.ndarray:
    case = data.sel(start=start)
    logs = np.log([case.predicted_learning_time.values.T, case.learning_time.values.T])  # (2, D, seeds)
    learned = np.asarray(np.isfinite(logs).all(axis=0))
    return np.asarray([np.corrcoef(logs[:, d, known])[0, 1] for d, known in enumerate(learned)])


@table.agrees(
    "Medians of t_2/t_1, t_3/t_1 and t_4/t_1 over starts are predicted, entries 0.02, 0.01, 0.01",
    rtol=0.05,
    source="notes §16",
    predictor=RandomStartCascade,
    figure="random_starts",
)
def medians_of_ratios_are_predicted(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    small = data.sel(start="small")
    predicted, measured = (
        known_median(times[:, 1:] / times[:, :1])
        for times in (small.predicted_learning_time.values, small.learning_time.values)
    )
    return predicted, measured


@table.at_most(
    "The error of predicted learning times falls with the initial scale: at a fifth of it the median error is below "
    "half (features 2 to 4, largest share)",
    bound=0.5,
    source="notes §16",
    predictor=RandomStartCascade,
    figure="random_starts",
)
def error_falls_with_the_start(data: xr.Dataset) -> np.ndarray:
    notes, small = ([error.median for error in _errors(data.sel(start=start))] for start in STARTS)
    return np.divide(small, notes)[1:]


def _errors(case: xr.Dataset) -> list[Change]:
    """Return the typical relative error of predicted learning times, for each feature."""
    times = (case.predicted_learning_time.values.T, case.learning_time.values.T)
    return [typical_error(predicted, measured) for predicted, measured in zip(*times, strict=True)]


CLAIM = Claim(
    "random_initialisation",
    "From random starts, are features learned simple first, and at the predicted plateau losses?",
    Settings(),
    measure,
    table,
    single=True,
    seconds=9.0,
)
