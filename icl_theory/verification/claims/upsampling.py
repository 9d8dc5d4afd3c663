"""Upsampling of late groups and examples: aligned starts, random starts, and finite data (theory notes, §8)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import xarray as xr

from icl_theory.analysis.learning_times import learning_times
from icl_theory.analysis.simplicity_bias import SimplicityBias
from icl_theory.models.parameters import split_model
from icl_theory.moments.compressed_prompts import CompressedPrompts, compress
from icl_theory.moments.empirical import Moments
from icl_theory.tasks.features import find_features, find_group_features
from icl_theory.tasks.mixture import TaskDistribution, TaskMixture
from icl_theory.tasks.sampling import sample_prompts
from icl_theory.tasks.spectra import linear_spectrum
from icl_theory.theory.hitting_time import hitting_time
from icl_theory.theory.moment_flow import MomentFlow
from icl_theory.theory.random_start_cascade import RandomStartCascade
from icl_theory.theory.upsampling import upsampled_learning_times, upsampled_loss
from icl_theory.training.run import Run
from icl_theory.upsampling.factor import example_weights
from icl_theory.upsampling.lateness import late_by_clustering, late_by_threshold
from icl_theory.verification.claim import Claim, Progress
from icl_theory.verification.claims.finite_data_arms import Pilot, judge, weighted_arms
from icl_theory.verification.claims.upsampling_random_starts import table
from icl_theory.verification.ensembles import (
    aligned_start,
    measure_arms,
    random_starts,
    reduced_population,
    repeated,
    separate_model,
    train_on,
)
from icl_theory.verification.labels import bias_variables, dataset, variable

ARMS = ("plain", "late", "random", "early", "threshold", "clusters")  # arms for single examples
Variables = dict[str, tuple[Any, ...]]


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
    # Aligned starts: two groups with one feature each, λ = (2, 1); two groups that share four features.
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
    separate_duration: float = 1200.0
    sharing_duration: float = 1000.0
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
    """Return one group per feature with equal shares 1/D and `Λ_g = √D λ_g e_g e_gᵀ`, so that the drives are λ_d²."""
    scaled = np.sqrt(len(eigenvalues)) * np.diag(eigenvalues)
    groups = [TaskDistribution.create(row, num_context=num_context) for row in scaled]
    return TaskMixture.create(groups, np.full(len(groups), 1.0 / len(groups)))


def sharing_groups(minority: float, num_context: int, noise_std: float = 0.0) -> TaskMixture:
    """Return a majority with the default spectrum and a minority with the reversed one; both have all four features."""
    spectrum = linear_spectrum(4)
    groups = [
        TaskDistribution.create(values, num_context=num_context, noise_std=noise_std)
        for values in (spectrum, spectrum[::-1].copy())
    ]
    return TaskMixture.create(groups, [1.0 - minority, minority])


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure learning times, optima and simplicity bias for each κ, and predict them from the distribution alone."""
    parts = (_pair, _shared, _random, _examples)
    variables: Variables = {}
    for done, part in enumerate(parts, start=1):
        variables |= part(settings)
        progress(done, len(parts))
    return dataset(variables)


def aligned_runs(mixtures: list[TaskMixture], start: float, **settings: Any) -> Run:
    """Train the full rank-one model from one aligned start on each of several mixtures."""
    graphdef, starts = aligned_start(start, find_features(mixtures[0]).directions, len(mixtures))
    return train_on([reduced_population(mixture) for mixture in mixtures], graphdef, starts, **settings)


def _pair(settings: Settings) -> Variables:
    """Measure two groups with one feature each, where upsampling divides the learning-time ratio by κ."""
    mixture = separate_groups(np.asarray(settings.pair_eigenvalues), settings.num_context)
    groups = find_group_features(mixture)
    run = aligned_runs(
        [mixture.upsampled((1.0, factor)) for factor in settings.pair_factors],
        settings.pair_start,
        learning_rate=settings.pair_learning_rate,
        duration=settings.pair_duration,
        num_snapshots=2001,
    )
    times = learning_times(run.time, groups.upsampled().strength(run.tracked) / groups.upsampled().optimum)
    ratio = np.divide(*upsampled_learning_times(groups, 1.0, start=settings.pair_start)[::-1])
    return {
        "pair_factor": variable("pair_factor", settings.pair_factors, "κ on the slow one of two groups"),
        "pair_learning_time": variable("pair_factor pair_feature", times, "learning times, a group for each feature"),
        "pair_predicted_ratio": variable("", ratio, "t_2 / t_1 at κ = 1 by theory, which κ divides"),
    }


