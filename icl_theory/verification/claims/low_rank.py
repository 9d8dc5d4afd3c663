"""Keys and queries of rank R = 1, 2, 4, 8: features per head, and waiting times between features (notes, §11)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

from icl_theory.analysis.simplicity_bias import simplicity_bias
from icl_theory.models.attention import SeparateAttention
from icl_theory.models.parameters import split_model
from icl_theory.moments.empirical import prompt_moments
from icl_theory.tasks.features import Features, find_features
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.sampling import sample_prompt_chunks
from icl_theory.tasks.spectra import linear_spectrum, random_basis
from icl_theory.theory.fixed_points import nested_plateau_losses
from icl_theory.theory.least_squares import best_tensor, tensor_loss
from icl_theory.theory.low_rank import growth_rate, head_value
from icl_theory.training.losses import make_loss
from icl_theory.training.tracked import EffectiveMatrix
from icl_theory.training.train import train
from icl_theory.verification.changes import Change, known_median, median_change
from icl_theory.verification.claim import Claim, Progress, part_of
from icl_theory.verification.ensembles import plateau_levels, random_starts, separate_model, train_starts
from icl_theory.verification.judging import Reading
from icl_theory.verification.labels import MEANING, dataset, variable
from icl_theory.verification.statements import Statements


@dataclasses.dataclass(frozen=True)
class Settings:
    """ZSLS25's setting for ranks, D = 8, N = 31, 80 000 prompts, H = 9, from a start that shows the waits.

    Keys and queries start at the same length at every rank, as there. Power: 16 seeds tell waits apart that differ by
    a factor of 1.5 to 2.
    """

    dim: int = 8
    num_heads: int = 9
    num_context: int = 31
    ranks: tuple[int, ...] = (1, 2, 4, 8)
    num_prompts: int = 80_000
    num_seeds: int = 16
    init_scale: float = 0.05
    learning_rate: float = 0.2
    duration: float = 6000.0
    num_snapshots: int = 1000
    growth_learning_rate: float = 0.01
    growth_start: float = 1e-5
    seed: int = 1


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure losses and learning times of every rank and seed, rank-one plateaus, and growth from an aligned start."""
    data_key, basis_key = jax.random.split(jax.random.key(settings.seed))
    basis = random_basis(basis_key, settings.dim)
    mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=settings.num_context, basis=basis)
    features = find_features(mixture)
    prompts = sample_prompt_chunks(mixture, settings.num_prompts, key=data_key, chunk_size=2**14)
    moments = prompt_moments(prompts, blocks="reduced")
    losses, times = [], []
    for part, rank in enumerate(settings.ranks):
        make = separate_model(settings.dim, settings.num_heads, settings.init_scale, rank=rank)
        model, starts = random_starts(make, settings.num_seeds, settings.seed)
        starts |= {name: starts[name] / np.sqrt(rank) for name in ("key", "query")}
        run = train_starts(
            model,
            starts,
            moments,
            learning_rate=settings.learning_rate,
            duration=settings.duration,
            num_snapshots=settings.num_snapshots,
            progress=part_of(progress, part, len(settings.ranks)),
        )
        losses.append(run.loss)
        times.append(simplicity_bias(run.trajectory(features), features).times)
    one, several = settings.ranks.index(1), [rank for rank in settings.ranks if rank > 1]
    levels = plateau_levels(run.time, losses[one], times[one])[:, :4]
    predicted, growth = np.asarray([_growth(features, mixture, rank, settings) for rank in several]).T
    variables = {
        "time": variable("snapshot", run.time, "time"),
        "loss": variable("rank seed snapshot", losses, "loss on the training prompts"),
        "learning_time": variable("rank seed feature", times, MEANING["learning_time"]),
        "level": variable("seed learned", levels, "loss of rank one with so many features learned; NaN for no plateau"),
        "plateau_loss": variable("plateau", nested_plateau_losses(features), "predicted, so many features learned"),
        "best_loss": variable("", tensor_loss(best_tensor(moments), moments), "least squares on the training prompts"),
        "predicted_growth": variable("head_rank", predicted, "predicted rate of ln w_R, the first R − 1 being held"),
        "growth": variable(
            "head_rank", growth, "rate of ln w_R in a head of rank R that holds the first R − 1 features"
        ),
    }
    counts = {"learned": np.arange(1, 5), "plateau": np.arange(settings.dim + 1)}
    return dataset(variables, counts, rank=list(settings.ranks), head_rank=several)


