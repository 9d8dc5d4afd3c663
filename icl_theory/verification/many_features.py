"""N. Thirty-two features with a power-law spectrum, many heads, GD and SAM: the order of all of them (notes, §5, §6)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx

from icl_theory.analysis import SimplicityBias, bias_of_fractions
from icl_theory.attention import SeparateAttention, aligned_parameters
from icl_theory.features import find_features
from icl_theory.losses import FeatureStrength, make_loss
from icl_theory.run import require_sound
from icl_theory.sharpness import gd, sam
from icl_theory.spectra import power_law_spectrum
from icl_theory.tasks import TaskMixture
from icl_theory.theory.aligned import AlignedDescent, Ascent
from icl_theory.training import train_many
from icl_theory.verification.claim import Claim, Data, part_of
from icl_theory.verification.ensembles import random_starts, separate_model
from icl_theory.verification.paired import median_change, worst_change
from icl_theory.verification.statement import Statement, agrees, agrees_each, at_least

OPTIMIZERS = ("gd", "sam")


@dataclasses.dataclass(frozen=True)
class Settings:
    """λ_d ∝ 1/d, D = 32, N = 127; aligned with a head a feature, and from random starts with twice as many heads.

    Power: 8 seeds give rank agreements to 0.02 and the change of a ratio to 15 %.
    """

    dim: int = 32
    num_heads: int = 64
    num_context: int = 127
    exponent: float = 1.0
    num_seeds: int = 8
    init_scale: float = 0.5
    aligned_start: float = 0.4
    rho: float = 0.5
    aligned_rho: float = 0.3
    learning_rate: float = 0.5
    duration: float = 25_000.0
    num_snapshots: int = 800
    seed: int = 1


def measure(settings: Settings, progress) -> Data:
    """Strengths over training, (runs, T, D) as shares of their optimum, aligned (with their prediction) and random."""
    mixture = TaskMixture.single(power_law_spectrum(settings.dim, settings.exponent), num_context=settings.num_context)
    features = find_features(mixture)
    num_steps = round(settings.duration / settings.learning_rate)
    steps = np.append(0, np.unique(np.geomspace(1, num_steps, settings.num_snapshots).astype(int)))
    start = np.full(settings.dim, settings.aligned_start)
    heads = aligned_parameters(jnp.asarray(start), jnp.asarray(features.directions, float))
    model, random = random_starts(
        separate_model(settings.dim, settings.num_heads, settings.init_scale), settings.num_seeds, settings.seed
    )
    kinds = {
        "aligned": (
            SeparateAttention(settings.dim, settings.dim, rngs=nnx.Rngs(0)),
            {name: leaf[None] for name, leaf in heads.items()},
            settings.aligned_rho,
        ),
        "random": (model, random, settings.rho),
    }
    data: Data = {"drive": features.drive, "time": steps * settings.learning_rate}
    parts = len(kinds) * len(OPTIMIZERS)
    for place, (kind, (module, starts, rho)) in enumerate(kinds.items()):
        loss, _ = make_loss(module, mixture)
        for index, name in enumerate(OPTIMIZERS):
            part = place * len(OPTIMIZERS) + index
            run = train_many(
                loss,
                starts,
                optimizer=sam if name == "sam" else gd,
                hyperparameters={"learning_rate": settings.learning_rate} | ({"rho": rho} if name == "sam" else {}),
                num_steps=num_steps,
                snapshots=steps,
                track=FeatureStrength(loss.graphdef, jnp.asarray(features.directions, float)),
                progress=part_of(progress, part, parts),
            )
            data[f"{kind}_{name}"] = (require_sound(run).tracked / features.optimum).astype(np.float32)
    for name, ascent in (("gd", Ascent()), ("sam", Ascent(settings.aligned_rho))):
        predicted = AlignedDescent(features, start, settings.learning_rate, ascent).predict(data["time"])
        data[f"predicted_{name}"] = (predicted.strength / features.optimum).astype(np.float32)[None]
    return data


def bias(data: Data, kind: str, optimizer: str) -> SimplicityBias:
    """Learning times and ratios of one kind of start, (runs, D)."""
    return bias_of_fractions(data["time"], data[f"{kind}_{optimizer}"].astype(float), data["drive"])


def slopes(times: np.ndarray, drive: np.ndarray) -> np.ndarray:
    """Slope of `ln t_d` in `ln a_d` over all but the first feature, per run; those never learned left out."""
    found = []
    for row in times:
        seen = np.isfinite(row[1:])
        enough = seen.sum() > 1
        found.append(np.polyfit(np.log(drive[1:][seen]), np.log(row[1:][seen]), 1)[0] if enough else np.nan)
    return np.asarray(found)


def statements(data: Data) -> list[Statement]:
    """N1 to N7."""
    here, code = "found here", "icl_theory.analysis.bias_of_fractions"
    found = {(kind, name): bias(data, kind, name) for kind in ("aligned", "predicted", "random") for name in OPTIMIZERS}
    reduced = "icl_theory.theory.aligned.AlignedDescent"
    table = [
        agrees_each(
            "N1",
            "Aligned heads: gradient descent learns each of 32 features when the reduced map says so",
            source="notes §5",
            code=reduced,
            predicted=found["predicted", "gd"].times[0],
            measured=found["aligned", "gd"].times[0],
            tolerance=1e-4,
            figure="many_features",
        ),
        agrees_each(
            "N2",
            "Aligned heads: SAM learns each of 32 features when the reduced map says so, though its steps oscillate",
            source="notes §6",
            code=reduced,
            predicted=found["predicted", "sam"].times[0],
            measured=found["aligned", "sam"].times[0],
            tolerance=1e-2,
            figure="many_features",
        ),
    ]
    with np.errstate(invalid="ignore"):
        change = np.log(found["aligned", "gd"].ratios / found["aligned", "sam"].ratios)[0, 1:]
    table.append(
        at_least(
            "N3",
            "Aligned heads: SAM lowers t_d/t_1 of every feature (least change of its log)",
            source="notes §6",
            code=reduced,
            bound=0.01,
            measured=float(change.min()),
            count=change.size,
            figure="many_features",
        )
    )
    for number, (name, words) in enumerate((("gd", "gradient descent"), ("sam", "SAM")), start=4):
        table.append(
            worst_change(
                at_least,
                f"N{number}",
                f"Random starts, 64 heads: under {words} the order of learning follows the drives (Kendall's τ of 32 features, never learned last)",
                [median_change(np.nan_to_num(found["random", name].rank_agreement, nan=-1.0))],
                bound=0.9,
                source=here,
                code=code,
                figure="many_features",
            )
        )
    with np.errstate(invalid="ignore"):
        ratios = {name: np.log(found["random", name].ratios) for name in OPTIMIZERS}
        lowered = [median_change((ratios["gd"] - ratios["sam"])[:, d]) for d in (3, 7, 15)]
    table.append(
        worst_change(
            at_least,
            "N6",
            "Random starts: SAM lowers t_4/t_1, t_8/t_1 and t_16/t_1, paired by seed (change of the log)",
            lowered,
            bound=0.01,
            source="claim A",
            code=code,
            figure="many_features",
        )
    )
    table.append(
        agrees(
            "N7",
            "Random starts, gradient descent: from the second feature on t_d ∝ 1/a_d, as aligned heads have it (slope, log-log, median)",
            source=here,
            code="icl_theory.theory.hitting_time.hitting_time",
            predicted=-1.0,
            measured=float(np.median(slopes(found["random", "gd"].times, data["drive"]))),
            tolerance=0.1,
            relative=False,
            figure="many_features",
        )
    )
    return table


CLAIM = Claim(
    "N",
    "many_features",
    "Thirty-two features",
    "Does theory say when each of 32 features is learned, under gradient descent and SAM?",
    Settings(),
    measure,
    statements,
    single=False,
)
