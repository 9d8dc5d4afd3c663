"""K. In-context against in-weight learning: prompts that share one task vector among prompts that do not (notes, §13)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from icl_theory.attention import MergedAttention
from icl_theory.losses import EffectiveTensor, make_loss
from icl_theory.moments import Moments, prompt_moments
from icl_theory.prompts import sample_prompts
from icl_theory.run import require_sound
from icl_theory.spectra import white_spectrum
from icl_theory.tasks import TaskMixture
from icl_theory.theory.gaussian_moments import full_population_moments
from icl_theory.theory.least_squares import best_tensor, escape_rate, tensor_loss
from icl_theory.training import train_many
from icl_theory.verification.claim import Claim, Data, part_of
from icl_theory.verification.ensembles import random_starts
from icl_theory.verification.statement import Statement, agrees_each, at_least


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


def measure(settings: Settings, progress) -> Data:
    """Training loss and both test losses over training, and their predictions, for every share of random task vectors."""
    task_key, start_key, noise_key = jax.random.split(jax.random.key(settings.seed), 3)
    vector = np.asarray(jax.random.normal(task_key, (settings.dim,)))
    vector = vector * np.sqrt(settings.dim) / np.linalg.norm(vector)
    mixture = TaskMixture.single(white_spectrum(settings.dim), num_context=settings.num_context)
    fixed = mixture.with_fixed_task(1.0, vector)
    tests = {
        "in_context": full_population_moments(mixture),
        "fixed": full_population_moments(fixed),
        "in_weight": _noise_contexts(fixed, settings, noise_key),
    }
    make = lambda key: MergedAttention(  # noqa: E731
        settings.dim, settings.num_heads, init_scale=settings.init_scale, blocks="full", rngs=nnx.Rngs(params=key)
    )
    model, starts = random_starts(make, settings.num_seeds, int(jax.random.randint(start_key, (), 0, 2**30)))
    snapshots = np.unique(np.geomspace(1, settings.num_steps, settings.num_snapshots).astype(int))
    found: dict[str, list[np.ndarray]] = {}
    parts = len(settings.shares)
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
            progress=part_of(progress, part, parts),
        )
        tensors, best = require_sound(run).tracked, best_tensor(moments)
        values = {"train": run.loss, "train_predicted": tensor_loss(best, moments)}
        for name, test in tests.items():
            values |= {name: tensor_loss(tensors, test), f"{name}_predicted": tensor_loss(best, test)}
        rate = escape_rate(moments, settings.learning_rate)
        values |= {"growth": _growth(run.time, tensors), "growth_predicted": np.asarray(rate)}
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: np.asarray(values) for name, values in found.items()} | {
        "time": run.time,
        "shares": np.asarray(settings.shares),
    }


def _noise_contexts(fixed: TaskMixture, settings: Settings, key: jax.Array) -> Moments:
    """ZSLS25's in-weight test, the fixed task asked after contexts of noise: only weights can know the answer."""
    prompt_key, label_key = jax.random.split(key)
    prompts = sample_prompts(fixed, settings.noise_prompts, key=prompt_key)
    return prompt_moments(prompts._replace(y=jax.random.normal(label_key, jnp.shape(prompts.y))), blocks="full")


def _growth(time: np.ndarray, tensors: np.ndarray) -> np.ndarray:
    """Rate of `ln |T|` between 1/10 000 and 1/100 of its last length, per seed."""
    size = np.linalg.norm(tensors, axis=-1)
    rates = []
    for curve in size:
        early = (curve > 1e-4 * curve[-1]) & (curve < 1e-2 * curve[-1])
        rates.append(np.polyfit(time[early], np.log(curve[early]), 1)[0] if early.sum() > 2 else np.nan)
    return np.asarray(rates)


def statements(data: Data) -> list[Statement]:
    """K1 to K8."""
    code, source = "icl_theory.theory.least_squares.best_tensor", "notes §13"
    words = {
        "train": "the training loss ends",
        "in_context": "the loss on random task vectors (in-context test) ends",
        "fixed": "the loss on the fixed task vector with contexts of its own ends",
        "in_weight": "the loss on the fixed task after contexts of noise (in-weight test) ends",
    }
    table = [
        agrees_each(
            f"K{number}",
            f"For every share of random task vectors {words[name]} where least squares on the cubic features puts it "
            f"(median of {data['train'].shape[1]} seeds)",
            source=source,
            code=code,
            predicted=data[f"{name}_predicted"],
            measured=np.median(data[name][:, :, -1], axis=1),
            tolerance=1e-3,
            figure="" if name == "train" else "in_weight_learning",
        )
        for number, name in enumerate(words, start=1)
    ]
    table.append(
        agrees_each(
            "K5",
            "From a small start the coefficients first grow at the rate that the largest singular value of the correlations with "
            "the target gives gradient descent, 2 ln(1 + 2ησ₁)/η (medians)",
            source=source,
            code="icl_theory.theory.least_squares.escape_rate",
            predicted=data["growth_predicted"],
            measured=np.median(data["growth"], axis=1),
            tolerance=0.02,
        )
    )
    mixed = (data["shares"] > 0) & (data["shares"] < 1)
    curves = data["in_context"][mixed]
    rise = np.log(curves[:, :, -1] / curves.min(axis=2))
    table.append(
        at_least(
            "K6",
            "With shares between 0 and 1 in-context learning is best on the way and worse at the end "
            "by one per cent and more (log of last over lowest in-context test loss, the least of all seeds and shares)",
            source="found here",
            code="icl_theory.theory.least_squares.tensor_loss",
            bound=0.01,
            measured=float(rise.min()),
            count=rise.size,
            figure="in_weight_learning",
        )
    )
    known = data["in_weight"][mixed]
    forgotten = np.log(known[:, :, -1] / known.min(axis=2))
    table.append(
        at_least(
            "K7",
            "There weights know the fixed task better on the way than at the end: the in-weight test loss rises again, by a fifth and more "
            "(log of last over lowest, the least of all seeds and shares)",
            source="found here",
            code="icl_theory.theory.least_squares.tensor_loss",
            bound=np.log(1.2),
            measured=float(forgotten.min()),
            count=forgotten.size,
            figure="in_weight_learning",
        )
    )
    table.append(
        at_least(
            "K8",
            "and it ends no lower than the loss of saying zero, 1 (the least of all seeds and shares)",
            source="notes §13",
            code="icl_theory.theory.least_squares.tensor_loss",
            bound=1.0,
            measured=float(known[:, :, -1].min()),
            count=forgotten.size,
            figure="in_weight_learning",
        )
    )
    return table


CLAIM = Claim(
    "K",
    "in_weight_learning",
    "In-context and in-weight learning",
    "Prompts that share one task vector among prompts that do not: what ends in context, what in the weights?",
    Settings(),
    measure,
    statements,
    single=False,
)
