"""A simulation summarised as numbers for JSON and as lines of text."""

from __future__ import annotations

from typing import Any

import numpy as np

from icl_theory.analysis.trajectory import relative_error
from icl_theory.results import plain
from icl_theory.simulation.prediction import predicted_plateaus
from icl_theory.simulation.simulation import Simulation

ROUNDING = 1e-9  # smaller deviations are due to floating-point rounding
RESOLVED = 0.01  # error of a learning time above which the summary looks at the distance of snapshots
TRAPPING = 0.5  # ρ/‖θ(0)‖ above which SAM may trap a random start (an aligned start: above 1)


def summary(simulation: Simulation) -> dict[str, Any]:
    """Return the numbers of a simulation, ready for JSON (null for a feature that is never learned).

    An error of a learning time is `measured / predicted − 1`: 0 if the feature is never learned in either, null if it
    is never learned in one of the two.
    """
    features, bias, comparison = simulation.features, simulation.bias, simulation.comparison
    predicted = simulation.predicted_bias
    values: dict[str, Any] = {
        "final_loss": float(simulation.trajectory.loss[-1]),
        "plateaus": [plateau._asdict() for plateau in simulation.plateaus],
    }
    if features is not None and bias is not None:
        values |= {
            "drive": features.drive,
            "optimal_strength": features.optimum,
            "predicted_plateau_losses": predicted_plateaus(simulation.config, features),
            "learning_times": _finite(bias.times),
            "learning_order": [d + 1 for d in bias.order if np.isfinite(bias.times[d])],
            "learning_time_ratios": _finite(bias.ratios),
            "progress_when_first_learned": _finite(bias.progress),
            "rank_agreement": _finite(bias.rank_agreement),
        }
    if bias is not None and predicted is not None:
        values |= {
            "predicted_learning_times": _finite(predicted.times),
            "learning_time_errors": _finite(relative_error(bias.times, predicted.times)),
        }
    if comparison is not None:
        values["prediction_error"] = {name: _finite(getattr(comparison, name))[0] for name in ("loss", "strength")}
    return plain(values)


def lines(simulation: Simulation) -> list[str]:
    """Return lines of text that say when each feature was learned, and how theory compares."""
    config, features, bias = simulation.config, simulation.features, simulation.bias
    levels = predicted_plateaus(config, features)
    least = f" (the optimum has {levels[-1]:.4g})" if len(levels) else ""
    told = [f"final loss {simulation.trajectory.loss[-1]:.4g}{least}"]
    if features is None or bias is None:
        return [*told, "the groups share no eigenbasis, so there are no features to follow"]
    columns = {"drive": _numbers(features.drive), "learned at": _numbers(bias.times)}
    if simulation.predicted_bias is not None:
        times = simulation.predicted_bias.times
        columns |= {"predicted": _numbers(times), "error": _percentages(bias.times, times)}
    columns["t_d / t_1"] = _numbers(bias.ratios)
    told.append("  ".join(["feature", *(f"{name:>10}" for name in columns)]))
    for d, row in enumerate(zip(*columns.values(), strict=True)):
        told.append("  ".join([f"{d + 1:>7}", *(f"{text:>10}" for text in row)]))
    return [*told, *_remarks(simulation, np.isfinite(bias.times)), *_compared(simulation)]


def _compared(simulation: Simulation) -> list[str]:
    """Return how theory compares, learning times first: a step that comes early moves a curve by its whole height."""
    comparison, bias, predicted = simulation.comparison, simulation.bias, simulation.predicted_bias
    if comparison is None or bias is None or predicted is None:
        return []
    worst = max(comparison.loss, comparison.strength)
    if worst < ROUNDING:
        return ["theory agrees to rounding"]
    told = []
    both = np.isfinite(bias.times) & np.isfinite(predicted.times)
    if both.any():
        errors = np.abs(relative_error(bias.times, predicted.times))
        farthest = int(np.argmax(np.where(both, errors, -1.0)))
        told = [f"theory: learning times differ by {100 * errors[farthest]:.2g} % at most"]
        apart = float(np.max(np.diff(simulation.trajectory.time)))
        if errors[farthest] > RESOLVED and abs(bias.times[farthest] - predicted.times[farthest]) < apart:
            told[0] += f", less than snapshots are apart ({apart:.3g}); raise num_snapshots to see more"
    for learned, other, words in (
        (bias.times, predicted.times, "in this run but not in theory"),
        (predicted.times, bias.times, "in theory but not in this run"),
    ):
        only = np.flatnonzero(np.isfinite(learned) & np.isinf(other))
        told += [f"theory: learned {words}: feature {', '.join(str(d + 1) for d in only)}"] if only.size else []
    unknown = np.flatnonzero(np.isnan(predicted.times))
    if unknown.size:
        missing = ", ".join(str(d + 1) for d in unknown)
        return [*told, f"theory: not known for feature {missing}, its integration ran out of steps"]
    if np.isinf(bias.times).all():
        return told or ["theory: nothing is learned either"]
    far = f"theory: curves differ by {worst:.2g} of their largest value at most"
    return [*told, f"{far}; a step that comes early or late makes this large"]


def _numbers(values: np.ndarray) -> list[str]:
    return [f"{value:.4g}" if np.isfinite(value) else "–" for value in values]


def _percentages(measured: np.ndarray, predicted: np.ndarray) -> list[str]:
    """Return errors of learning times as text, with a dash where one or both are infinite."""
    errors = np.where(np.isfinite(measured), relative_error(measured, predicted), np.inf)
    rounded = np.where(np.abs(errors) < ROUNDING, 0.0, errors)
    return [f"{100 * error:+.2g} %" if np.isfinite(error) else "–" for error in rounded]


def _remarks(simulation: Simulation, learned: np.ndarray) -> list[str]:
    """Return a remark on the features that were not learned and the likely reason, if there are any."""
    if learned.all():
        return []
    missing = ", ".join(str(d + 1) for d in np.flatnonzero(~learned))
    config, start = simulation.config, simulation.start_norm
    text = f"not learned: feature {missing}" if learned.any() else "nothing was learned"
    if start == 0:
        return [f"{text}: the start is zero, a saddle; raise init_scale"]
    if not learned.any() and config.optimizer == "sam" and config.rho > TRAPPING * start:
        share = config.rho / start
        return [f"{text}: ρ is {share:.2g} times the start's length; SAM stalls near the saddle (notes, §6); lower rho"]
    if simulation.never:
        without = ", ".join(str(d + 1) for d in simulation.never)
        told = [f"{text}; theory: no head is left for feature {without}; raise num_heads"]
        return told if len(simulation.never) == np.sum(~learned) else [f"{told[0]}, and train longer (num_steps)"]
    return [f"{text}; train longer (num_steps), or with a larger learning_rate or init_scale"]


def _finite(values: Any) -> Any:
    return [None if not np.isfinite(v) else float(v) for v in np.atleast_1d(values)]
