"""SAM by data: SAM compared with gradient descent on data upsampled by a factor derived from ρ (theory notes, §8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from icl_theory.analysis.learning_times import learning_times
from icl_theory.analysis.simplicity_bias import SimplicityBias
from icl_theory.models.parameters import split_model
from icl_theory.tasks.features import find_features
from icl_theory.tasks.spectra import linear_spectrum
from icl_theory.theory.upsampling import path_matched_factors, two_phase_factor
from icl_theory.training.gradient_descent import gd
from icl_theory.training.sam import sam
from icl_theory.upsampling.factor import ratio_factor, sam_equivalent_factor, secant_factor
from icl_theory.verification.changes import known_median
from icl_theory.verification.claim import Claim, Progress
from icl_theory.verification.claims.sam_by_data_statements import table
from icl_theory.verification.claims.upsampling import Variables, aligned_runs, separate_groups
from icl_theory.verification.ensembles import (
    measure_arms,
    random_starts,
    reduced_population,
    repeated,
    separate_model,
    train_on,
)
from icl_theory.verification.labels import bias_variables, dataset, variable


@dataclasses.dataclass(frozen=True)
class Settings:
    """One group a feature. Aligned: λ = (2, 1), u_0 = 0.05. Random: λ = (.4, .3, .2, .1), H = 5; half the seeds give κ.

    Power: the other 64 see a change of a learning-time ratio by 0.4 to 3 %, the more the further the feature.
    """

    num_context: int = 31
    eigenvalues: tuple[float, float] = (2.0, 1.0)
    start: float = 0.05
    deltas: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    aligned_learning_rate: float = 5e-4
    aligned_duration: float = 60.0
    aligned_snapshots: int = 3001
    num_heads: int = 5
    init_scale: float = 0.1
    rhos: tuple[float, ...] = (0.01, 0.03, 0.05)
    num_seeds: int = 128
    learning_rate: float = 0.02
    duration: float = 1000.0
    num_snapshots: int = 401
    seed: int = 5


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure learning times of SAM and of gradient descent with each derived factor, at every ρ."""
    aligned = _aligned(settings)
    progress(1, 3)
    return dataset(aligned | _random(settings, lambda done: progress(1 + done, 3)))


def _aligned(settings: Settings) -> Variables:
    """Measure aligned runs with κ from the reduced flow, its two-phase approximation, and SAM's first step."""
    mixture = separate_groups(np.asarray(settings.eigenvalues), settings.num_context)
    features = find_features(mixture)
    deltas = np.asarray(settings.deltas)
    rhos = deltas * np.sqrt(3.0) * settings.start
    alpha = features.drive[1] / features.drive[0]
    factors: dict[str, Any] = {
        "sam": np.ones(len(rhos)),
        "path": [path_matched_factors(features, start=settings.start, rho=float(rho))[1] for rho in rhos],
        "two_phase": two_phase_factor(alpha, deltas),
        "initial": [sam_equivalent_factor(features.drive, start=settings.start, rho=float(rho))[1] for rho in rhos],
    }
    times, evaluations = [], []
    for arm, factor in factors.items():
        by_sam = arm == "sam"
        run = aligned_runs(
            [mixture.upsampled([1.0, kappa]) for kappa in np.nan_to_num(factor, nan=1.0)],
            settings.start,
            optimizer=sam if by_sam else gd,
            rho=rhos if by_sam else None,
            learning_rate=settings.aligned_learning_rate,
            duration=settings.aligned_duration,
            num_snapshots=settings.aligned_snapshots,
        )
        found = learning_times(run.time, features.strength(run.tracked) / features.optimum)
        times.append(np.where(np.isfinite(factor)[:, None], found, np.nan))
        evaluations.append((2 if by_sam else 1) / settings.aligned_learning_rate * times[-1].max(axis=1))
    dims = "aligned_arm delta"
    ratio = np.asarray(times)[..., 1] / np.asarray(times)[..., 0]
    return {
        "aligned_arm": variable(
            "aligned_arm", list(factors), "SAM, or gradient descent with κ derived in one of three ways"
        ),
        "delta": variable("delta", deltas, "ρ / (√3 u_0)"),
        "aligned_factor": variable(dims, list(factors.values()), "κ on the slow group; 1 for SAM, NaN for none"),
        "aligned_learning_time": variable(f"{dims} aligned_feature", times, "learning times, a group for each feature"),
        "aligned_learning_time_ratio": variable(dims, ratio, "t_2 / t_1"),
        "aligned_evaluations": variable(dims, evaluations, "gradient evaluations until both features are learned"),
    }


