"""L. Softmax attention with the same settings, under GD and SAM: does the order of learning survive? (notes, §14)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from icl_theory.analysis import SimplicityBias, bias_of_fractions
from icl_theory.attention import MergedAttention, merge_model, split_model
from icl_theory.features import find_features
from icl_theory.losses import PromptsLoss, make_loss
from icl_theory.prompts import Prompts, sample_prompt_chunks, sample_prompts
from icl_theory.run import require_sound
from icl_theory.sharpness import gd, sam
from icl_theory.spectra import linear_spectrum
from icl_theory.tasks import TaskMixture
from icl_theory.theory.softmax import small_weight_drive
from icl_theory.training import train_many
from icl_theory.verification.claim import Claim, Data, part_of
from icl_theory.verification.ensembles import all_parameters, random_starts, separate_model
from icl_theory.verification.paired import median_change, worst_change
from icl_theory.verification.statement import Statement, at_least, within_standard_errors

OPTIMIZERS = ("gd", "sam")
SCORES = ("softmax", "linear")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rank one, H = 5, D = 4, N = 31 as for linear attention; each seed has its own start and prompts; float32.

    Power: 8 seeds show an order of learning and the sign of a change of its ratios, not its size.
    """

    dim: int = 4
    num_heads: int = 5
    num_context: int = 31
    num_prompts: int = 256
    num_seeds: int = 8
    init_scale: float = 0.1
    rho: float = 0.05
    learning_rate: float = 0.5
    duration: float = 1000.0
    num_snapshots: int = 120
    asked_prompts: int = 2000
    drive_prompts: int = 200_000
    seed: int = 1


def measure(settings: Settings, progress) -> Data:
    """Training and held-out loss and the share of every feature in the predictions, linear and softmax, GD and SAM."""
    start_key, data_key, asked_key, drive_key = jax.random.split(jax.random.key(settings.seed), 4)
    mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=settings.num_context)
    features = find_features(mixture)
    seeds = range(settings.num_seeds)
    sets = [sample_prompts(mixture, settings.num_prompts, key=jax.random.fold_in(data_key, seed)) for seed in seeds]
    prompts = _single(jax.tree.map(lambda *leaves: jnp.stack(leaves), *sets))
    asked = _single(sample_prompts(mixture, settings.asked_prompts, key=asked_key))
    start_seed = int(jax.random.randint(start_key, (), 0, 2**30))
    data: Data = {"drive": features.drive} | _initial_drive(settings, mixture, drive_key)
    parts = len(SCORES) * len(OPTIMIZERS)
    for place, scores in enumerate(SCORES):
        make = separate_model(settings.dim, settings.num_heads, settings.init_scale, scores=scores)
        model, starts = random_starts(make, settings.num_seeds, start_seed)
        graphdef, _ = split_model(model)
        for index, name in enumerate(OPTIMIZERS):
            part = place * len(OPTIMIZERS) + index
            extra = {"rho": settings.rho} if name == "sam" else {}
            num_steps = round(settings.duration / settings.learning_rate)
            looks = np.unique(np.geomspace(1, num_steps, settings.num_snapshots).astype(int))
            run = train_many(
                PromptsLoss(graphdef, prompts),
                _single(starts),
                loss_axes=0,
                optimizer=sam if name == "sam" else gd,
                hyperparameters={"learning_rate": settings.learning_rate, **extra},
                num_steps=num_steps,
                snapshots=np.append(0, looks),
                track=all_parameters,
                progress=part_of(progress, part, parts),
            )
            shares, held_out = _asked(graphdef, require_sound(run).tracked, asked)
            data |= {
                "time": run.time,
                f"{scores}_{name}_loss": run.loss,
                f"{scores}_{name}_held_out": held_out,
                f"{scores}_{name}_shares": shares,
            }
    data["optimum"] = linear_spectrum(settings.dim) * features.optimum  # λ_d w_d*
    return data


