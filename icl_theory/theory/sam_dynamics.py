"""SAM on rank-one ATTN_S: approximations of the reduced system, and the saddle trap (theory notes, §6)."""

from __future__ import annotations

import numpy as np

from icl_theory.errors import InputError, check_number
from icl_theory.tasks.features import Features


def first_learning_time(drive: np.ndarray | float, start: float, delta: np.ndarray | float) -> np.ndarray:
    """Return `t_1 ≈ 1/(2 a_1 u_0 (1 − δ))`: normalised SAM, one dominant feature, small start (δ = 0 is GD)."""
    return np.asarray(1.0 / (2.0 * np.asarray(drive) * start * (1.0 - np.asarray(delta))))


def two_phase_ratio(alpha: np.ndarray | float, delta: np.ndarray | float) -> np.ndarray:
    """Return `t_2/t_1 ≈ 1 + (1−s)/(s(1−δ+δs))` with `s = α/(1−δ)`, `α = a_2/a_1`; `1/α` at δ = 0.

    It assumes that feature 1 alone is perturbed until it is learned, then feature 2 alone. It is good to about 10 %
    well below the trap and meaningless for δ near 1 − α. The prediction is the reduced system; this approximation only
    explains it. NaN where s > 1.
    """
    alpha, delta = np.broadcast_arrays(np.asarray(alpha, float), np.asarray(delta, float))
    if np.any(alpha <= 0) or np.any(alpha > 1):
        raise InputError("alpha", alpha, "give a_2/a_1 between 0 and 1")
    with np.errstate(divide="ignore", invalid="ignore"):
        s = alpha / (1.0 - delta)
        ratio = 1.0 + (1.0 - s) / (s * (1.0 - delta + delta * s))
    return np.where((delta < 1.0) & (s < 1.0 + 1e-12), ratio, np.nan)


def trap_radius(start: np.ndarray) -> float:
    """Return `ρ = √3 ‖u(0)‖ = ‖θ(0)‖`, beyond which normalised SAM stalls near the saddle at zero.

    It is exact for one feature, and for equal features from an equal start. With unequal features an equal start is not
    trapped at this radius (claim `sam_simplicity_bias`).
    """
    return float(np.sqrt(3.0) * np.linalg.norm(start))


def stall_strengths(drive: np.ndarray, rho: float) -> np.ndarray:
    """Return the u_d at which a trapped run stalls: `u_d ∝ 1/a_d` with `‖u‖ = ρ/√3`.

    There `ũ_d = 0` for every feature, as long as `c_d u_d³ ≪ a_d`.
    """
    check_number("rho", rho, minimum=0.0)
    inverse = 1.0 / np.asarray(drive, float)
    return rho / np.sqrt(3.0) * inverse / np.linalg.norm(inverse)


def stable_learning_rate(features: Features, rho: float, slow_strength_root: float) -> float:
    """Return the largest η at which discrete normalised SAM can rest on the first plateau (two features, aligned).

    With feature 1 at its optimum, `u_1 = u_1* + x`, the perturbation is `p_1 = −κ x`,
    `κ = √3 ρ a_1 u_1* / (a_2 u_2²)`, because only feature 2's tiny gradient is left. Then
    `ẋ = −6 a_1 u_1* (1 + κ) x`, so a step overshoots and oscillates unless `η < 1 / (3 a_1 u_1* (1 + κ))`.
    Above that η training departs from the flow. The oscillation keeps the gradient large and shields feature 2 from
    the perturbation, so that feature 2 is learned *sooner* than the flow predicts.

    Args:
        features: The two features.
        rho: ρ of normalised SAM.
        slow_strength_root: u_2 on the plateau, at least its initial value.

    Reference: derived here from the reduced system of notes §6.
    """
    check_number("rho", rho, minimum=0.0)
    check_number("slow_strength_root", slow_strength_root, minimum=0.0, exclusive=True)
    (a1, a2), u1 = features.drive[:2], np.cbrt(features.optimum[0])
    kappa = np.sqrt(3.0) * rho * a1 * u1 / (a2 * slow_strength_root**2)
    return float(1.0 / (3.0 * a1 * u1 * (1.0 + kappa)))
