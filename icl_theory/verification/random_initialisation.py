"""D. Gradient descent from random initialisation: order of learning, plateaus, learning-time ratios (notes, §4-§6)."""

from __future__ import annotations

import dataclasses

import numpy as np

from icl_theory.analysis import median_interval, simplicity_bias
from icl_theory.sharpness import gd
from icl_theory.spectra import linear_spectrum
from icl_theory.tasks import TaskMixture
from icl_theory.theory.fixed_points import nested_plateau_losses
from icl_theory.verification.claim import Claim, Data
from icl_theory.verification.ensembles import plateau_levels, random_starts, separate_model, train_ensemble
from icl_theory.verification.statement import Statement, agrees, at_least

CONFIDENCE = 0.99


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rank one, H = 5, D = 4; a small start shows clean plateaus, the notes' start is the one of their table.

    Power: 64 seeds give the level of a plateau to 2·10⁻⁵ of it (99 % interval of the median).
    """

    dim: int = 4
    num_heads: int = 5
    num_context: int = 31
    num_seeds: int = 64
    init_scale: float = 0.1
    learning_rate: float = 0.02
    duration: float = 2500.0
    small_init_scale: float = 0.02
    small_learning_rate: float = 0.1
    small_duration: float = 15_000.0
    num_snapshots: int = 1500
    seed: int = 1


def measure(settings: Settings, progress) -> Data:
    """Losses and strengths of every seed, at the notes' initial scale and at a smaller one."""
    mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=settings.num_context)
    data: Data = {}
    runs = {
        "notes": (settings.init_scale, settings.learning_rate, settings.duration),
        "small": (settings.small_init_scale, settings.small_learning_rate, settings.small_duration),
    }
    for part, (name, (scale, rate, duration)) in enumerate(runs.items()):
        model, starts = random_starts(
            separate_model(settings.dim, settings.num_heads, scale), settings.num_seeds, settings.seed
        )
        trajectory, features = train_ensemble(
            model,
            starts,
            mixture,
            optimizer=gd,
            learning_rate=rate,
            duration=duration,
            num_snapshots=settings.num_snapshots,
            progress=lambda done, total, part=part: progress(part * total + done, 2 * total),
        )
        bias = simplicity_bias(trajectory, features)
        data |= {
            f"{name}_time": trajectory.time,
            f"{name}_loss": trajectory.loss[0],
            f"{name}_strength": (trajectory.strength[0] / features.optimum).astype(np.float32),
            f"{name}_learning_times": bias.times[0],
            f"{name}_ratios": bias.ratios[0],
            f"{name}_rank_agreement": bias.rank_agreement[0],
            f"{name}_levels": plateau_levels(trajectory.time, trajectory.loss[0], bias.times[0]),
        }
    data["plateau_losses"] = nested_plateau_losses(features)
    data["drive"] = features.drive
    return data


def statements(data: Data) -> list[Statement]:
    """D1 to D6."""
    source, code = "notes §4", "icl_theory.theory.fixed_points.nested_plateau_losses"
    learned = np.isfinite(data["small_learning_times"])
    with np.errstate(invalid="ignore"):
        in_order = learned.all(axis=1) & np.all(np.diff(data["small_learning_times"], axis=1) > 0, axis=1)
    table = [
        at_least(
            "D1",
            "From small random initialisation all features are learned, in the order of their drives (share of seeds)",
            source=source,
            code="icl_theory.analysis.simplicity_bias",
            bound=0.9,
            measured=float(in_order.mean()),
            figure="feature_strengths",
        )
    ]
    for m in range(data["small_levels"].shape[1]):
        levels = data["small_levels"][:, m]
        levels = levels[np.isfinite(levels)]
        median, low, high = median_interval(levels, confidence=CONFIDENCE)
        table.append(
            dataclasses.replace(
                agrees(
                    f"D{m + 2}",
                    f"The plateau with {m + 1} of 4 features learned lies at the predicted loss "
                    f"(median of {len(levels)} seeds)",
                    source=source,
                    code=code,
                    predicted=data["plateau_losses"][m + 1],
                    measured=median,
                    tolerance=0.02,
                    figure="loss_plateaus",
                ),
                interval=(low, high),
            )
        )
    complete = np.isfinite(data["small_learning_times"]).all(axis=1)
    table.append(
        agrees(
            "D5",
            "Where all features are learned, the last loss is that of the optimum (median over seeds)",
            source="notes §3",
            code=code,
            predicted=data["plateau_losses"][-1],
            measured=np.median(data["small_loss"][complete, -1]),
            tolerance=0.01,
            figure="loss_plateaus",
        )
    )
    agreement = np.nan_to_num(data["notes_rank_agreement"], nan=-1.0)  # nothing learned is no agreement
    median, low, high = median_interval(agreement, confidence=CONFIDENCE)
    table.append(
        at_least(
            "D6",
            "At the larger initial scale of the notes' table the order is still simple first (Kendall's τ, median)",
            source="notes §7",
            code="icl_theory.analysis.simplicity_bias",
            bound=1.0,
            measured=median,
            interval=(low, high),
        )
    )
    return table


CLAIM = Claim(
    "D",
    "random_initialisation",
    "Random initialisation, gradient descent",
    "From random starts, are features learned simple first, and at the predicted plateau losses?",
    Settings(),
    measure,
    statements,
)
