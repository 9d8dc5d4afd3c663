"""Separate heads from random starts: when each feature is learned, and by which head (theory notes, §16)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from icl_theory.analysis.trajectory import Trajectory
from icl_theory.errors import InputError, as_floats, check_finite, check_number, check_shape
from icl_theory.numerics.cpu_workers import Workers
from icl_theory.tasks.features import Features
from icl_theory.theory.aligned_dynamics import Ascent
from icl_theory.theory.cascade_steps import FINISHED, Cascade, integrate_heads, sample_heads
from icl_theory.theory.head_stability import keeps_out

DESCENT = Ascent()
BLOCK = 512  # starts that are integrated together


class RandomStartCascade(NamedTuple):
    """Separate heads of any rank from any start on infinite data (a `Dynamics`).

    Heads see each other through the strengths `w_d = Σ_h v_h Σ_r k_hrd q_hrd`. Head h follows

        v̇ = 2 Σ_r k_rᵀ Ψ q_r,   k̇_r = 2 v Ψ q_r,   q̇_r = 2 v Ψᵀ k_r,
        Ψ_de = δ_de (a_d − c_d w_d) − (1 − δ_de) C_de M_de,

    with M its own matrix `v Σ_r k_r q_rᵀ` and those of heads that have learned a feature and go on to others. That is
    the flow of the model without the off-diagonal entries of W that other heads have. SAM takes the velocity at
    `θ − ρ F/‖F‖` with one norm over all heads that are not done. A head of rank R is done when R features have 98 % of
    their optimum by it, unless it goes on to others (`keeps_out`): then it stays as it is, and its other entries are
    dropped.

    The smaller the start, the better. Median errors of learning times are 0 to 2 % where the entries of value, key and
    query have standard deviations 0.02, 0.01 and 0.01, and 0 to 10 % at five times that (four features, five heads).
    One start in ten is off by 10 % and 20 %.

    Attributes:
        features: The features, with `entry_curvature`. With many starts they may have an axis of runs.
        value: v, (H,), or (runs, H) for many starts.
        key: Keys in the features' basis, (H, R, D) or (runs, H, R, D); without the axis R for heads of rank one.
        query: Queries likewise.
        ascent: SAM's ascent step; its ρ may be one number a run. The default is gradient flow.
        brake: The rate s of a brake `−2s Σ_i v_i` on every v̇_h; 0 for linear attention (see `softmax_cascade`).
    """

    features: Features
    value: Float[Any, "*runs H"]
    key: Float[Any, "*runs H R D"] | Float[Any, "*runs H D"]
    query: Float[Any, "*runs H R D"] | Float[Any, "*runs H D"]
    ascent: Ascent = DESCENT
    brake: Any = 0.0

    @classmethod
    def from_params(cls, features: Features, params: Mapping[str, Any], ascent: Ascent = DESCENT) -> RandomStartCascade:
        """Read the heads from the parameters of `SeparateAttention` with reduced blocks; many starts have runs first.

        Raises:
            InputError: The parameters are those of another model.
        """
        if params.keys() != {"value", "key", "query"} or np.ndim(params["key"]) != np.ndim(params["value"]) + 2:
            raise InputError("params", "another model", "give the parameters of SeparateAttention with reduced blocks")
        value, key, query = (np.asarray(params[name], float) for name in ("value", "key", "query"))
        directions = np.asarray(features.directions)[..., None, :, :]  # one for all heads
        return cls(features, value, key @ directions, query @ directions, ascent)

    def predict(self, time: np.ndarray) -> Trajectory:
        """Return loss and strengths of one start at the given times; the loss leaves out off-diagonal entries of W.

        Raises:
            InputError: As in `run`; or there are several starts.
        """
        if np.ndim(self.value) != 1:
            raise InputError("value", f"{len(self.value)} starts", "predict one at a time, or use strengths")
        strength = self.strengths(time)
        return Trajectory(np.asarray(time, float), self.features.loss(strength), strength)

    def strengths(self, time: np.ndarray) -> np.ndarray:
        """Return the strengths at ascending times, (T,), or (runs, T) if they differ between starts.

        Past 98 % a feature comes to its optimum as `1 − w_d/w_d* ∝ exp(−6 a_d u_d* t)`. Features that no head
        takes keep the small strength of all heads together.

        Returns:
            The strengths, (T, D), or (runs, T, D) for many starts. They are NaN where `MOST_STEPS` steps are too few.

        Raises:
            InputError: As in `run`.
        """
        return self._as_given(np.concatenate(self._mapped(_strengths, time, 1)))

    def learning_times(self, *, fraction: np.ndarray | float = 0.5, until: float = np.inf) -> np.ndarray:
        """Return when each feature's strength reaches a fraction of its optimum, (D,) or (runs, D).

        Args:
            fraction: The fraction of w_d*, below `FINISHED`; one number or (D,).
            until: Time at which to stop.

        Returns:
            The times; infinity for a feature that no head takes, or not by `until`; NaN if `MOST_STEPS` steps were too
            few to know.

        Raises:
            InputError: As in `run`; or the fraction is not between 0 and `FINISHED`.
        """
        share = np.asarray(fraction, float)
        if share.shape not in ((), (np.shape(self.features.drive)[-1],)) or not np.all(
            (share > 0) & (share < FINISHED)
        ):
            raise InputError("fraction", fraction, f"give a number above 0 and below {FINISHED}, or one a feature")
        return self._as_given(np.concatenate(self._mapped(partial(_crossings, fraction=share), until)))

    def run(self, until: float = np.inf) -> Cascade:
        """Integrate until a time, or until no head that could take a feature is left.

        At most `MOST_STEPS` steps are taken, so give the time if you know when training ends. What is not learned by
        then is not known (NaN).

        Raises:
            InputError: Shapes differ, the features lack the curvature of entries or a drive, or ρ is negative.
        """
        blocks = self._mapped(integrate_heads, until)
        longest = max(block.time.shape[1] for block in blocks)
        joined = Cascade(*(np.concatenate(parts) for parts in zip(*(_padded(b, longest) for b in blocks), strict=True)))
        return Cascade(*(self._as_given(part) for part in joined))

    def _as_given(self, values: np.ndarray) -> np.ndarray:
        """Drop the axis of runs if there is one start without it."""
        return values[0] if np.ndim(self.value) == 1 else values

    def _mapped(self, function: Callable[..., Any], times: Any, axes_of_times: int = 0) -> list[Any]:
        """Apply a function of heads, features, ascent step and times to blocks of starts, several at a time.

        Arrays have runs first. The last block is filled up, so that all blocks run as one program.
        """
        drive, entries = self._checked()
        self._check_times(times, axes_of_times)
        key, query = (self._rows(part) for part in (self.key, self.query))
        given: list[tuple[Any, int]] = [(self.value, 1), (key, 3), (query, 3), (drive, 1), (entries, 2)]
        given += [(keeps_out(drive, entries), 2), (self.brake, 0), (self.ascent.rho, 0), (times, axes_of_times)]
        count = 1 if np.ndim(self.value) == 1 else len(self.value)
        parts = [_with_runs(part, axes, count) for part, axes in given]
        size = min(BLOCK, count)
        blocks = [[part[begin : begin + size] for part in parts] for begin in range(0, count, size)]
        with Workers(len(blocks)) as workers:
            return workers.map(partial(_on_block, function, size, self.ascent.normalised), blocks)

    def _rows(self, part: Any) -> Any:
        """Return keys or queries with the axis R."""
        return np.expand_dims(part, -2) if np.ndim(part) == np.ndim(self.value) + 1 else part

    def _check_times(self, times: Any, axes: int) -> None:
        """Raise `InputError` unless times are at or above 0, and ascend where there are several."""
        field = "time" if axes else "until"
        values = as_floats(field, times)
        runs = np.shape(self.value)[:-1]
        shapes = [values.shape[-1:], (*runs, *values.shape[-1:])] if axes else [()]
        if values.shape not in shapes or (axes and not (values.ndim and values.size)):
            raise InputError(
                field, f"shape {values.shape}", "give (T,) or (runs, T)" if axes else "give one number"
            )
        if not np.all(values >= 0) or (axes and not (np.isfinite(values).all() and np.all(np.diff(values) >= 0))):
            raise InputError(field, times, "give ascending finite times from 0 on" if axes else "give a time from 0 on")

    def _checked(self) -> tuple[np.ndarray, np.ndarray]:
        drive, entries = np.asarray(self.features.drive, float), self.features.entry_curvature
        if entries is None:
            raise InputError("features", "no entry_curvature", "give those of find_features or estimate_features")
        if not np.all(drive > 0):
            raise InputError("features.drive", drive, "every feature needs a positive drive")
        value = as_floats("value", self.value)
        if value.ndim not in (1, 2) or not value.size:
            raise InputError("value", f"shape {value.shape}", "give (H,) or (runs, H), with at least one head and run")
        dim, rows = drive.shape[-1], np.shape(self._rows(self.key))[-2:-1]
        check_shape("key", self._rows(self.key), (*value.shape, *rows, dim))
        check_shape("query", self._rows(self.query), (*value.shape, *rows, dim))
        for name, part in (("value", value), ("key", self.key), ("query", self.query)):
            check_finite(name, as_floats(name, part))
        if drive.ndim > 1:
            check_shape("features.drive", drive, (*value.shape[:-1], dim))
        if np.shape(self.ascent.rho) not in ((), value.shape[:-1]):
            raise InputError("rho", f"shape {np.shape(self.ascent.rho)}", "give one number, or one for each start")
        for rho in np.ravel(self.ascent.rho).tolist():
            check_number("rho", rho, minimum=0.0)
        check_number("brake", self.brake, minimum=0.0)
        return drive, np.asarray(entries, float)


def _with_runs(part: Any, axes: int, count: int) -> np.ndarray:
    """Return an array of numbers or booleans with the runs before its last axes."""
    array = np.asarray(part)
    array = array if array.dtype == bool else array.astype(float)
    return np.broadcast_to(array, (count, *array.shape[array.ndim - axes :]))


def _on_block(function: Callable[..., Any], size: int, normalised: Any, parts: Sequence[np.ndarray]) -> Any:
    """Apply a function to a block of starts, filled up to a size with copies of the first."""
    count = len(parts[0])
    filled = [np.concatenate([part, np.repeat(part[:1], size - count, axis=0)]) for part in parts]
    *heads, drive, entries, out, brake, rho, times = filled
    found = function(heads, drive, entries, out, brake, Ascent(rho, normalised), times)
    return jax.tree.map(lambda values: values[:count], found)


def _strengths(
    heads: Any, drive: np.ndarray, entries: np.ndarray, out: Any, brake: Any, ascent: Ascent, at: Any
) -> np.ndarray:
    """Return the strengths at times, (runs, T, D)."""
    strength, finished = sample_heads(heads, drive, entries, out, brake, ascent, at)
    optimum = drive / np.diagonal(entries, axis1=-2, axis2=-1)
    since = np.fmax(at[..., None] - finished[:, None], 0.0)
    rate = 6.0 * drive * np.cbrt(optimum)
    return optimum[:, None] - (optimum[:, None] - strength) * np.exp(-rate[:, None] * since)


def _crossings(
    heads: Any, drive: Any, entries: Any, out: Any, brake: Any, ascent: Ascent, until: Any, fraction: np.ndarray
) -> Any:
    """Return the times at which strengths first reach a fraction of the optimum, (runs, D); infinity if never."""
    found = integrate_heads(heads, drive, entries, out, brake, ascent, until)
    share = found.strength * (np.diagonal(entries, axis1=-2, axis2=-1) / drive)[:, None]
    after, reached = np.argmax(share >= fraction, axis=1), np.any(share >= fraction, axis=1)
    before = np.maximum(after - 1, 0)
    high, low = (np.take_along_axis(share, place[:, None], axis=1)[:, 0] for place in (after, before))
    end, begin = (np.take_along_axis(found.time, place, axis=1) for place in (after, before))
    part = np.divide(fraction - low, high - low, out=np.ones_like(high), where=high > low)
    never = np.where(np.isnan(found.finished), np.nan, np.inf)
    return np.where(reached, begin + part * (end - begin), never)


def _padded(found: Cascade, length: int) -> Cascade:
    """Repeat the last time and strength up to a number of steps."""
    more = length - found.time.shape[1]
    time = np.pad(found.time, ((0, 0), (0, more)), mode="edge")
    return found._replace(time=time, strength=np.pad(found.strength, ((0, 0), (0, more), (0, 0)), mode="edge"))
