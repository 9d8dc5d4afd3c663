"""Escape of one head from a plateau, in closed form (theory notes, §16)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from icl_theory.errors import InputError, as_floats, check_number, check_shape

NODES, WEIGHTS = np.polynomial.legendre.leggauss(32)
MOST_TURNS = 1  # v² is convex in V, so it has no second zero on the way back
PIECES = 96  # of each quadrature, with geometrically growing lengths


def escape_time(
    value: float,
    key: Float[np.ndarray, " D"] | Float[np.ndarray, "R D"],
    query: Float[np.ndarray, " D"] | Float[np.ndarray, "R D"],
    *,
    drive: Float[np.ndarray, " D"],
    strength: Float[np.ndarray, " D"],
) -> tuple[float, int]:
    """Return when a head that is alone first has a given strength in some feature, and the feature.

    On a plateau a head follows `v̇ = 2 Σ a_d k_d q_d`, `k̇_d = 2 v a_d q_d`, `q̇_d = 2 v a_d k_d`, with the drives a_d of
    features not yet learned. With `p = (k + q)/√2`, `m = (k − q)/√2` and `V = ∫ v dt`,

        p_d = p_d(0) exp(2 a_d V),   m_d = m_d(0) exp(−2 a_d V),
        v²  = v(0)² + ½ Σ_d [p_d² − p_d(0)² + m_d² − m_d(0)²],   t = ∫ dV / v.

    Where v² is 0, v changes its sign and V goes back. As v² is convex in V, a head turns once at most and then runs
    away. It never escapes if nothing grows on the side it runs to, or if v² touches zero. Only the squares of p_d and
    m_d occur, so a head of rank R does what one of rank one does whose p_d and m_d are the norms of its R entries on
    feature d.

    This closed form explains and checks `RandomStartCascade`, which integrates instead: heads share the drives that are
    left while one of them comes to its optimum.

    Args:
        value: v(0).
        key: Key k(0) in the features' basis, or keys (R, D).
        query: Query q(0) in the features' basis.
        drive: Drive a_d of each feature, 0 for those that are learned.
        strength: Strength `v Σ_r k_rd q_rd` of each feature at which the head has escaped, above that at the start.

    Returns:
        The time and the feature; (infinity, −1) if the head never escapes.

    Raises:
        InputError: Shapes differ, a drive is negative, or a strength is not above that at the start.
    """
    key, query, drive, strength = map(as_floats, ("key", "query", "drive", "strength"), (key, query, drive, strength))
    check_number("value", value)
    check_shape("query", query, key.shape)
    for name, array in {"drive": drive, "strength": strength}.items():
        check_shape(name, array, key.shape[-1:])
    if np.any(drive < 0):
        raise InputError("drive", drive, "give drives at or above 0")
    key, query = np.atleast_2d(key), np.atleast_2d(query)
    if np.any(value * np.sum(key * query, axis=0) >= strength):
        raise InputError("strength", strength, "give more than the head has at the start")
    plus, minus = (np.linalg.norm(part, axis=0) / np.sqrt(2.0) for part in (key + query, key - query))
    head, time = _Head(float(value), plus, minus, drive), 0.0
    sign = np.sign(value) or np.sign(head.slope())
    for _ in range(MOST_TURNS + 1):
        turn = head.turning_point(sign)
        end, feature = head.first_crossing(sign, strength, turn)
        if feature >= 0:
            return time + head.duration(end), feature
        if turn is None:
            break
        time += head.duration(turn)
        head, sign = head.at(turn), -sign
    return np.inf, -1


class _Head:
    """A head as a function of V, which is 0 at its start."""

    def __init__(self, value: float, plus: np.ndarray, minus: np.ndarray, drive: np.ndarray):
        self.value, self.plus, self.minus, self.drive = value, plus, minus, drive

    def square(self, v: Any) -> Any:
        """v² at V."""
        rate = self._rate(v)
        return self.value**2 + 0.5 * np.sum(self.plus**2 * np.expm1(rate) + self.minus**2 * np.expm1(-rate), axis=-1)

    def slope(self, v: float = 0.0) -> float:
        """Half the derivative of v² by V, which is that of v by the time over v; it rises with V."""
        rate = self._rate(v)
        return float(np.sum(self.drive * (self.plus**2 * np.exp(rate) - self.minus**2 * np.exp(-rate))))

    def grid(self, sign: float) -> np.ndarray:
        """A grid of V in a direction: resolves growth by e^(1/8), until the fastest entries grew by e^200."""
        grows = (self.plus if sign > 0 else self.minus) > 0
        fastest = float(np.max(self.drive[grows], initial=0.0))
        return sign * np.arange(1, 1601) / (16.0 * fastest) if fastest > 0 else np.zeros(0)

    def _rate(self, v: Any) -> Any:
        """4 a_d V; features without growing entries may have any, so it is cut off before exponentials overflow."""
        return np.clip(4.0 * self.drive * np.asarray(v, float)[..., None], -600.0, 600.0)

    def lowest(self, sign: float) -> float:
        """The V in a direction at which v², a convex function, is smallest."""
        far = self.grid(sign)[-1:]
        if sign * self.slope() >= 0 or not far.size:
            return 0.0
        return _bisected(lambda v: -sign * self.slope(v), 0.0, float(far[0]))

    def at(self, v: float) -> _Head:
        """The head at V, where v is 0."""
        grown = np.exp(2.0 * self.drive * v)
        return _Head(0.0, self.plus * grown, self.minus / grown, self.drive)

    def turning_point(self, sign: float) -> float | None:
        """The first V in a direction at which v² is 0, or None."""
        low = self.lowest(sign)
        if self.square(low) > 0:
            return None
        return _bisected(lambda v: float(self.square(v)), 0.0, low) if low else None

    def first_crossing(self, sign: float, strength: np.ndarray, last: float | None) -> tuple[float, int]:
        """The first V in a direction at which a feature has its strength, and the feature; (0, −1) if none has."""

        def excess(v: Any) -> Any:
            rate = self._rate(v)
            product = 0.5 * (self.plus**2 * np.exp(rate) - self.minus**2 * np.exp(-rate))
            return sign * np.sqrt(np.maximum(self.square(v), 0.0))[..., None] * product - strength

        grid = self.grid(sign)
        if last is not None:
            grid = grid[np.abs(grid) < abs(last)]
        crossed = excess(grid) >= 0
        if not crossed.any():
            return 0.0, -1
        first = int(np.argmax(crossed.any(axis=-1)))
        begin = grid[first - 1] if first else 0.0
        found = [
            (abs(_bisected(partial(lambda d, v: -float(excess(v)[d]), d), begin, grid[first])), int(d))
            for d in np.flatnonzero(crossed[first])
        ]
        end, feature = min(found)
        return sign * end, feature

    def duration(self, end: float) -> float:
        """The time from the start to V; 1/v is largest, at most as an inverse square root, at the ends and `lowest`."""
        low = self.lowest(float(np.sign(end)))
        cuts = [0.0, low, end] if 0.0 < abs(low) < abs(end) else [0.0, end]
        return sum(self._between(begin, stop) for begin, stop in itertools.pairwise(cuts))

    def _between(self, begin: float, end: float) -> float:
        angle = (
            0.5 * np.pi * np.concatenate([place + 0.5 * (NODES + 1.0) / PIECES for place in np.arange(PIECES) / PIECES])
        )
        weight = np.tile(0.25 * np.pi * WEIGHTS / PIECES, PIECES)
        place = begin + (end - begin) * np.sin(angle) ** 2
        speed = np.sqrt(np.maximum(self.square(place), 1e-300))
        return float(abs(end - begin) * np.sum(weight * 2.0 * np.sin(angle) * np.cos(angle) / speed))


def _bisected(function: Callable[[float], float], begin: float, end: float) -> float:
    """The place between begin and end where a function that is positive at begin changes its sign."""
    for _ in range(200):
        middle = 0.5 * (begin + end)
        if middle in (begin, end):
            break
        begin, end = (middle, end) if function(middle) > 0 else (begin, middle)
    return end
