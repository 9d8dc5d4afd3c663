"""In-context principal component regression, which attention performs on a plateau (theory notes, §4)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from icl_theory.analysis.simplicity_bias import simplicity_bias
from icl_theory.tasks.features import Features, find_features
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.prompts import Prompts
from icl_theory.tasks.sampling import sample_prompt_chunks
from icl_theory.tasks.spectra import linear_spectrum, random_basis
from icl_theory.theory.principal_components import component_regression, plateau_predictions, regression_gap
from icl_theory.verification.changes import known_median
from icl_theory.verification.claim import Claim, Progress, part_of
from icl_theory.verification.ensembles import clear_plateaus, random_starts, separate_model, train_starts
from icl_theory.verification.judging import Reading
from icl_theory.verification.labels import dataset, variable
from icl_theory.verification.statements import Statements

REGRESSIONS = {"fixed point": plateau_predictions, "least squares": component_regression}
SHOWN = 400  # prompts whose predictions are kept for the figure


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rank one, H = 5, D = 4, default spectrum in a random basis, small random starts; contexts of growing length.

    Power: one seed's difference from least squares spreads by 4 to 14 % on the first plateau, by less on the later
    ones.
    """

    dim: int = 4
    num_heads: int = 5
    num_contexts: tuple[int, ...] = (31, 127, 511)
    num_prompts: int = 40_000
    chunk_size: int = 4000
    num_seeds: int = 16
    init_scale: float = 0.02
    learning_rate: float = 0.2
    duration: float = 15_000.0
    num_snapshots: int = 3000
    seed: int = 2


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure relative mean square differences from regression on fresh prompts; NaN if a seed has no such plateau."""
    basis = random_basis(jax.random.key(settings.seed), settings.dim)
    lengths, learned = settings.num_contexts, np.arange(1, settings.dim + 1)
    difference = np.empty((len(REGRESSIONS), len(lengths), settings.num_seeds, settings.dim))
    shown: list[np.ndarray] = []
    for place, length in enumerate(lengths):
        mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=length, basis=basis)
        features = find_features(mixture)
        model, starts = random_starts(
            separate_model(settings.dim, settings.num_heads, settings.init_scale), settings.num_seeds, settings.seed
        )
        run = train_starts(
            model,
            starts,
            mixture,
            learning_rate=settings.learning_rate,
            duration=settings.duration,
            num_snapshots=settings.num_snapshots,
            progress=part_of(progress, place, len(lengths)),
        )
        snapshots = plateau_snapshots(run.time, run.loss, simplicity_bias(run.trajectory(features), features).times)
        key = jax.random.fold_in(jax.random.key(settings.seed), place)
        sums = np.zeros((4, settings.num_seeds, settings.dim))
        for prompts in sample_prompt_chunks(mixture, settings.num_prompts, key=key, chunk_size=settings.chunk_size):
            sums += _squares(prompts, features, run.tracked, snapshots)
            shown = shown or _shown(prompts, features, run.tracked, snapshots)  # first chunk at the first length only
        difference[:, place] = np.where(snapshots >= 0, sums[:2] / sums[2:], np.nan)
    meaning = "mean square difference of attention's predictions on a plateau from a regression's, over the mean square"
    gap = [[regression_gap(int(m), n) for m in learned] for n in lengths]
    return dataset(
        {
            "difference": variable("regression num_context seed learned", difference, meaning),
            "predicted_difference": variable("num_context learned", gap, "from least squares, to leading order in 1/N"),
            "prediction": variable("learned by prompt", shown, "of y, one seed at the first context length"),
        },
        regression=list(REGRESSIONS),
        num_context=list(lengths),
        learned=learned,
        by=["attention", *REGRESSIONS],
    )


def plateau_snapshots(time: np.ndarray, losses: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the snapshot at which the loss is flattest in log-time with m features learned, (seeds, D).

    It is −1 if there is no clear plateau. With all D features learned, it is the last snapshot.
    """
    snapshots = np.full(times.shape, -1)
    slopes = np.abs(np.gradient(losses[:, 1:], np.log(time[1:]), axis=1))
    for seed, learned in enumerate(times):
        for m, before, after in clear_plateaus(learned):
            inside = 1 + np.flatnonzero((time[1:] > before) & (time[1:] < after))
            snapshots[seed, m - 1] = inside[np.argmin(slopes[seed, inside - 1])]
        if np.isfinite(learned).all():
            snapshots[seed, -1] = len(time) - 1
    return snapshots


def _squares(prompts: Prompts, features: Features, matrices: np.ndarray, snapshots: np.ndarray) -> np.ndarray:
    """Return sums of squared differences from both regressions, and sums of squares of both, (4, seeds, m)."""
    sums = np.zeros((4, *snapshots.shape))
    for m in range(1, snapshots.shape[1] + 1):
        others = [regression(prompts, features, m) for regression in REGRESSIONS.values()]
        chosen = matrices[np.arange(len(snapshots)), snapshots[:, m - 1]]
        predicted = jnp.einsum("pd,sde,pe->sp", prompts.beta, jnp.asarray(chosen), prompts.x_query)
        sums[:2, :, m - 1] = [jnp.sum((predicted - other) ** 2, axis=1) for other in others]
        sums[2:, :, m - 1] = np.asarray([jnp.sum(other**2) for other in others])[:, None]
    return sums


def _shown(prompts: Prompts, features: Features, matrices: np.ndarray, snapshots: np.ndarray) -> list[np.ndarray]:
    """Return predictions of one seed (the first with all plateaus) and of both regressions, (3, prompts) for each m."""
    complete = np.flatnonzero((snapshots >= 0).all(axis=1))
    if not complete.size:
        return [np.full((3, SHOWN), np.nan)] * snapshots.shape[1]
    few = jax.tree.map(lambda leaf: leaf[:SHOWN], prompts)
    shown = []
    for m, snapshot in enumerate(snapshots[complete[0]], start=1):
        attention = jnp.einsum("pd,de,pe->p", few.beta, jnp.asarray(matrices[complete[0], snapshot]), few.x_query)
        shown.append(np.asarray([attention, *(regression(few, features, m) for regression in REGRESSIONS.values())]))
    return shown


table = Statements("principal_components", source="notes §4")


@table.at_most(
    "On fresh prompts, the predictions at plateau m are those of regression on the first m components, shrunk as the "
    "fixed point says: mean square difference over mean square, m = 1 to 4, N = 31 to 511",
    bound=1e-3,
    source="notes §4; ZSLS25",
    predictor=plateau_predictions,
    figure="principal_components",
    after_measurement="the bound was narrowed after a first run",
)
def predictions_are_those_of_the_fixed_point(data: xr.Dataset) -> Reading:
    found = data.difference.sel(regression="fixed point").values
    fewest = np.isfinite(found).sum(axis=1).min()
    return Reading(known_median(found, axis=1), note=f"medians of at least {fewest} of {data.sizes['seed']} seeds")


@table.agrees(
    "On plateau m predictions differ from least squares on the first m components by (m + 1)/N, to leading order "
    "(N = 511)",
    rtol=0.1,
    predictor=regression_gap,
    figure="principal_components",
    after_measurement="N and the number of prompts were chosen after a first run",
)
def difference_from_least_squares_falls_as_predicted(data: xr.Dataset) -> tuple[xr.DataArray, np.ndarray]:
    longest = data.isel(num_context=-1)
    return longest.predicted_difference, known_median(longest.difference.sel(regression="least squares"))


CLAIM = Claim(
    "principal_components",
    "On plateau m, does attention predict as regression on the first m principal components does?",
    Settings(),
    measure,
    table,
    seconds=17.0,
)
