"""A simulation summarised as numbers for JSON and as lines of text."""

from __future__ import annotations

from typing import Any

import numpy as np

from icl_theory.results import plain
from icl_theory.simulation.prediction import predicted_plateaus
from icl_theory.simulation.simulation import Simulation

ROUNDING = 1e-9  # smaller deviations are due to floating-point rounding
TRAPPING = 0.5  # ρ/‖θ(0)‖ above which SAM may trap a random start (an aligned start: above 1)


def summary(simulation: Simulation) -> dict[str, Any]:
    """Return the numbers of a simulation, ready for JSON (null for a feature that is never learned)."""
    features, bias, comparison = simulation.features, simulation.bias, simulation.comparison
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
    told.append(f"{'feature':>7}  {'drive':>9}  {'learned at':>10}  {'t_d / t_1':>9}")
    for d, (time, ratio) in enumerate(zip(bias.times, bias.ratios, strict=True)):
        when, over = (f"{value:.4g}" if np.isfinite(value) else "–" for value in (time, ratio))
        told.append(f"{d + 1:>7}  {features.drive[d]:>9.4g}  {when:>10}  {over:>9}")
    told += _remarks(simulation, np.isfinite(bias.times))
    if simulation.comparison is not None:
        worst = max(simulation.comparison.loss, simulation.comparison.strength)
        told.append("theory agrees to rounding" if worst < ROUNDING else f"theory deviates by {worst:.2g} at most")
    return told


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
    return [f"{text}; train longer (num_steps), or with a larger learning_rate or init_scale"]


def _finite(values: Any) -> Any:
    return [None if not np.isfinite(v) else float(v) for v in np.atleast_1d(values)]