def _shared(settings: Settings) -> Variables:
    """Measure learning times and the moved optimum of two groups that share all features."""
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
    times = [learning_times(run.time, rows / best) for rows, best in zip(strength, optima, strict=True)]
    lowest = float(original.loss(original.optimum))
    variables = {
        "shared_factor": variable("shared_factor", settings.shared_factors, "κ on the minority"),
        "fine_factor": variable("fine_factor", fine, "κ on the minority, a fine grid for theory"),
        "shared_learning_time": variable("shared_factor feature", times, "learning times, groups share all features"),
        "shared_strength": variable("shared_factor feature", strength[:, -1], "w_d after training", "1"),
        "shared_optimum": variable("shared_factor feature", optima, "a_d(κ) / c_d(κ) of the upsampled mixture"),
        "shared_excess_loss": variable(
            "shared_factor", original.loss(strength[:, -1]) - lowest, "loss on the original mixture above its least"
        ),
        "shared_least_loss": variable("", lowest, "least loss on the original mixture"),
    }
    for name, pairs in (("shared", factors), ("fine", [(1.0, factor) for factor in fine])):
        predicted = [upsampled_learning_times(groups, pair, start=settings.shared_start) for pair in pairs]
        excess = [upsampled_loss(groups, pair) - lowest for pair in pairs]
        variables |= {
            f"{name}_predicted_learning_time": variable(f"{name}_factor feature", predicted, "the same by theory"),
            f"{name}_predicted_excess_loss": variable(f"{name}_factor", excess, "cost of the moved optimum by theory"),
        }
    return variables


def _random(settings: Settings) -> Variables:
    """Measure random starts on infinite data, with every start trained in every arm.

    There are four groups with one feature each (late: those of features 3 and 4), and two groups that share all
    features (late: group 2). In every arm, a feature is learned at half of the optimum of the original data.
    """
    separate = separate_groups(linear_spectrum(4), settings.num_context)
    sharing = sharing_groups(settings.minority_share, settings.num_context)
    cases = {
        "separate": (separate, np.asarray([0, 0, 1, 1], bool), settings.separate_duration),
        "sharing": (sharing, np.asarray([0, 1], bool), settings.sharing_duration),
    }
    upsampled = [("late", factor) for factor in settings.factors]
    upsampled += [("early", factor) for factor in settings.early_factors]
    make_model = separate_model(4, settings.num_heads, settings.init_scale)
    model, starts = random_starts(make_model, settings.num_seeds, settings.seed)
    measured, drive, predicted = [], [], []
    for mixture, late, duration in cases.values():
        arms = [np.where(late == (group == "late"), factor, 1.0) for group, factor in upsampled]
        moments = [reduced_population(mixture.upsampled(arm)) for arm in arms]
        run = train_on(
            [each for each in moments for _ in range(settings.num_seeds)],
            split_model(model)[0],
            repeated(starts, len(arms)),
            learning_rate=settings.learning_rate,
            duration=duration,
            num_snapshots=settings.num_snapshots,
        )
        features = find_features(mixture)
        measured.append(measure_arms(run, features, len(arms)))
        own = [find_group_features(mixture).upsampled(arm) for arm in arms]
        drive.append([each.drive for each in own])
        half = [0.5 * features.optimum / each.optimum for each in own]
        cascades = [RandomStartCascade.from_params(each, starts) for each in own]
        pairs = zip(cascades, half, strict=True)
        predicted.append([cascade.learning_times(fraction=share, until=duration) for cascade, share in pairs])
    bias = SimplicityBias(*(np.stack(fields) for fields in zip(*measured, strict=True)))
    labels = [f"{group} × {factor:g}" for group, factor in upsampled]
    return {
        "groups": variable("groups", list(cases), "a group for each feature, or two that share all"),
        "upsampled": variable("upsampled", labels, "which groups are upsampled, and by how much"),
        "factor": variable("upsampled", [factor for _, factor in upsampled], "κ on those groups"),
        "drive": variable("groups upsampled feature", drive, "a_d of the upsampled mixture"),
        **bias_variables(bias, "groups upsampled seed"),
        "predicted_learning_time": variable(
            "groups upsampled seed feature", predicted, "learning times by theory, from each start alone"
        ),
    }


