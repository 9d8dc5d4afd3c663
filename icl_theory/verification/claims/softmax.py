"""Order of learning and learning-time ratios of softmax and linear attention, under GD and SAM (theory notes, §14)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from jaxtyping import PyTree

from icl_theory.analysis.simplicity_bias import bias_of_fractions
from icl_theory.models.attention import MergedAttention, SeparateAttention
from icl_theory.models.parameters import merge_model, split_model
from icl_theory.tasks.features import find_features
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.prompts import Prompts
from icl_theory.tasks.sampling import sample_prompt_chunks, sample_prompts
from icl_theory.tasks.spectra import linear_spectrum
from icl_theory.theory.softmax import small_weight_drive
from icl_theory.training.gradient_descent import gd
from icl_theory.training.losses import PromptsLoss, make_loss
from icl_theory.training.run import require_sound
from icl_theory.training.sam import sam
from icl_theory.training.train import train_many
from icl_theory.verification.changes import Change, log_change, median_change
from icl_theory.verification.claim import Claim, Progress, part_of
from icl_theory.verification.ensembles import all_parameters, random_starts, separate_model
from icl_theory.verification.labels import bias_variables, dataset, variable
from icl_theory.verification.statements import Statements

OPTIMIZERS = {"gd": "gradient descent", "sam": "SAM"}
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


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure losses on training and fresh prompts, and the share of every feature in the predictions.

    Dimensions are (scores, optimizer, seed), followed by snapshot and feature if they apply.
    """
    start_key, data_key, asked_key, drive_key = jax.random.split(jax.random.key(settings.seed), 4)
    mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=settings.num_context)
    features = find_features(mixture)
    seeds = range(settings.num_seeds)
    sets = [sample_prompts(mixture, settings.num_prompts, key=jax.random.fold_in(data_key, seed)) for seed in seeds]
    prompts = _single(jax.tree.map(lambda *leaves: jnp.stack(leaves), *sets))
    asked = _single(sample_prompts(mixture, settings.asked_prompts, key=asked_key))
    start_seed = int(jax.random.randint(start_key, (), 0, 2**30))
    drives = _initial_drives(settings, mixture, drive_key)
    rates, num_steps = {"learning_rate": settings.learning_rate}, round(settings.duration / settings.learning_rate)
    snapshots = np.unique(np.geomspace(1, num_steps, settings.num_snapshots).astype(int))
    cells: list[Any] = []
    for scores in SCORES:
        make = separate_model(settings.dim, settings.num_heads, settings.init_scale, scores=scores)
        model, starts = random_starts(make, settings.num_seeds, start_seed)
        graphdef, _ = split_model(model)
        for name in OPTIMIZERS:
            run = train_many(
                PromptsLoss(graphdef, prompts),
                _single(starts),
                loss_axes=0,
                optimizer=sam if name == "sam" else gd,
                hyperparameters=rates | ({"rho": settings.rho} if name == "sam" else {}),
                num_steps=num_steps,
                snapshots=np.append(0, snapshots),
                track=all_parameters,
                progress=part_of(progress, len(cells), len(SCORES) * len(OPTIMIZERS)),
            )
            cells.append((run.loss, *_asked(graphdef, require_sound(run).tracked, asked)))
    loss, share, held_out = (np.reshape(part, (2, 2, *part[0].shape)) for part in zip(*cells, strict=True))
    predicted_drive = small_weight_drive(features, settings.num_context)
    optimum = linear_spectrum(settings.dim) * features.optimum
    by_run = "scores optimizer seed"
    variables = {
        "time": variable("snapshot", run.time, "time"),
        "loss": variable(f"{by_run} snapshot", loss, "training loss"),
        "held_out_loss": variable(f"{by_run} snapshot", held_out, "loss on fresh prompts"),
        "share": variable(f"{by_run} snapshot feature", share, "E[ŷ y_d] / E[y_d²], λ_d w_d for linear scores"),
        **bias_variables(bias_of_fractions(run.time, share / optimum, features.drive), by_run),
        "optimum": variable("feature", optimum, "λ_d w_d*, the share at linear attention's optimum"),
        "drive": variable("feature", features.drive, "a_d"),
        "initial_drive": variable("chunk feature", drives, "−½ ∂L/∂U / v at vanishing weights, softmax"),
        "predicted_initial_drive": variable("feature", predicted_drive, "a_d (N/(N+1))²"),
    }
    return dataset(variables, scores=list(SCORES), optimizer=list(OPTIMIZERS))