def _random(settings: Settings, progress: Callable[[int], None]) -> Variables:
    """Derive κ_d from the median ratios of one half of the seeds, and compare it with SAM on the other half.

    The arm `secant` corrects κ once by its effect on the first half. The control `early` has the same factors in
    reverse, the largest on the simplest feature. Upsampling random examples does not change a population, so that
    control is gradient descent itself. Intervals are over the test seeds, for a given κ.
    """
    mixture = separate_groups(linear_spectrum(4), settings.num_context)
    features = find_features(mixture)  # group g holds feature g
    make_model = separate_model(4, settings.num_heads, settings.init_scale)
    model, starts = random_starts(make_model, settings.num_seeds, settings.seed)
    graphdef, _ = split_model(model)
    half = settings.num_seeds // 2
    how = {name: getattr(settings, name) for name in ("learning_rate", "duration", "num_snapshots")}
    rhos = (0.0, *settings.rhos)
    run = train_on(
        [reduced_population(mixture)] * (len(rhos) * settings.num_seeds),
        graphdef,
        repeated(starts, len(rhos)),
        optimizer=sam,
        rho=np.repeat(rhos, settings.num_seeds),
        **how,
    )
    progress(1)
    measured = measure_arms(run, features, len(rhos))
    ratio = known_median(measured.ratios[:, :half], axis=1)  # NaN: runs that learn nothing (saddle trap)
    factors = ratio_factor(ratio[:1], target=ratio[1:])  # (ρ, D)

    def upsampled(kappas: np.ndarray) -> SimplicityBias:
        arms = [reduced_population(mixture.upsampled(kappa)) for kappa in kappas]
        moments = [arm for arm in arms for _ in range(settings.num_seeds)]
        return measure_arms(train_on(moments, graphdef, repeated(starts, len(arms)), **how), features, len(arms))

    found = upsampled(np.concatenate([factors, -np.sort(-factors, axis=1)]))
    late, early = (SimplicityBias(*parts) for parts in zip(*(np.split(field, 2) for field in found), strict=True))
    achieved = known_median(late.ratios[:, :half], axis=1)
    arms = {
        "gd": SimplicityBias(*(np.repeat(field[:1], len(settings.rhos), axis=0) for field in measured)),
        "sam": SimplicityBias(*(field[1:] for field in measured)),
        "late": late,
        "early": early,
        "secant": upsampled(secant_factor(factors, ratio=ratio[:1], achieved=achieved, target=ratio[1:])),
    }
    progress(2)
    bias = SimplicityBias(*(np.stack(fields)[:, :, half:] for fields in zip(*arms.values(), strict=True)))
    return {
        "arm": variable("arm", list(arms), "gd: the same runs for every ρ; late, early, secant: on upsampled data"),
        "rho": variable("rho", settings.rhos, "ρ of SAM, from which κ is derived"),
        "factor": variable("rho feature", factors, "κ_d = R_GD / R_SAM(ρ) on the group of each feature"),
        **bias_variables(bias, "arm rho seed"),
    }


CLAIM = Claim(
    "sam_by_data",
    "Does gradient descent on upsampled data, with the factor derived from ρ, do what SAM does, and at what cost?",
    Settings(),
    measure,
    table,
    seconds=28.0,
)