def _examples(settings: Settings) -> Variables:
    """Measure finite data: train, find and upsample late examples, train again; from aligned and random starts."""
    mixture = TaskMixture.single(linear_spectrum(4), num_context=settings.num_context)
    features = find_features(mixture)
    make_model = separate_model(4, settings.num_heads, settings.init_scale)
    model, starts = random_starts(make_model, settings.num_sets, settings.seed + 1)
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
    arms: dict[str, list[Moments]] = {"plain": plain} | {name: [] for name in ARMS[1:]}
    factors = []
    for number, (examples, matrices) in enumerate(zip(sets, pilot_run.tracked, strict=True)):
        pilot = judge(examples, pilot_run.time, matrices, quantile=settings.quantile)
        weights = weighted_arms(pilot, seed=number) | _other_rules(examples, pilot, settings)
        for name, weight in weights.items():
            arms[name].append(examples.moments(weight))
        factors.append(pilot.factor)
    moments = [each for arm in arms.values() for each in arm]
    bias = measure_arms(train_on(moments, graphdef, repeated(starts, len(ARMS)), **how), features, len(ARMS))
    aligned_graph, single = aligned_start(settings.example_start, features.directions, len(moments))
    flows = [MomentFlow.from_moments(each, features.directions, start=settings.example_start) for each in moments]
    aligned = train_on(moments, aligned_graph, single, **how | {"num_snapshots": settings.aligned_snapshots})
    strengths, flown = features.strength(aligned.tracked), MomentFlow.predict_together(flows, aligned.time)
    measured, drives, coupled = [], [], []
    for flow, trajectory, strength in zip(flows, flown, strengths, strict=True):
        own = flow.features
        measured.append(learning_times(aligned.time, strength / flow.optimum))
        drives.append(hitting_time(0.5, drive=own.drive, optimum=own.optimum, start=flow.start))
        coupled.append(learning_times(aligned.time, trajectory.strength / flow.optimum))
    shape, dims = (len(ARMS), settings.num_sets, 4), "arm data_set feature"
    best = [np.linalg.solve(np.asarray(each.gram, float), np.asarray(each.cross, float)) for each in moments]
    optimum = np.reshape([features.strength(tensor.reshape(4, 4)) for tensor in best], shape)
    predicted = np.reshape([drives, coupled], (2, *shape))
    return {
        "arm": variable("arm", list(ARMS), "which single examples are upsampled"),
        "theory": variable("theory", ["drives", "coupled"], "by the drives alone, or with couplings between features"),
        "example_factor": variable("data_set", factors, "κ, the pilot's ratio of late to early examples"),
        "example_aligned_learning_time": variable(dims, np.reshape(measured, shape), "learning times, aligned start"),
        "example_predicted_learning_time": variable(f"theory {dims}", predicted, "by the weighted moments"),
        "example_optimum": variable(dims, optimum, "strengths of the W that fits the weighted data best"),
        **bias_variables(bias, "arm data_set", "example_"),
    }


def _other_rules(examples: CompressedPrompts, pilot: Pilot, settings: Settings) -> dict[str, np.ndarray]:
    """Return the weights with the same factor on examples that a threshold or a two-cluster split finds late."""
    losses = np.asarray(examples.losses(pilot.tensors), float)
    nearest = int(np.argmin(np.abs(pilot.time - settings.threshold_time)))
    groups = {
        "threshold": late_by_threshold(losses, threshold=settings.threshold, checkpoint=nearest, floor=losses[-1]),
        "clusters": late_by_clustering(losses, floor=losses[-1]),
    }
    return {name: example_weights(group, pilot.factor) for name, group in groups.items()}


CLAIM = Claim(
    "upsampling",
    "Does upsampling what is learned late lower simplicity bias (claim C), by how much, and what does it cost?",
    Settings(),
    measure,
    table,
    seconds=25.0,
)
