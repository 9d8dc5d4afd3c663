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
from icl_theory.verification.statement import Statement, agrees, agrees_each, at_least, at_most

OPTIMIZERS = ("gd", "sam")


@dataclasses.dataclass(frozen=True)
class Settings:
    """λ_d ∝ 1/d, D = 32, N = 127; aligned with a head a feature, and from random starts with twice as many heads."""

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
    aligned: dict[str, np.ndarray] = {}
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
            share = require_sound(run).tracked / features.optimum
            data[f"{kind}_{name}"] = share.astype(np.float32)
            if kind == "aligned":
                aligned[name] = share
            data[f"{kind}_{name}_loss"] = run.loss
    for name, ascent in (("gd", Ascent()), ("sam", Ascent(settings.aligned_rho))):
        predicted = AlignedDescent(features, start, settings.learning_rate, ascent).predict(data["time"])
        share = predicted.strength / features.optimum
        data[f"predicted_{name}"] = share.astype(np.float32)[None]
        calm = until_oscillation(share)
        data[f"{name}_calm"] = np.asarray(calm)
        data[f"{name}_deviation"] = np.abs(aligned[name][0, :calm] - share[:calm]).max()
    return data


def until_oscillation(share: np.ndarray) -> int:
    """How many snapshots of (T, D) come before any strength falls, as it does where steps of SAM oscillate (notes, §6)."""
    falls = np.flatnonzero((np.diff(share, axis=0) < -1e-9).any(axis=1))
    return int(falls[0]) + 1 if falls.size else len(share)


def bias(data: Data, kind: str, optimizer: str) -> SimplicityBias:
    """Learning times and ratios of one kind of start, (runs, D)."""
    return bias_of_fractions(data["time"], data[f"{kind}_{optimizer}"].astype(float), data["drive"])


def slopes(times: np.ndarray, drive: np.ndarray) -> np.ndarray:
    """Slope of `ln t_d` in `ln a_d` over all but the first feature, per run; those never learned left out."""
    return np.asarray(
        [
            np.polyfit(np.log(drive[1:][seen]), np.log(row[1:][seen]), 1)[0]
            for row in times
            for seen in [np.isfinite(row[1:])]
        ]
    )


def statements(data: Data) -> list[Statement]:
    """N1 to N8."""
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
        at_most(
            "N2",
            "Aligned heads: SAM follows the reduced map until a step oscillates, which amplifies rounding "
            f"(until η × step = {data['time'][int(data['sam_calm']) - 1]:.0f}; largest deviation of w_d/w_d*)",
            source="notes §6",
            code=reduced,
            bound=1e-10,
            measured=float(data["sam_deviation"]),
            figure="many_features",
        ),
    ]
    with np.errstate(invalid="ignore"):
        gaps = np.diff(np.log(found["aligned", "sam"].times[0][np.argsort(found["predicted", "sam"].times[0])]))
        change = np.log(found["aligned", "gd"].ratios / found["aligned", "sam"].ratios)[0, 1:]
    table.append(
        at_least(
            "N3",
            "Aligned heads: SAM learns 32 features in the reduced map's order (least change of ln t from one to the next)",
            source="notes §6",
            code=reduced,
            bound=0.0,
            measured=float(gaps.min()),
            count=gaps.size,
            figure="many_features",
        )
    )
    table.append(
        at_least(
            "N4",
            "Aligned heads: SAM lowers t_d/t_1 of every feature (least change of its log)",
            source="notes §6",
            code=reduced,
            bound=0.0,
            measured=float(change.min()),
            count=change.size,
            figure="many_features",
        )
    )
    for number, (name, words) in enumerate((("gd", "gradient descent"), ("sam", "SAM")), start=5):
        table.append(
            worst_change(
                at_least,
                f"N{number}",
                f"Random starts, 64 heads: under {words} the order of all 32 features follows their drives (Kendall's τ)",
                [median_change(found["random", name].rank_agreement)],
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
            "N7",
            "Random starts: SAM lowers t_4/t_1, t_8/t_1 and t_16/t_1, paired by seed (change of the log)",
            lowered,
            source="claim A",
            code=code,
            figure="many_features",
        )
    )
    table.append(
        agrees(
            "N8",
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
