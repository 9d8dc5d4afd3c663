"""Sharpness-aware minimization: aligned starts, random starts, and the merged model (theory notes, §6, §7)."""

from __future__ import annotations

import dataclasses

import numpy as np
import xarray as xr

from icl_theory.analysis.simplicity_bias import simplicity_bias
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.spectra import linear_spectrum
from icl_theory.theory.aligned_dynamics import Ascent
from icl_theory.theory.random_start_cascade import RandomStartCascade
from icl_theory.training.sam import sam
from icl_theory.verification.claim import Claim, Progress, part_of
from icl_theory.verification.claims.sam_simplicity_bias_aligned import AlignedSettings, measure_aligned
from icl_theory.verification.claims.sam_simplicity_bias_random_starts import table
from icl_theory.verification.ensembles import merged_model, random_starts, separate_model, train_ensemble
from icl_theory.verification.labels import bias_variables, dataset, variable


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rank one, H = 5, D = 4, the notes' random start; merged attention with a start as large; aligned runs.

    Power: 64 paired seeds see a change of a learning-time ratio by 5 % (99 % interval of the median change).
    """

    aligned: AlignedSettings = dataclasses.field(default_factory=AlignedSettings)
    dim: int = 4
    num_heads: int = 5
    num_context: int = 31
    num_seeds: int = 64
    init_scale: float = 0.1
    learning_rate: float = 0.02
    rhos: tuple[float, ...] = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)
    duration: float = 2000.0
    num_snapshots: int = 1500
    merged_rhos: tuple[float, ...] = (0.0, 0.01, 0.03, 0.05, 0.1)
    merged_duration: float = 120.0
    shown_rho: float = 0.05
    seed: int = 2


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure all runs of SAM, with the same seeds at every ρ so that differences are paired."""
    mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=settings.num_context)
    variables = measure_aligned(settings.aligned, part_of(progress, 0, 3))
    rate = settings.learning_rate
    models = {  # the separate model has no prefix
        "": (separate_model, settings.rhos, settings.duration, rate),
        "merged_": (merged_model, settings.merged_rhos, settings.merged_duration, rate / 4),
    }
    for part, (prefix, (maker, rhos, duration, learning_rate)) in enumerate(models.items(), start=1):
        model, starts = random_starts(
            maker(settings.dim, settings.num_heads, settings.init_scale), settings.num_seeds, settings.seed
        )
        trajectory, features = train_ensemble(
            model,
            starts,
            mixture,
            optimizer=sam,
            learning_rate=learning_rate,
            rhos=rhos,
            duration=duration,
            num_snapshots=settings.num_snapshots,
            progress=part_of(progress, part, 3),
        )
        bias = simplicity_bias(trajectory, features)
        shown = [0, rhos.index(settings.shown_rho)]
        strength = (trajectory.strength[shown] / features.optimum).astype(np.float32)
        along = f"arm seed {prefix}snapshot"
        variables |= {
            f"{prefix}time": variable(f"{prefix}snapshot", trajectory.time, "time"),
            f"{prefix}loss": variable(along, trajectory.loss[shown], "population loss"),
            f"{prefix}strength": variable(f"{along} feature", strength, "w_d / w_d*"),
            **bias_variables(bias, f"{prefix}rho seed", prefix),
        }
        if maker is separate_model:
            cascade = RandomStartCascade.from_params(features, starts)
            predicted = [cascade._replace(ascent=Ascent(rho)).learning_times(until=duration) for rho in rhos]
            variables["predicted_learning_time"] = variable("rho seed feature", predicted, "the same by theory")
    return dataset(variables, rho=list(settings.rhos), merged_rho=list(settings.merged_rhos), arm=["gd", "sam"])


CLAIM = Claim(
    "sam_simplicity_bias",
    "Does SAM lower simplicity bias (claim A), from aligned and random starts, and in the merged model?",
    Settings(),
    measure,
    table,
    single=True,
    seconds=79.0,
)