def _single(tree: Any) -> Any:
    """In float32, whatever the session's precision: softmax has no statement that needs more, and takes half the time."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def _asked(graphdef: Any, tracked: Any, prompts: Prompts) -> tuple[np.ndarray, np.ndarray]:
    """Share of each feature in the predictions, (seeds, T, D), and the loss on fresh prompts, (seeds, T).

    The target is a sum of features, `y_q = Σ_d y_d` with `y_d = w_d x_q,d`; the share of one is `E[ŷ y_d]/E[y_d²]`, which is
    `λ_d w_d` for linear attention.
    """
    parts = prompts.task_vector * prompts.x_query

    @jax.jit
    def ask(params):
        predicted = merge_model(graphdef, params)(prompts)
        return predicted @ parts / jnp.sum(parts**2, axis=0), jnp.mean((prompts.y_query - predicted) ** 2)

    count, looks = jax.tree.leaves(tracked)[0].shape[:2]
    flat = jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(-1, *leaf.shape[2:]), tracked)
    shares, losses = jax.lax.map(ask, flat)
    return np.asarray(shares, float).reshape(count, looks, -1), np.asarray(losses, float).reshape(count, looks)


def _initial_drive(settings: Settings, mixture: TaskMixture, key: Any) -> Data:
    """`−½ ∂L/∂U / v` along each feature at vanishing weights, mean and standard error over chunks of prompts."""
    model = MergedAttention(settings.dim, 1, scores="softmax", rngs=nnx.Rngs(params=key))
    value = 1e-3
    params = {
        "value": jnp.asarray([value], jnp.float32),
        "merged": jnp.zeros((1, settings.dim, settings.dim), jnp.float32),
    }
    chunks = sample_prompt_chunks(mixture, settings.drive_prompts, key=key, chunk_size=settings.drive_prompts // 20)
    drives = []
    for prompts in chunks:
        loss, _ = make_loss(model, _single(prompts))
        drives.append(np.diag(np.asarray(jax.grad(loss)(params)["merged"][0], float)) / (-2.0 * value))
    return {
        "initial_drive": np.mean(drives, axis=0),
        "initial_drive_error": np.std(drives, axis=0, ddof=1) / np.sqrt(len(drives)),
        "initial_drive_predicted": small_weight_drive(find_features(mixture), settings.num_context),
    }


def bias(data: Data, scores: str, optimizer: str) -> SimplicityBias:
    """Learning times of the features: when each has half the share that linear attention's optimum gives it."""
    fraction = data[f"{scores}_{optimizer}_shares"] / data["optimum"]
    return bias_of_fractions(data["time"], fraction, data["drive"])


def statements(data: Data) -> list[Statement]:
    """L1 to L5."""
    here, code = "found here", "icl_theory.analysis.bias_of_fractions"
    found = {(scores, name): bias(data, scores, name) for scores in SCORES for name in OPTIMIZERS}
    table = [
        within_standard_errors(
            "L1",
            "At vanishing weights softmax attention is driven as linear attention, times (N/(N+1))²",
            source="notes §14",
            code="icl_theory.theory.softmax.small_weight_drive",
            predicted=data["initial_drive_predicted"],
            mean=data["initial_drive"],
            standard_error=data["initial_drive_error"],
        )
    ]
    for number, (name, words) in enumerate((("gd", "gradient descent"), ("sam", "SAM")), start=2):
        agreement = np.nan_to_num(found["softmax", name].rank_agreement, nan=-1.0)
        table.append(
            worst_change(
                at_least,
                f"L{number}",
                f"Softmax attention learns simple features first under {words} (Kendall's τ of learning order and drives)",
                [median_change(agreement)],
                bound=0.5,
                source=here,
                code=code,
                figure="softmax",
            )
        )
    with np.errstate(invalid="ignore"):
        ratios = {key: np.log(value.ratios) for key, value in found.items()}
        lowered = [median_change((ratios["softmax", "gd"] - ratios["softmax", "sam"])[:, d]) for d in (2, 3)]
    better = [np.log(data[f"linear_{name}_loss"][:, -1] / data[f"softmax_{name}_loss"][:, -1]) for name in OPTIMIZERS]
    table += [
        worst_change(
            at_least,
            "L4",
            "SAM lowers t_3/t_1 and t_4/t_1 of softmax attention, paired by seed (change of the log)",
            lowered,
            bound=0.01,
            source=here,
            code=code,
            figure="softmax",
        ),
        worst_change(
            at_least,
            "L5",
            "Softmax attention fits its prompts better than linear attention does in the same time "
            "(log of the ratio of training losses, GD and SAM)",
            [median_change(change) for change in better],
            source=here,
            code="icl_theory.attention.SeparateAttention",
            figure="softmax",
        ),
    ]
    return table


CLAIM = Claim(
    "L",
    "softmax",
    "Softmax attention",
    "Does the order of learning survive in softmax attention, under gradient descent and SAM?",
    Settings(),
    measure,
    statements,
    single=False,
)
