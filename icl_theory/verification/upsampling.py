"""F. Upsampling what is learned late: groups against theory, random starts, single examples (theory notes, §8)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from icl_theory.analysis import SimplicityBias
from icl_theory.attention import split_model
from icl_theory.examples import Examples, compress
from icl_theory.features import Features, find_features, find_group_features
from icl_theory.lateness import late_by_clustering, late_by_threshold, learning_times
from icl_theory.moments import Moments
from icl_theory.prompts import sample_prompts
from icl_theory.run import Run
from icl_theory.spectra import linear_spectrum
from icl_theory.tasks import TaskDistribution, TaskMixture
from icl_theory.theory.hitting_time import hitting_time
from icl_theory.theory.moment_flow import MomentFlow
from icl_theory.theory.upsampling import upsampled_learning_times, upsampled_loss
from icl_theory.upsampling import example_weights
from icl_theory.verification.arms import Pilot, judge, weighted_arms
from icl_theory.verification.claim import Claim, Data
from icl_theory.verification.ensembles import (
    aligned_start,
    measure_arms,
    random_starts,
    reduced_population,
    repeated,
    separate_model,
    train_on,
)
from icl_theory.verification.upsampling_statements import statements

EXAMPLE_ARMS = ("plain", "late", "random", "early", "threshold", "clusters")


@dataclasses.dataclass(frozen=True)
class Settings:
    """D = 4, H = 5, N = 31, λ = (.4, .3, .2, .1) but for the two separate features; late = features 3, 4 or group 2.

    Power: 64 paired starts see a change of a learning-time ratio by 3 to 5 %, 24 data sets one by 20 to 35 %.
    """

    num_context: int = 31
    num_heads: int = 5
    init_scale: float = 0.1
    num_seeds: int = 64
    seed: int = 3
    # Aligned starts: two groups with a feature each, λ = (2, 1); two groups that share four features.
    pair_eigenvalues: tuple[float, float] = (2.0, 1.0)
    pair_factors: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    pair_start: float = 0.05
    pair_learning_rate: float = 5e-4
    pair_duration: float = 40.0
    minority_share: float = 0.2
    shared_factors: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    shared_start: float = 0.05
    shared_learning_rate: float = 0.01
    shared_duration: float = 800.0
    # Random starts.
    factors: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    early_factors: tuple[float, ...] = (2.0, 4.0)
    learning_rate: float = 0.02
    four_duration: float = 1200.0
    two_duration: float = 1000.0
    num_snapshots: int = 801
    # Single examples.
    num_prompts: int = 5000
    num_sets: int = 24
    quantile: float = 0.5
    threshold: float = 0.5
    threshold_time: float = 100.0
    example_start: float = 0.1
    example_duration: float = 1500.0
    example_snapshots: int = 301
    aligned_snapshots: int = 1501


def separate_groups(eigenvalues: np.ndarray, num_context: int) -> TaskMixture:
    """One group a feature, equal shares 1/D: `Λ_g = √D λ_g e_g e_gᵀ`, so that the drives are λ_d²."""
    scaled = np.sqrt(len(eigenvalues)) * np.diag(eigenvalues)
    groups = [TaskDistribution.create(row, num_context=num_context) for row in scaled]
    return TaskMixture.create(groups, np.full(len(groups), 1.0 / len(groups)))


def sharing_groups(minority: float, num_context: int, noise_std: float = 0.0) -> TaskMixture:
    """A majority with the default spectrum and a minority with the reversed one: both hold all four features."""
    spectrum = linear_spectrum(4)
    groups = [
        TaskDistribution.create(values, num_context=num_context, noise_std=noise_std)
        for values in (spectrum, spectrum[::-1].copy())
    ]
    return TaskMixture.create(groups, [1.0 - minority, minority])


def measure(settings: Settings, progress) -> Data:
    """Learning times, optima and simplicity bias under each κ; every prediction comes from the distribution alone."""
    parts = (_pair, _shared, _random, _examples)
    data: Data = {}
    for done, part in enumerate(parts, start=1):
        data |= part(settings)
        progress(done, len(parts))
    return data


def aligned_runs(mixtures: list[TaskMixture], start: float, **settings) -> Run:
    """The full rank-one model from one aligned start on each of several mixtures."""
    graphdef, starts = aligned_start(start, find_features(mixtures[0]).directions, len(mixtures))
    return train_on([reduced_population(mixture) for mixture in mixtures], graphdef, starts, **settings)


def _pair(settings: Settings) -> Data:
    """Two groups with a feature each: the ratio divides by κ."""
    mixture = separate_groups(np.asarray(settings.pair_eigenvalues), settings.num_context)
    groups = find_group_features(mixture)
    factors = [(1.0, factor) for factor in settings.pair_factors]
    run = aligned_runs(
        [mixture.upsampled(pair) for pair in factors],
        settings.pair_start,
        learning_rate=settings.pair_learning_rate,
        duration=settings.pair_duration,
        num_snapshots=2001,
    )
    times = learning_times(run.time, groups.upsampled().strength(run.tracked) / groups.upsampled().optimum)
    return {
        "pair_factors": np.asarray(settings.pair_factors),
        "pair_times": times,
        "pair_ratio": np.divide(*upsampled_learning_times(groups, 1.0, start=settings.pair_start)[::-1]),
    }


def _shared(settings: Settings) -> Data:
    """Two groups that share all features: learning times, and where the optimum goes."""
    mixture = sharing_groups(settings.minority_share, settings.num_context)
    groups = find_group_features(mixture)
    original = groups.upsampled()
    factors = [(1.0, factor) for factor in settings.shared_factors]
    run = aligned_runs(
        [mixture.upsampled(pair) for pair in factors],
        settings.shared_start,
        learning_rate=settings.shared_learning_rate,
        duration=settings.shared_duration,
        num_snapshots=2001,
    )
    fine = np.geomspace(min(settings.shared_factors), max(settings.shared_factors), 41)
    strength = original.strength(run.tracked)
    optima = np.asarray([groups.upsampled(pair).optimum for pair in factors])
    lowest = float(original.loss(original.optimum))
    return {
        "shared_factors": np.asarray(settings.shared_factors),
        "shared_times": np.stack(
            [learning_times(run.time, rows / best) for rows, best in zip(strength, optima, strict=True)]
        ),
        "shared_predicted_times": np.asarray(
            [upsampled_learning_times(groups, pair, start=settings.shared_start) for pair in factors]
        ),
        "fine_factors": fine,
        "shared_fine_times": np.asarray(
            [upsampled_learning_times(groups, (1.0, factor), start=settings.shared_start) for factor in fine]
        ),
        "shared_fine_excess": np.asarray([upsampled_loss(groups, (1.0, factor)) - lowest for factor in fine]),
        "shared_strength": strength[:, -1],
        "shared_optimum": optima,
        "shared_excess": original.loss(strength[:, -1]) - lowest,
        "shared_predicted_excess": np.asarray([upsampled_loss(groups, pair) - lowest for pair in factors]),
        "shared_lowest": np.asarray(lowest),
    }


def _random(settings: Settings) -> Data:
    """Random starts: four groups with a feature each (late: the groups of 3 and 4), and the two that share (late: 2)."""
    data: Data = {}
    cases = {
        "four": (
            separate_groups(linear_spectrum(4), settings.num_context),
            np.asarray([0, 0, 1, 1], bool),
            settings.four_duration,
        ),
        "two": (
            sharing_groups(settings.minority_share, settings.num_context),
            np.asarray([0, 1], bool),
            settings.two_duration,
        ),
    }
    for name, (mixture, late, duration) in cases.items():
        features = find_features(mixture)
        arms = [np.where(late, factor, 1.0) for factor in settings.factors]
        arms += [np.where(late, 1.0, factor) for factor in settings.early_factors]
        bias = train_arms(
            [reduced_population(mixture.upsampled(arm)) for arm in arms], features, settings, duration, settings.seed
        )
        data |= {f"{name}_{field}": getattr(bias, field) for field in SimplicityBias._fields}
        data[f"{name}_drive"] = np.asarray(
            [find_group_features(mixture).upsampled(arm).drive for arm in arms[: len(settings.factors)]]
        )
    return data | {"factors": np.asarray(settings.factors), "early_factors": np.asarray(settings.early_factors)}


def train_arms(
    moments: list[Moments], features: Features, settings: Settings, duration: float, seed: int
) -> SimplicityBias:
    """Every random start on every arm's infinite data, under gradient descent: measures (arm, seed, D).

    Learned means half of the optimum of the data as they are, the same yardstick for every arm.
    """
    model, starts = random_starts(separate_model(4, settings.num_heads, settings.init_scale), settings.num_seeds, seed)
    run = train_on(
        [each for each in moments for _ in range(settings.num_seeds)],
        split_model(model)[0],
        repeated(starts, len(moments)),
        learning_rate=settings.learning_rate,
        duration=duration,
        num_snapshots=settings.num_snapshots,
    )
    return measure_arms(run, features, len(moments))


def _examples(settings: Settings) -> Data:
    """Finite data: learn, find the late examples, upsample them, learn again; from aligned and from random starts."""
    mixture = TaskMixture.single(linear_spectrum(4), num_context=settings.num_context)
    features = find_features(mixture)
    model, starts = random_starts(
        separate_model(4, settings.num_heads, settings.init_scale), settings.num_sets, settings.seed + 1
    )
    graphdef, _ = split_model(model)
    how: dict[str, Any] = {
        "learning_rate": settings.learning_rate,
        "duration": settings.example_duration,
        "num_snapshots": settings.example_snapshots,
    }
    keys = jax.random.split(jax.random.key(settings.seed), settings.num_sets)
    sets = [compress(sample_prompts(mixture, settings.num_prompts, key=key), blocks="reduced") for key in keys]
    plain = [examples.moments() for examples in sets]
    pilot_run = train_on(plain, graphdef, starts, **how)
    arms: dict[str, list[Moments]] = {name: [] for name in EXAMPLE_ARMS[1:]}
    factors = []
    for number, (examples, matrices) in enumerate(zip(sets, pilot_run.tracked, strict=True)):
        pilot = judge(examples, pilot_run.time, matrices, quantile=settings.quantile)
        weights = weighted_arms(pilot, seed=number) | _other_rules(examples, pilot, settings)
        for name, weight in weights.items():
            arms[name].append(examples.moments(weight))
        factors.append(pilot.factor)
    moments = plain + [each for name in EXAMPLE_ARMS[1:] for each in arms[name]]
    shape = (len(EXAMPLE_ARMS), settings.num_sets)
    random = train_on(moments, graphdef, repeated(starts, len(EXAMPLE_ARMS)), **how)
    bias = measure_arms(random, features, len(EXAMPLE_ARMS))
    aligned_graph, single = aligned_start(settings.example_start, features.directions, len(moments))
    flows = [MomentFlow.of(each, features.directions, start=settings.example_start) for each in moments]
    aligned = train_on(
        moments,
        aligned_graph,
        single,
        **how | {"num_snapshots": settings.aligned_snapshots},
    )
    times: dict[str, list[np.ndarray]] = {name: [] for name in ("measured", "drives", "coupled")}
    trajectories = MomentFlow.predict_together(flows, aligned.time)
    for flow, trajectory, strength in zip(flows, trajectories, features.strength(aligned.tracked), strict=True):
        own, predicted = flow.features, trajectory.strength
        times["measured"].append(learning_times(aligned.time, strength / flow.optimum))
        times["coupled"].append(learning_times(aligned.time, predicted / flow.optimum))
        times["drives"].append(hitting_time(0.5, drive=own.drive, optimum=own.optimum, start=flow.start))
    return {
        "example_factor": np.asarray(factors),
        **{f"example_{name}_times": np.reshape(values, (*shape, 4)) for name, values in times.items()},
        "example_optimum": np.stack([_optimum(each, features) for each in moments]).reshape(*shape, 4),
        **{f"example_{field}": getattr(bias, field) for field in SimplicityBias._fields},
    }


def _other_rules(examples: Examples, pilot: Pilot, settings: Settings) -> dict[str, np.ndarray]:
    """The same factor on groups that a threshold and a two-cluster split call late."""
    losses = np.asarray(examples.losses(pilot.tensors), float)
    look = int(np.argmin(np.abs(pilot.time - settings.threshold_time)))
    groups = {
        "threshold": late_by_threshold(losses, threshold=settings.threshold, checkpoint=look, floor=losses[-1]),
        "clusters": late_by_clustering(losses, floor=losses[-1]),
    }
    return {name: example_weights(group, pilot.factor) for name, group in groups.items()}


def _optimum(moments: Moments, features: Features) -> np.ndarray:
    """Strengths of the W that fits weighted data best."""
    tensor = np.linalg.solve(np.asarray(moments.gram, float), np.asarray(moments.cross, float))
    return features.strength(tensor.reshape(4, 4))


CLAIM = Claim(
    "F",
    "upsampling",
    "Upsampling what is learned late",
    "Does upsampling what is learned late lower simplicity bias (claim C), by how much, and what does it cost?",
    Settings(),
    measure,
    statements,
    single=False,
)
