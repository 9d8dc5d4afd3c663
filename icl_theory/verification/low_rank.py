"""I. Keys and queries of rank R = 1, 2, 4, 8: how many features a head takes, and how long training waits (notes, §11)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from icl_theory.analysis import simplicity_bias
from icl_theory.attention import SeparateAttention, split_model
from icl_theory.features import Features, find_features
from icl_theory.losses import EffectiveMatrix, make_loss
from icl_theory.moments import prompt_moments
from icl_theory.prompts import sample_prompt_chunks
from icl_theory.spectra import linear_spectrum, random_basis
from icl_theory.tasks import TaskMixture
from icl_theory.theory.fixed_points import nested_plateau_losses
from icl_theory.theory.least_squares import best_tensor, tensor_loss
from icl_theory.theory.low_rank import growth_rate, head_value
from icl_theory.training import train
from icl_theory.verification.claim import Claim, Data, part_of
from icl_theory.verification.ensembles import plateau_levels, random_starts, separate_model, train_starts
from icl_theory.verification.paired import known_median, median_change, worst_change
from icl_theory.verification.statement import Statement, agrees, agrees_each, at_least


@dataclasses.dataclass(frozen=True)
class Settings:
    """ZSLS25's setting for ranks, D = 8, N = 31, 80 000 prompts, H = 9, from a start that shows the waits.

    Keys and queries start at the same length at every rank, as there. Power: 16 seeds tell waits apart that differ by a factor
    of 1.5 to 2.
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


def measure(settings: Settings, progress) -> Data:
    """Losses, learning times and plateau levels of every rank and seed; growth in one head from an aligned start."""
    data_key, basis_key = jax.random.split(jax.random.key(settings.seed))
    mixture = TaskMixture.single(
        linear_spectrum(settings.dim),
        num_context=settings.num_context,
        basis=random_basis(basis_key, settings.dim),
    )
    features = find_features(mixture)
    prompts = sample_prompt_chunks(mixture, settings.num_prompts, key=data_key, chunk_size=2**14)
    moments = prompt_moments(prompts, blocks="reduced")
    data: Data = {
        "plateau_losses": nested_plateau_losses(features),
        "best_loss": np.asarray(tensor_loss(best_tensor(moments), moments)),
    }
    parts = len(settings.ranks)
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
            progress=part_of(progress, part, parts),
        )
        trajectory = run.trajectory(features)
        bias = simplicity_bias(trajectory, features)
        data |= {
            "time": trajectory.time,
            f"loss_{rank}": trajectory.loss,
            f"times_{rank}": bias.times,
        }
        if rank == 1:
            data["levels_1"] = plateau_levels(trajectory.time, trajectory.loss, bias.times)[:, :4]
    rates = [_growth(features, mixture, rank, settings) for rank in settings.ranks if rank > 1]
    data["predicted_growth"], data["measured_growth"] = np.asarray(rates).T
    return data


def _growth(features: Features, mixture: TaskMixture, rank: int, settings: Settings) -> tuple[float, float]:
    """Rate of `ln w` of feature R in a head that holds the first R − 1: predicted, and of the full model."""
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


def relative_waits(times: np.ndarray) -> np.ndarray:
    """`ln(t_(m+1)/t_(m))` between the m-th and the next feature in order of learning; (seeds, D−1), NaN at the end."""
    ordered = np.sort(times, axis=1)
    with np.errstate(invalid="ignore"):
        return np.log(ordered[:, 1:] / ordered[:, :-1])


def full_against_free(times: np.ndarray, rank: int) -> np.ndarray:
    """Log of the mean wait after every R features over the mean of the others, first six waits; NaN if not all were seen."""
    waits = relative_waits(times)[:, :6]
    waits = np.where(np.isfinite(waits), waits, np.nan)
    full = np.arange(1, 7) % rank == 0
    return np.log(np.mean(waits[:, full], axis=1) / np.mean(waits[:, ~full], axis=1))


def statements(data: Data) -> list[Statement]:
    """I1 to I7."""
    here, source = "found here", "notes §11; ZSLS25"
    levels = known_median(data["levels_1"])
    table = [
        agrees_each(
            "I1",
            "Rank one, D = 8, 80 000 prompts: the first four plateaus lie at the predicted losses "
            f"(medians, at least {int(np.isfinite(data['levels_1']).sum(axis=0).min())} of {len(data['levels_1'])} seeds)",
            source="notes §4",
            code="icl_theory.theory.fixed_points.nested_plateau_losses",
            predicted=data["plateau_losses"][1:5],
            measured=levels,
            tolerance=0.02,
            figure="low_rank",
        ),
        agrees_each(
            "I2",
            "In a free rank of a head that holds the first R − 1 features, the next grows at the rate 4 v a_R (R = 2, 4, 8)",
            source="notes §11",
            code="icl_theory.theory.low_rank.growth_rate",
            predicted=data["predicted_growth"],
            measured=data["measured_growth"],
            tolerance=0.01,
        ),
    ]
    for number, rank in ((3, 2), (4, 4)):
        change = full_against_free(data[f"times_{rank}"], rank) - full_against_free(data["times_8"], rank)
        table.append(
            worst_change(
                at_least,
                f"I{number}",
                f"Rank {rank}: training waits longer after every {rank} features, when heads are full, than rank 8 does there "
                "(first six features; log of the ratio of mean waits ln(t_next/t) there and in between, minus that of rank 8, by seed)",
                [median_change(change)],
                bound=0.01,  # ranks that do not differ must not pass
                source=source,
                code="icl_theory.theory.low_rank.growth_rate",
                figure="low_rank",
            )
        )
    sixth = {rank: np.sort(data[f"times_{rank}"], axis=1)[:, 5] for rank in (1, 2, 4, 8)}
    with np.errstate(invalid="ignore"):
        sooner = [median_change(np.log(sixth[1] / sixth[rank])) for rank in (2, 4, 8)]
    table.append(
        worst_change(
            at_least,
            "I5",
            "Rank above one brings the sixth feature sooner than rank one does (change of ln t_6)",
            sooner,
            bound=0.01,
            source=here,
            code="icl_theory.analysis.simplicity_bias",
            figure="low_rank",
        )
    )
    first = {rank: data[f"times_{rank}"].min(axis=1) for rank in sixth}
    with np.errstate(invalid="ignore"):
        ratio = {rank: np.log(sixth[rank] / first[rank]) for rank in sixth}
        lower = [median_change(ratio[1] - ratio[rank]) for rank in (2, 4, 8)]
    table.append(
        worst_change(
            at_least,
            "I6",
            "Rank above one lowers simplicity bias: t_6/t_1 is smaller than at rank one (change of its log)",
            lower,
            bound=0.01,
            source=here,
            code="icl_theory.analysis.simplicity_bias",
            figure="low_rank",
        )
    )
    ends = np.asarray([np.median(data[f"loss_{rank}"][:, -1]) for rank in (2, 4, 8)])
    table.append(
        agrees(
            "I7",
            "Ranks 2, 4 and 8 end at the least-squares optimum of the data (medians)",
            source="notes §9",
            code="icl_theory.theory.least_squares.best_tensor",
            predicted=np.full(3, data["best_loss"]),
            measured=ends,
            tolerance=1e-3,
            figure="low_rank",
        )
    )
    return table


CLAIM = Claim(
    "I",
    "low_rank",
    "Keys and queries of rank R",
    "How do heads of rank R = 1, 2, 4, 8 learn: how many features at a time, how soon, and down to which loss?",
    Settings(),
    measure,
    statements,
    single=False,
)
