"""Rank-one heads from random starts: when each feature is learned, and by which head (theory notes, §16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from icl_theory.analysis.trajectory import Trajectory
from icl_theory.errors import InputError, as_floats, check_number, check_shape
from icl_theory.numerics.cpu_workers import Workers
from icl_theory.tasks.features import Features
from icl_theory.theory.aligned_dynamics import Ascent
from icl_theory.theory.cascade_steps import FINISHED, Cascade, integrate_heads
from icl_theory.theory.head_stability import keeps_out
from icl_theory.theory.hitting_time import fraction_at_time

DESCENT = Ascent()
BLOCK = 512  # starts that are integrated together


class RandomStartCascade(NamedTuple):
    """Separate heads of rank one from any start on infinite data (a `Dynamics`).

    Heads see each other through the strengths `w_d = Σ_h v_h k_hd q_hd`. Head h follows

        v̇ = 2 kᵀ Ψ q,   k̇ = 2 v Ψ q,   q̇ = 2 v Ψᵀ k,   Ψ_de = δ_de (a_d − c_d w_d) − (1 − δ_de) C_de M_de,

    with M its own matrix `v k qᵀ` and those of heads that have learned a feature and go on to others. That is the flow of
    the model without the off-diagonal entries of W that other heads have. SAM takes the velocity at
    `θ − ρ F/‖F‖` with one norm over all heads that are not done. A head is done when its feature has 98 % of its
    optimum, unless it goes on to others (`keeps_out`): then it stays as it is, and its other entries are dropped.

    The smaller the start, the better. Median errors of learning times are 0 to 1 % where the entries of value, key and
    query have standard deviations 0.02, 0.01 and 0.01, and 0 to 10 % at five times that (four features, five heads).

    Attributes:
        features: The features, with `entry_curvature`.
        value: v, (H,), or (runs, H) for many starts.
        key: Keys in the features' basis, (H, D) or (runs, H, D).
        query: Queries likewise.
        ascent: SAM's ascent step. The default is gradient flow.
    """

    features: Features
    value: Float[Any, "*runs H"]
    key: Float[Any, "*runs H D"]
    query: Float[Any, "*runs H D"]
    ascent: Ascent = DESCENT

    @classmethod
    def from_params(cls, features: Features, params: Mapping[str, Any], ascent: Ascent = DESCENT) -> RandomStartCascade:
        """Read the heads from the parameters of `SeparateAttention` with reduced blocks; many starts have runs first.

        Raises:
            InputError: The parameters are those of another model, or of heads of higher rank.
        """
        if params.keys() != {"value", "key", "query"} or np.ndim(params["key"]) != np.ndim(params["value"]) + 2:
            raise InputError("params", "another model", "give the parameters of SeparateAttention with reduced blocks")
        value, key, query = (np.asarray(params[name], float) for name in ("value", "key", "query"))
        if key.shape[-2] != 1:
            raise InputError("rank", key.shape[-2], "the theory is that of heads of rank one")
        key, query = (matrix[..., 0, :] @ features.directions for matrix in (key, query))
        return cls(features, value, key, query, ascent)

    def predict(self, time: np.ndarray) -> Trajectory:
        """Return loss and strengths at the given times; the loss leaves out off-diagonal entries of W.

        Raises:
            InputError: As in `run`; or there are several starts.
        """
        if np.ndim(self.value) != 1:
            raise InputError("value", f"{len(self.value)} starts", "predict one at a time, or use learning_times")
        time = np.asarray(time, float)
        found = self.run(float(time[-1]))
        strength = np.stack([np.interp(time, found.time, column) for column in found.strength.T], axis=-1)
        limit = np.cbrt(self.features.optimum)
        for d in np.flatnonzero(np.isfinite(found.finished)):
            later = time >= found.finished[d]
            passed = {"drive": self.features.drive[d : d + 1], "limit": limit[d : d + 1]}
            share = fraction_at_time(
                time[later] - found.finished[d], start=limit[d : d + 1] * np.cbrt(FINISHED), **passed
            )
            strength[later, d] = share[:, 0] ** 3 * self.features.optimum[d]
        return Trajectory(time, self.features.loss(strength), strength)

    def learning_times(self, *, fraction: np.ndarray | float = 0.5, until: float = np.inf) -> np.ndarray:
        """Return when each feature's strength reaches a fraction of its optimum, (D,) or (runs, D).

        Args:
            fraction: The fraction of w_d*, below `FINISHED`; one number or (D,).
            until: Time at which to stop.

        Returns:
            The times; infinity for a feature that no head takes, or not by `until`.

        Raises:
            InputError: As in `run`; or the fraction is not between 0 and `FINISHED`.
        """
        share = np.asarray(fraction, float)
        if share.shape not in ((), (len(self.features.drive),)) or not np.all((share > 0) & (share < FINISHED)):
            raise InputError("fraction", fraction, f"give a number above 0 and below {FINISHED}, or one a feature")
        times = np.concatenate([_crossings(block, self.features.optimum, share) for block in self._blocks(until)])
        return times[0] if np.ndim(self.value) == 1 else times

    def run(self, until: float = np.inf) -> Cascade:
        """Integrate until a time, or until no head that could take a feature is left.

        Raises:
            InputError: Shapes differ, the features lack the curvature of entries or a drive, or ρ is negative.
        """
        blocks = self._blocks(until)
        longest = max(block.time.shape[1] for block in blocks)
        joined = Cascade(*(np.concatenate(parts) for parts in zip(*(_padded(b, longest) for b in blocks), strict=True)))
        return Cascade(*(part[0] for part in joined)) if np.ndim(self.value) == 1 else joined

    def _blocks(self, until: float) -> list[Cascade]:
        """Return the cascades of blocks of starts, several at a time; the last block is filled up for the program."""
        drive, entries = self._checked()
        args = (drive, entries, keeps_out(drive, entries), self.ascent, until)
        heads = [np.asarray(part, float) for part in (self.value, self.key, self.query)]
        heads = [part[None] for part in heads] if heads[0].ndim == 1 else heads
        count = len(heads[0])
        size = min(BLOCK, count)
        parts = [[part[begin : begin + size] for part in heads] for begin in range(0, count, size)]
        with Workers(len(parts)) as workers:
            return workers.map(partial(_run_block, size=size, args=args), parts)

    def _checked(self) -> tuple[np.ndarray, np.ndarray]:
        drive, entries = np.asarray(self.features.drive, float), self.features.entry_curvature
        if entries is None:
            raise InputError("features", "no entry_curvature", "give those of find_features or estimate_features")
        if not np.all(drive > 0):
            raise InputError("features.drive", drive, "every feature needs a positive drive")
        value = as_floats("value", self.value)
        check_shape("key", self.key, (*value.shape, len(drive)))
        check_shape("query", self.query, (*value.shape, len(drive)))
        check_number("rho", self.ascent.rho, minimum=0.0)
        return drive, np.asarray(entries, float)


def _run_block(heads: Sequence[np.ndarray], size: int, args: Any) -> Cascade:
    """Integrate a block of starts, filled up to a size with copies of the first."""
    count = len(heads[0])
    filled = [np.concatenate([part, np.repeat(part[:1], size - count, axis=0)]) for part in heads]
    return Cascade(*(part[:count] for part in integrate_heads(filled, *args)))


def _padded(found: Cascade, length: int) -> Cascade:
    """Repeat the last time and strength up to a number of steps."""
    more = length - found.time.shape[1]
    time = np.pad(found.time, ((0, 0), (0, more)), mode="edge")
    return found._replace(time=time, strength=np.pad(found.strength, ((0, 0), (0, more), (0, 0)), mode="edge"))


def _crossings(found: Cascade, optimum: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Return the times at which strengths first reach a fraction of the optimum, (runs, D); infinity if never."""
    share = found.strength / optimum
    after, reached = np.argmax(share >= fraction, axis=1), np.any(share >= fraction, axis=1)
    before = np.maximum(after - 1, 0)
    high, low = (np.take_along_axis(share, place[:, None], axis=1)[:, 0] for place in (after, before))
    end, begin = (np.take_along_axis(found.time, place, axis=1) for place in (after, before))
    part = np.divide(fraction - low, high - low, out=np.ones_like(high), where=high > low)
    return np.where(reached, begin + part * (end - begin), np.inf)
