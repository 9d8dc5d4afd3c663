"""E. Sharpness-aware minimization: aligned starts, random starts, and the merged model (theory notes, §6, §7)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from icl_theory.analysis import SimplicityBias, median_interval, simplicity_bias
from icl_theory.sharpness import sam
from icl_theory.spectra import linear_spectrum
from icl_theory.tasks import TaskMixture
from icl_theory.verification.claim import Claim, Data
from icl_theory.verification.ensembles import merged_model, random_starts, separate_model, train_ensemble
from icl_theory.verification.paired import CONFIDENCE, absolute, paired_change, worst_change
from icl_theory.verification.sharpness_aligned import AlignedSettings, aligned_statements, measure_aligned
from icl_theory.verification.statement import Statement, at_least, at_most

# Medians over 64 seeds measured independently for the theory notes (§6): t_2/t_1, t_3/t_1, t_4/t_1 by ρ,
REFERENCE_MEDIANS = {0.0: (1.68, 4.59, 17.7), 0.02: (1.55, 3.76, 16.8), 0.05: (1.30, 2.76, 13.6)}
# and the share of runs that learn at all.
REFERENCE_LEARNED = {0.1: 0.87, 0.15: 0.33, 0.2: 0.03}
REFERENCE_SEEDS = 64


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


def measure(settings: Settings, progress) -> Data:
    """Everything for claim E; the same seeds under every ρ, so that differences are paired."""
    mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=settings.num_context)
    data = measure_aligned(settings.aligned, lambda done, total: progress(10 * done, 100 + 10 * total))
    makers = {
        "separate": (separate_model, settings.rhos, settings.duration),
        "merged": (merged_model, settings.merged_rhos, settings.merged_duration),
    }
    for name, (maker, rhos, duration) in makers.items():
        model, starts = random_starts(
            maker(settings.dim, settings.num_heads, settings.init_scale), settings.num_seeds, settings.seed
        )
        trajectory, features = train_ensemble(
            model,
            starts,
            mixture,
            optimizer=sam,
            learning_rate=settings.learning_rate if name == "separate" else settings.learning_rate / 4,
            rhos=rhos,
            duration=duration,
            num_snapshots=settings.num_snapshots,
            progress=lambda done, total: progress(40 + 100 * done // total, 140),
        )
        bias = simplicity_bias(trajectory, features)
        shown = [0, rhos.index(settings.shown_rho)]
        data |= {
            f"{name}_rhos": np.asarray(rhos),
            f"{name}_time": trajectory.time,
            f"{name}_loss": trajectory.loss[shown],
            f"{name}_strength": (trajectory.strength[shown] / features.optimum).astype(np.float32),
            **{f"{name}_{field}": getattr(bias, field) for field in SimplicityBias._fields},
        }
    return data


def statements(data: Data) -> list[Statement]:
    """E1 to E21."""
    return aligned_statements(data) + _random_starts(data) + _merged(data)


def _random_starts(data: Data) -> list[Statement]:
    rhos = list(data["separate_rhos"])
    ratios, progress, times = (data[f"separate_{name}"] for name in ("ratios", "progress", "times"))
    simulation = "icl_theory.verification.sharpness.measure"
    table = []
    for number, (rho, reference) in enumerate(REFERENCE_MEDIANS.items(), start=12):
        intervals = [median_interval(ratios[rhos.index(rho), :, d], confidence=CONFIDENCE) for d in (1, 2, 3)]
        # The reference is a median too: on a log scale the two errors add in squares.
        widening = np.sqrt(1.0 + ratios.shape[1] / REFERENCE_SEEDS)
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = [
                abs(np.log(value / median)) / (widening * np.log(high / low) / 2.0) if np.isfinite(high) else np.nan
                for value, (median, low, high) in zip(reference, intervals, strict=True)
            ]
        worst = int(np.argmax(errors))
        median, low, high = intervals[worst]
        table.append(
            Statement(
                id=f"E{number}",
                text=f"Random starts, ρ = {rho:g}: medians of t_2/t_1, t_3/t_1, t_4/t_1 are compatible with the notes' "
                f"(99 % intervals; t_{worst + 2}/t_1 shown)",
                source="notes §6",
                code=simulation,
                relation="=",
                predicted=reference[worst],
                measured=median,
                error=float(errors[worst]),
                unit="interval half-widths",
                tolerance=1.0,
                interval=(low, high),
                count=3,
                figure="simplicity_bias",
            )
        )
    shown = rhos.index(0.05)
    changes = {
        name: [paired_change(values[shown, :, d], values[0, :, d]) for d in (1, 2, 3)]
        for name, values in (("ratio", ratios), ("progress", progress), ("time", times))
    }
    about: dict[str, Any] = {"figure": "simplicity_bias", "code": simulation}
    table += [
        worst_change(
            at_most,
            "E15",
            "Claim A, separate model, random starts: SAM at ρ = 0.05 lowers ln(t_d/t_1), d = 2, 3, 4, same seeds",
            changes["ratio"],
            source="abstract, claim A",
            **about,
        ),
        worst_change(
            at_least,
            "E16",
            "Not mere delay: with SAM at ρ = 0.05 features 2, 3 and 4 are further on when the first is learned: "
            "change of ln(w_d/w_d*) then",
            changes["progress"],
            source="notes §7",
            **about,
        ),
        worst_change(
            at_least,
            "E17",
            "Found: in absolute time SAM at ρ = 0.05 learns the slow features later, not sooner: change of ln t_d, "
            "d = 2, 3, 4",
            changes["time"],
            source="found here",
            **about,
        ),
    ]
    seeds = times.shape[1]
    shares = np.asarray([np.isfinite(times[rhos.index(rho)].min(axis=-1)).mean() for rho in REFERENCE_LEARNED])
    expected = np.asarray(list(REFERENCE_LEARNED.values()))
    pooled = (shares * seeds + expected * REFERENCE_SEEDS) / (seeds + REFERENCE_SEEDS)
    spread = np.sqrt(pooled * (1.0 - pooled) * (1.0 / seeds + 1.0 / REFERENCE_SEEDS))
    errors = np.abs(shares - expected) / np.maximum(spread, 1e-12)
    worst = int(np.argmax(errors))
    table.append(
        Statement(
            id="E18",
            text="Saddle trap, random starts: the share of runs that learn falls with ρ as the notes found "
            f"(ρ = 0.1, 0.15, 0.2; ρ = {list(REFERENCE_LEARNED)[worst]:g} shown)",
            source="notes §6",
            code=simulation,
            relation="=",
            predicted=float(expected[worst]),
            measured=float(shares[worst]),
            error=float(errors[worst]),
            unit="standard errors",
            tolerance=3.0,
            count=3,
            figure="simplicity_bias",
        )
    )
    return table


def _merged(data: Data) -> list[Statement]:
    """Claim A does not extend to the merged model: what was found, with a bound on how little changes."""
    shown = list(data["merged_rhos"]).index(0.05)
    progress, times = data["merged_progress"], data["merged_times"]
    changes = [paired_change(progress[shown, :, d], progress[0, :, d]) for d in range(1, progress.shape[-1])]
    sizes = [absolute(change) for change in changes]
    about: dict[str, Any] = {"code": "icl_theory.analysis.simplicity_bias", "figure": "merged_model"}
    return [
        worst_change(
            at_least,
            "E19",
            "Merged model: SAM at ρ = 0.05 delays the one drop: change of ln t_1",
            [paired_change(times[shown, :, 0], times[0, :, 0])],
            source="notes §6",
            **about,
        ),
        worst_change(
            at_most,
            "E20",
            "Found: in the merged model SAM does not lower simplicity bias: change of ln(w_d/w_d*) at the drop, "
            "d = 2, 3, 4",
            changes,
            source="notes §6: claim A is false here",
            **about,
        ),
        worst_change(
            at_most,
            "E21",
            "Found: in the merged model SAM hardly changes it at all: |change| of ln(w_d/w_d*), d = 2, 3, 4",
            sizes,
            bound=0.1,
            source="notes §6: claim A is false here",
            **about,
        ),
    ]


CLAIM = Claim(
    "E",
    "sharpness",
    "Sharpness-aware minimization against gradient descent",
    "Does SAM lower simplicity bias (claim A), from aligned and random starts, and in the merged model?",
    Settings(),
    measure,
    statements,
)
