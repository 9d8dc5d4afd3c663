"""J. Training over many context lengths, and what a model does at lengths it was not trained on (theory notes, §12)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from icl_theory.analysis import simplicity_bias
from icl_theory.features import Features, find_features
from icl_theory.prompts import sample_prompts
from icl_theory.spectra import linear_spectrum, random_basis
from icl_theory.tasks import TaskDistribution, TaskMixture
from icl_theory.theory.fixed_points import nested_plateau_losses
from icl_theory.theory.population import population_loss, population_moments
from icl_theory.verification.claim import Claim, Data, part_of
from icl_theory.verification.ensembles import plateau_levels, random_starts, separate_model, train_starts
from icl_theory.verification.paired import known_median
from icl_theory.verification.statement import Statement, agrees_each, at_least, within_standard_errors


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
    """The default task, equally often at each of the lengths."""
    groups = [
        TaskDistribution.create(linear_spectrum(settings.dim), num_context=length, basis=basis) for length in lengths
    ]
    return TaskMixture.create(groups, np.full(len(groups), 1.0 / len(groups)))


def measure(settings: Settings, progress) -> Data:
    """Losses and strengths of both trainings; the loss of their ends on fresh prompts of every asked length."""
    basis = np.asarray(random_basis(jax.random.key(settings.seed), settings.dim))
    trained = {"one": (settings.num_context,), "many": tuple(range(1, settings.num_context + 1))}
    eigenvalues = linear_spectrum(settings.dim)
    data: Data = {"asked": np.asarray(settings.asked)}
    matrices = {}
    for part, (name, lengths) in enumerate(trained.items()):
        mixture = at_lengths(settings, lengths, basis)
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
            progress=part_of(progress, part, 2),
        )
        times = simplicity_bias(run.trajectory(features), features).times
        ends = run.tracked[np.isfinite(times).all(axis=1), -1]
        if name == "many":
            data |= {
                "many_time": run.time,
                "many_loss": run.loss,
                "many_levels": plateau_levels(run.time, run.loss, times),
                "many_plateau_losses": nested_plateau_losses(features),
            }
        data |= {
            f"{name}_ends": np.asarray(len(ends)),
            f"{name}_predicted": np.asarray([_loss_at(settings, features, n, basis) for n in settings.asked]),
            f"{name}_endless": np.sum(eigenvalues * (1 - eigenvalues * features.optimum) ** 2),
        }
        data[f"{name}_population"] = np.asarray([_losses(settings, ends, n, basis) for n in settings.asked])
        matrices[name] = ends
    return data | _asked(settings, matrices, basis)


def _loss_at(settings: Settings, features: Features, length: int, basis: np.ndarray) -> float:
    """The population loss at another length of the optimum of a training distribution."""
    return float(find_features(at_lengths(settings, (length,), basis)).loss(features.optimum))


def _losses(settings: Settings, matrices: np.ndarray, length: int, basis: np.ndarray) -> np.ndarray:
    """The population loss of every trained W at another length, (seeds,)."""
    moments = population_moments(at_lengths(settings, (length,), basis))
    return np.asarray(jax.vmap(lambda matrix: population_loss(matrix, moments))(jnp.asarray(matrices)))


def _asked(settings: Settings, matrices: dict[str, np.ndarray], basis: np.ndarray) -> Data:
    """Square errors of both trainings (means over their runs) on the same fresh prompts of each length, and of their difference."""
    squares: dict[str, list[np.ndarray]] = {name: [] for name in matrices}
    for index, length in enumerate(settings.asked):
        key = jax.random.fold_in(jax.random.key(settings.seed + 1), index)
        prompts = sample_prompts(at_lengths(settings, (length,), basis), settings.num_prompts, key=key)
        beta, query, target = (np.asarray(part, float) for part in (prompts.beta, prompts.x_query, prompts.y_query))
        for name, ends in matrices.items():
            errors = [(target - np.einsum("pd,de,pe->p", beta, matrix, query)) ** 2 for matrix in ends]
            squares[name].append(np.mean(errors, axis=0))
    found = {name: np.asarray(values) for name, values in squares.items()} | {
        "difference": np.asarray(squares["many"]) - np.asarray(squares["one"])
    }
    data: Data = {}
    for name, values in found.items():
        data[f"{name}_mean"] = values.mean(axis=1)
        data[f"{name}_error"] = values.std(axis=1) / np.sqrt(settings.num_prompts)
    return data


def statements(data: Data) -> list[Statement]:
    """J1 to J6."""
    code, source = "icl_theory.theory.fixed_points.nested_plateau_losses", "notes §12"
    asked, longest = list(data["asked"]), int(np.flatnonzero(data["asked"] == 31)[0])
    table = [
        agrees_each(
            "J1",
            "Trained on the mean over context lengths 1 to 31, plateaus lie at the losses predicted for that mixture "
            f"(medians, at least {int(np.isfinite(data['many_levels']).sum(axis=0).min())} of {len(data['many_loss'])} seeds)",
            source="notes §12; ZSLS25",
            code=code,
            predicted=data["many_plateau_losses"][1:-1],
            measured=known_median(data["many_levels"]),
            tolerance=0.02,
            figure="context_lengths",
        )
    ]
    for number, (name, words) in enumerate((("one", "at length 31"), ("many", "over lengths 1 to 31")), start=2):
        table.append(
            within_standard_errors(
                f"J{number}",
                f"Trained {words}, the loss on fresh prompts of {len(asked)} lengths from {asked[0]} to {asked[-1]} is the predicted one",
                source=source,
                code="icl_theory.features.Features.loss",
                predicted=data[f"{name}_predicted"],
                mean=data[f"{name}_mean"],
                standard_error=data[f"{name}_error"],
                figure="context_lengths",
            )
        )
    gap, error = data["difference_mean"], data["difference_error"]
    for number, chosen, sign, words in (
        (4, [i for i, n in enumerate(asked) if n <= 8], -1.0, "lower on contexts of 1 to 8"),
        (5, [i for i, n in enumerate(asked) if i >= longest], 1.0, "higher on contexts of 31 and more"),
    ):
        worst = min(chosen, key=lambda i: sign * gap[i] / error[i])
        table.append(
            at_least(
                f"J{number}",
                f"Trained over lengths 1 to 31 the loss is {words}, than trained at 31 alone (difference, the least clear of "
                f"{len(chosen)}, with 4 standard errors)",
                source=source,
                code="icl_theory.features.Features.loss",
                bound=0.0,
                measured=sign * gap[worst],
                interval=tuple(sign * gap[worst] + 4.0 * error[worst] * np.array([-1.0, 1.0])),
                count=len(chosen),
                figure="context_lengths",
            )
        )
    table.append(
        agrees_each(
            "J6",
            "The population loss of the trained W at every one of these lengths is the predicted one, both trainings (medians of "
            f"{int(data['one_ends'])} and {int(data['many_ends'])} runs that learned every feature)",
            source=source,
            code="icl_theory.features.Features.loss",
            predicted=np.concatenate([data["one_predicted"], data["many_predicted"]]),
            measured=np.concatenate([known_median(data[f"{name}_population"], axis=1) for name in ("one", "many")]),
            tolerance=1e-3,
            figure="context_lengths",
        )
    )
    return table


CLAIM = Claim(
    "J",
    "context_lengths",
    "Context lengths",
    "What does training over many context lengths change, and what is the loss at lengths never trained on?",
    Settings(),
    measure,
    statements,
    single=False,
)