def _single(tree: PyTree) -> Any:
    """Cast to float32, whatever the session's precision; it suffices here and takes half the time."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def _asked(graphdef: Any, tracked: Any, prompts: Prompts) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of each feature in the predictions, (seeds, T, D), and the loss on fresh prompts, (seeds, T).

    The target is a sum of features, `y_q = Σ_d y_d` with `y_d = w_d x_q,d`; the share of one is `E[ŷ y_d]/E[y_d²]`,
    which is `λ_d w_d` for linear attention.
    """
    parts = prompts.task_vector * prompts.x_query

    @jax.jit
    def ask(params: PyTree) -> tuple[jax.Array, jax.Array]:
        predicted = merge_model(graphdef, params)(prompts)
        return predicted @ parts / jnp.sum(parts**2, axis=0), jnp.mean((prompts.y_query - predicted) ** 2)

    count, snapshots = jax.tree.leaves(tracked)[0].shape[:2]
    flat = jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(-1, *leaf.shape[2:]), tracked)
    shares, losses = jax.lax.map(ask, flat)
    return np.asarray(shares, float).reshape(count, snapshots, -1), np.asarray(losses, float).reshape(count, snapshots)


def _initial_drives(settings: Settings, mixture: TaskMixture, key: Any) -> list[np.ndarray]:
    """Return `−½ ∂L/∂U / v` along each feature at vanishing weights, for each chunk of prompts."""
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
    return drives


table = Statements("softmax", source="found here")
FOUND: dict[str, Any] = {"figure": "softmax", "after_measurement": "found in a first run"}


@table.agrees(
    "At vanishing weights softmax attention is driven as linear attention is, times (N/(N+1))²",
    standard_errors=4.0,
    source="notes §14",
    predictor=small_weight_drive,
)
def initial_drive_is_nearly_the_linear_one(data: xr.Dataset) -> tuple[np.ndarray, ...]:
    drives = data.initial_drive.values
    error = np.std(drives, axis=0, ddof=1) / np.sqrt(len(drives))
    return data.predicted_initial_drive.values, np.mean(drives, axis=0), error


@table.at_least(
    "Softmax attention learns simple features first under {case} (Kendall's τ of learning order and drives)",
    bound=0.5,
    predictor=bias_of_fractions,
    cases=OPTIMIZERS,
    **FOUND,
)
def simple_features_come_first(data: xr.Dataset, optimizer: str) -> Change:
    agreement = data.rank_agreement.sel(scores="softmax", optimizer=optimizer)
    return median_change(agreement.fillna(-1.0))  # a run that learns nothing counts as disagreement


@table.at_least(
    "SAM lowers t_3/t_1 and t_4/t_1 of softmax attention, paired by seed (change of the log)",
    bound=0.01,
    predictor=bias_of_fractions,
    **FOUND,
)
def sam_lowers_learning_time_ratios(data: xr.Dataset) -> list[Change]:
    ratio = data.learning_time_ratio.sel(scores="softmax")
    return [log_change(*(ratio.sel(optimizer=name, feature=d) for name in ("gd", "sam"))) for d in (3, 4)]


@table.at_least(
    "Softmax attention fits its prompts better than linear attention does in the same time (log of the ratio of "
    "training losses, GD and SAM)",
    predictor=SeparateAttention,
    **FOUND,
)
def softmax_fits_its_prompts_better(data: xr.Dataset) -> list[Change]:
    last = data.loss.isel(snapshot=-1)
    return [median_change(better) for better in np.log(last.sel(scores="linear") / last.sel(scores="softmax"))]


CLAIM = Claim(
    "softmax",
    "Does the order of learning survive in softmax attention, under gradient descent and SAM?",
    Settings(),
    measure,
    table,
    seconds=34.0,
)
