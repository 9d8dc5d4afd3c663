"""Learning times and the optimum when groups are upsampled (theory notes, §8).

With factors κ_g the shares become `π_g κ_g / Σ_h π_h κ_h`. The drives a_d and curvatures c_d are sums over the groups,
so everything in §3 to §6 still applies. Features keep the numbers they have in the original mixture (κ = 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from icl_theory.analysis.learning_times import learning_times
from icl_theory.errors import InputError, as_floats, check_number
from icl_theory.tasks.features import Features, GroupFeatures
from icl_theory.theory.aligned_dynamics import LEARNED, AlignedFlow, Ascent
from icl_theory.theory.hitting_time import hitting_time, start_of_each
from icl_theory.theory.sam_dynamics import two_phase_ratio
from icl_theory.upsampling.factor import ratio_factor

SNAPSHOTS = 4001


def upsampled_learning_times(
    groups: GroupFeatures, factors: Any, *, start: np.ndarray | float, fraction: float = 0.5
) -> np.ndarray:
    """Return when gradient flow on the upsampled mixture brings each feature to `fraction` of its optimum, (D,).

    Heads are aligned and balanced, from u_d(0) = `start`. If no two groups share a feature, `w_d*` does not change and
    `t_d ∝ 1/(π_g κ_g)`, so `t_2/t_1` is divided by exactly κ. Otherwise c_d, and so the optimum, changes too.

    Raises:
        InputError: A feature has no drive, or `hitting_time` or `GroupFeatures.upsampled` refuses its input.
    """
    features = groups.upsampled(factors)
    if not np.all(features.drive > 0):
        raise InputError("factors", factors, "a feature is left without drive; give positive factors")
    start = start_of_each(start, len(features.drive))
    return hitting_time(fraction, drive=features.drive, optimum=features.optimum, start=start)


def upsampled_loss(groups: GroupFeatures, factors: Any) -> float:
    """Return the original mixture's loss at the upsampled one's optimum: `L* + Σ_d c_d (w_d*(κ) − w_d*)²`.

    c_d and w_d* without κ are those of the original. The sum is the cost of the biased optimum.
    """
    original = groups.upsampled()
    return float(original.loss(groups.upsampled(factors).optimum))


def path_matched_factors(
    features: Features, *, start: np.ndarray | float, rho: float, fraction: float = 0.5
) -> np.ndarray:
    """Return `κ_d = (t_d/t_1 of gradient flow) / (t_d/t_1 of SAM's flow)`, from the reduced system, (D,) with κ_1 = 1.

    Upsampling the group of feature d by κ_d gives gradient descent SAM's ratios of learning times, provided that no two
    groups share a feature. Computed in float64 whatever the session's precision.

    Args:
        features: The features of the original mixture.
        start: u_d(0), (D,) or one number, below `fraction` of the optimal strength in every feature.
        rho: ρ of normalised SAM.
        fraction: The fraction of the optimum that counts as learned, below 0.95 (where SAM's flow ends).

    Raises:
        InputError: A fraction or a start is out of range, or SAM's flow does not learn every feature (saddle trap).
    """
    check_number("fraction", fraction, minimum=0.0, maximum=LEARNED - 1e-9, exclusive=True)
    check_number("rho", rho, minimum=0.0)
    start = start_of_each(start, len(features.drive))
    plain = hitting_time(fraction, drive=features.drive, optimum=features.optimum, start=start)
    if not np.all(plain > 0):
        raise InputError("start", start, f"some feature has {fraction:g} of its optimum already; give less")
    for longer in (4.0, 40.0):  # SAM delays
        time = np.concatenate([[0.0], np.geomspace(plain.min() / 50.0, longer * plain.max(), SNAPSHOTS)])
        flow = AlignedFlow(features, start, Ascent(rho), stiff=True).predict(time)
        times = learning_times(time, np.nan_to_num(flow.strength / features.optimum), threshold=fraction)
        if np.isfinite(times).all():
            return ratio_factor(plain / plain[0], target=times / times[0])
    raise InputError("rho", rho, "SAM's flow does not learn every feature from this start; give less")


def two_phase_factor(alpha: np.ndarray | float, delta: np.ndarray | float) -> np.ndarray:
    """Return `κ = (1/α) / (t_2/t_1 of SAM in two phases)`: the path-matched factor of two features in closed form.

    It puts the approximation of notes §6 (see `two_phase_ratio`) into `κ = R_GD/R_SAM`:
    `κ = s(1−δ+δs) / (α (1 − s + s(1−δ+δs)))`, `s = α/(1−δ)`. NaN where s > 1.

    Args:
        alpha: a_2/a_1.
        delta: δ = ρ/(√3 u_0).

    Raises:
        InputError: α is outside (0, 1], δ is negative or NaN, or the shapes do not broadcast.

    Reference: derived here.
    """
    alpha, delta = as_floats("alpha", alpha), as_floats("delta", delta)
    if not np.all(delta >= 0):
        raise InputError("delta", delta, "give numbers that are not negative")
    try:
        return np.asarray(1.0 / (alpha * two_phase_ratio(alpha, delta)))
    except InputError:
        raise
    except ValueError:
        raise InputError(
            "alpha", f"shape {alpha.shape}", f"delta has shape {delta.shape}; give shapes that fit"
        ) from None