def _growth(features: Features, mixture: TaskMixture, rank: int, settings: Settings) -> tuple[float, float]:
    """Return the predicted and measured growth rate of `ln w` of feature R in a head that holds the first R − 1."""
    held = list(range(rank - 1))
    value = head_value(features, held)
    lengths = np.append(np.sqrt(features.optimum[held] / value), settings.growth_start)
    rows = jnp.asarray((features.directions[:, :rank] * lengths).T)[None]
    model = SeparateAttention(settings.dim, 1, rank=rank, rngs=nnx.Rngs(0))
    loss, _ = make_loss(model, mixture)
    predicted = growth_rate(features, held, rank - 1)
    run = train(
        loss,
        {"value": jnp.asarray([value]), "key": rows, "query": rows},
        hyperparameters={"learning_rate": settings.growth_learning_rate},
        num_steps=round(5.0 / predicted / settings.growth_learning_rate),
        num_snapshots=100,
        track=EffectiveMatrix(split_model(model)[0]),
    )
    strength = features.strength(run.tracked)[:, rank - 1]
    return predicted, float(np.polyfit(run.time, np.log(strength), 1)[0])


def relative_waits(times: xr.DataArray) -> np.ndarray:
    """Return `ln(t_(m+1)/t_(m))` for learning times in ascending order, (…, D−1); NaN if both are infinite."""
    ordered = np.sort(times, axis=-1)
    with np.errstate(invalid="ignore"):
        return np.log(ordered[..., 1:] / ordered[..., :-1])


def _full_against_free(times: xr.DataArray, rank: int) -> np.ndarray:
    """Return the log-ratio of mean waits after every R-th feature and after others; NaN unless all six are finite."""
    waits = relative_waits(times)[:, :6]
    waits = np.where(np.isfinite(waits), waits, np.nan)
    full = np.arange(1, 7) % rank == 0
    return np.log(np.mean(waits[:, full], axis=1) / np.mean(waits[:, ~full], axis=1))


START = "the start was chosen after a first run, so that training shows its waits"
table = Statements("low_rank", source="notes §11; ZSLS25")


@table.agrees(
    "Rank one, D = 8, 80 000 prompts: the first four plateaus lie at the predicted losses",
    rtol=0.02,
    source="notes §4",
    predictor=nested_plateau_losses,
    figure="low_rank",
    after_measurement=START,
)
def rank_one_rests_at_predicted_losses(data: xr.Dataset) -> Reading:
    seen = int(np.isfinite(data.level).sum("seed").min())
    note = f"medians, at least {seen} of {data.sizes['seed']} seeds"
    return Reading(known_median(data.level), data.plateau_loss.sel(plateau=data.learned), note=note)


@table.agrees(
    "In a free rank of a head that holds the first R − 1 features, the next grows at the rate 4 v a_R (R = 2, 4, 8)",
    rtol=0.01,
    source="notes §11",
    predictor=growth_rate,
)
def next_feature_grows_in_a_free_rank(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return data.predicted_growth, data.growth


@table.at_least(
    "Rank {case}: training waits longer where heads are full than rank 8 does at the same features (ln of the "
    "wait after every {case} features over the others, less that of rank 8, first six features)",
    bound=0.01,  # excludes ranks that do not differ
    predictor=growth_rate,
    figure="low_rank",
    cases=("2", "4"),
    after_measurement=f"{START}; the bound, so that equal ranks do not pass",
)
def full_heads_wait_longer_at_rank(data: xr.Dataset, rank: str) -> Change:
    waits = [_full_against_free(data.learning_time.sel(rank=trained), int(rank)) for trained in (int(rank), 8)]
    return median_change(waits[0] - waits[1])


@table.at_least(
    "Rank above one brings the sixth feature sooner than rank one does (change of ln t_6)",
    bound=0.01,
    source="found here",
    predictor=simplicity_bias,
    figure="low_rank",
    after_measurement=f"found in a first run; {START}",
)
def higher_ranks_learn_the_sixth_sooner(data: xr.Dataset) -> list[Change]:
    one, *several = np.sort(data.learning_time.sel(rank=[1, 2, 4, 8]), axis=-1)[..., 5]
    with np.errstate(invalid="ignore"):
        return [median_change(np.log(one / sixth)) for sixth in several]


@table.at_least(
    "Rank above one lowers simplicity bias: t_6/t_1 is smaller than at rank one (change of its log)",
    bound=0.01,
    source="found here",
    predictor=simplicity_bias,
    figure="low_rank",
    after_measurement=f"found in a first run; {START}",
)
def higher_ranks_lower_simplicity_bias(data: xr.Dataset) -> list[Change]:
    ordered = np.sort(data.learning_time.sel(rank=[1, 2, 4, 8]), axis=-1)
    with np.errstate(invalid="ignore"):
        one, *several = np.log(ordered[..., 5] / ordered[..., 0])
        return [median_change(one - ratio) for ratio in several]


@table.agrees(
    "Ranks 2, 4 and 8 end at the least-squares optimum of the data (medians)",
    rtol_of_largest=1e-3,
    source="notes §9",
    predictor=best_tensor,
    figure="low_rank",
    after_measurement=START,
)
def higher_ranks_end_at_least_squares(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return data.best_loss, data.loss.sel(rank=[2, 4, 8]).isel(snapshot=-1).median("seed", skipna=False)


CLAIM = Claim(
    "low_rank",
    "How do heads of rank R = 1, 2, 4, 8 learn: how many features at a time, how soon, and down to which loss?",
    Settings(),
    measure,
    table,
    seconds=13.0,
)
