"""Laws of random starts: the theory's error, what κ does, widths and spectra, and what a learned head does (§16)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import xarray as xr
from flax import nnx

from icl_theory.analysis.learning_times import learning_times
from icl_theory.models.attention import SeparateAttention
from icl_theory.models.parameters import split_model
from icl_theory.tasks.features import Features, find_features
from icl_theory.tasks.mixture import TaskDistribution, TaskMixture
from icl_theory.tasks.spectra import geometric_spectrum, linear_spectrum
from icl_theory.theory.head_stability import invasion_rate
from icl_theory.theory.random_start_cascade import RandomStartCascade
from icl_theory.training.gradient_descent import gd
from icl_theory.training.losses import MomentsLoss
from icl_theory.training.train import train_many
from icl_theory.verification.claim import Claim, Progress
from icl_theory.verification.claims.random_starts_statements import table
from icl_theory.verification.ensembles import (
    all_parameters,
    measure_arms,
    random_starts,
    reduced_population,
    repeated,
    separate_model,
    stacked,
    train_on,
    train_starts,
)
from icl_theory.verification.labels import dataset, variable

Variables = dict[str, tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rank one, N = 31; H = 5, D = 4 and λ = (.4, .3, .2, .1) where nothing else is said.

    Power: with 64 trained starts a Kolmogorov–Smirnov test at level 0.001 sees a shift of ln(t_d/t_1) by half of its
    interquartile range in nine cases of ten.
    """

    num_context: int = 31
    seed: int = 5
    num_snapshots: int = 1501
    # Initial scales: steps grow as 1/scale, so all scales take as many of them.
    scales: tuple[float, ...] = (0.4, 0.1, 0.03, 0.01)
    num_scale_starts: int = 32
    scale_learning_rate: float = 0.001
    scale_duration: float = 250.0
    scale_snapshots: int = 20_001  # their distance is below the errors that are measured
    # Heads, features and spectra: distributions over starts.
    num_theory_starts: int = 512
    num_trained_starts: int = 64
    law_scale: float = 0.05
    law_learning_rate: float = 0.05
    law_duration: float = 4000.0
    # Two groups with a feature each.
    pair_shares: tuple[float, float] = (0.9, 0.1)
    pair_factors: tuple[float, ...] = (1.0, 1.5, 3.0, 6.0)
    pair_starts: int = 64
    pair_scale: float = 0.1
    pair_learning_rate: float = 0.02
    pair_duration: float = 200.0
    # Groups that overlap by ω.
    overlaps: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    overlap_shares: tuple[float, float] = (0.6, 0.4)
    overlap_start: float = 1e-5
    overlap_learning_rate: float = 1e-3
    overlap_duration: float = 10.0

    @property
    def laws(self) -> dict[str, tuple[int, Any]]:
        """The number of heads and the spectrum of each case."""
        return {
            "five_heads": (5, linear_spectrum(4)),
            "sixteen_heads": (16, linear_spectrum(4)),
            "six_features": (12, linear_spectrum(6)),
            "steep": (5, geometric_spectrum(4, 2.0)),
        }


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure learning times from random starts, and predict them from the starts alone."""
    parts = (_scales, _laws, _pair, _overlaps)
    variables: Variables = {}
    for done, part in enumerate(parts, start=1):
        variables |= part(settings)
        progress(done, len(parts))
    return dataset(variables)


def _scales(settings: Settings) -> Variables:
    """Measure the same starts at several initial scales; predict each."""
    mixture = TaskMixture.single(linear_spectrum(4), num_context=settings.num_context)
    features = find_features(mixture)
    model, starts = random_starts(separate_model(4, 5, 1.0), settings.num_scale_starts, settings.seed)
    measured, predicted = [], []
    for scale in settings.scales:
        scaled = jax.tree.map(lambda leaf, scale=scale: leaf * scale, starts)
        duration = settings.scale_duration / scale
        run = train_starts(
            model,
            scaled,
            mixture,
            learning_rate=settings.scale_learning_rate / scale,
            duration=duration,
            num_snapshots=settings.scale_snapshots,
        )
        measured.append(_times(run.time, run.tracked, features))
        predicted.append(RandomStartCascade.from_params(features, scaled).learning_times(until=duration))
    dims = "scale start feature"
    return {
        "scale": variable("scale", settings.scales, "standard deviation of v at the start; of k and q half of it"),
        "scale_learning_time": variable(dims, measured, "learning times"),
        "scale_predicted_learning_time": variable(dims, predicted, "the same by theory, from each start alone"),
    }


def _laws(settings: Settings) -> Variables:
    """Measure and predict the distribution over starts for several widths and spectra; other starts in theory."""
    measured, predicted = [], []
    for number, (heads, spectrum) in enumerate(settings.laws.values()):
        mixture = TaskMixture.single(spectrum, num_context=settings.num_context)
        features = find_features(mixture)
        make_model = separate_model(len(spectrum), heads, settings.law_scale)
        model, starts = random_starts(make_model, settings.num_trained_starts, settings.seed + 1 + number)
        run = train_starts(
            model,
            starts,
            mixture,
            learning_rate=settings.law_learning_rate,
            duration=settings.law_duration,
            num_snapshots=settings.num_snapshots,
        )
        measured.append(_times(run.time, run.tracked, features)[:, :4])
        draw, count = np.random.default_rng(settings.seed + number), settings.num_theory_starts
        value = settings.law_scale * draw.normal(size=(count, heads))
        key, query = settings.law_scale / 2 * draw.normal(size=(2, count, heads, len(spectrum)))
        times = RandomStartCascade(features, value, key, query).learning_times(until=settings.law_duration)
        predicted.append(times[:, :4])
    return {
        "law": variable("law", list(settings.laws), "what differs from H = 5, D = 4 and a linear spectrum"),
        "law_learning_time": variable("law trained_start feature", measured, "learning times, features 1 to 4"),
        "law_predicted_learning_time": variable(
            "law theory_start feature", predicted, "learning times by theory, other starts"
        ),
    }


def _pair(settings: Settings) -> Variables:
    """Measure two groups with one feature each, the slow one upsampled, from random starts."""
    groups = [TaskDistribution.create(axis, num_context=settings.num_context) for axis in np.eye(2)]
    mixture = TaskMixture.create(groups, settings.pair_shares)
    features = find_features(mixture)
    model, starts = random_starts(separate_model(2, 5, settings.pair_scale), settings.pair_starts, settings.seed)
    arms = [reduced_population(mixture.upsampled([1.0, factor])) for factor in settings.pair_factors]
    run = train_on(
        [arm for arm in arms for _ in range(settings.pair_starts)],
        split_model(model)[0],
        repeated(starts, len(arms)),
        learning_rate=settings.pair_learning_rate,
        duration=settings.pair_duration,
        num_snapshots=2 * settings.num_snapshots,
    )
    times = measure_arms(run, features, len(arms)).times
    return {
        "pair_factor": variable("pair_factor", settings.pair_factors, "κ on the slow one of two groups"),
        "pair_learning_time": variable("pair_factor pair_start pair_feature", times, "learning times"),
        "pair_drive_ratio": variable("", features.drive[0] / features.drive[1], "a_1 / a_2 at κ = 1"),
    }


def _overlaps(settings: Settings) -> Variables:
    """Measure how fast a head that has learned feature 1 grows on feature 2, for two groups that overlap by ω."""
    graphdef, _ = split_model(SeparateAttention(2, 1, rngs=nnx.Rngs(0)))
    moments, starts, predicted = [], [], []
    for overlap in settings.overlaps:
        spectra = ([1.0, overlap], [overlap, 1.0])
        groups = [TaskDistribution.create(spectrum, num_context=settings.num_context) for spectrum in spectra]
        mixture = TaskMixture.create(groups, settings.overlap_shares)
        features = find_features(mixture)
        assert features.entry_curvature is not None
        predicted.append(invasion_rate(features.drive, features.entry_curvature)[0, 1])
        learned = np.cbrt(features.optimum[0])
        entries = (features.directions @ [learned, settings.overlap_start])[None, None]
        starts.append({"value": np.full(1, learned), "key": entries, "query": entries})
        moments.append(reduced_population(mixture).mean())
    params = stacked(starts)
    run = train_many(
        MomentsLoss(graphdef, stacked(moments)),
        params,
        loss_axes=0,
        optimizer=gd,
        hyperparameters={"learning_rate": settings.overlap_learning_rate},
        num_steps=round(settings.overlap_duration / settings.overlap_learning_rate),
        num_snapshots=3,
        track=all_parameters,
    )
    sizes = np.hypot(*(np.asarray(run.tracked[name])[:, 1:, 0, 0, 1] for name in ("key", "query")))
    rates = np.log(sizes[:, 1] / sizes[:, 0]) / np.diff(run.time[1:])
    return {
        "overlap": variable("overlap", settings.overlaps, "ω, the second eigenvalue of each of two groups"),
        "overlap_rate": variable("overlap", rates, "rate at which a head that has learned 1 grows on 2"),
        "overlap_predicted_rate": variable("overlap", predicted, "the same by theory"),
    }


def _times(time: np.ndarray, matrices: Any, features: Features) -> np.ndarray:
    return learning_times(time, features.strength(matrices) / features.optimum)


CLAIM = Claim(
    "random_starts",
    "How good is the theory of random starts, and what does it say of κ, of width, and of what a learned head does?",
    Settings(),
    measure,
    table,
    single=True,
    seconds=30.0,
)
