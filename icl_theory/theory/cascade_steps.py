"""Integration of many heads that are coupled through strengths and learned heads (theory notes, §16).

Runs are the last axis, so that numbers of one kind lie together. Each run has steps of its own length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from icl_theory.theory.aligned_dynamics import Ascent

FINISHED = 0.98  # share of w_d* at which a head has done with its feature
STEP = 0.5  # length of a step, in units of the fastest head's time
STEPS_AT_ONCE = 64
KEPT = 16  # times as many steps are held at once
MOST_STEPS = 8192
STAGES, WEIGHTS = (0.0, 0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6)  # of the Runge–Kutta method


class Cascade(NamedTuple):
    """Strengths over time, and the head that takes each feature. For many starts, the axis of runs comes first.

    Attributes:
        time: Times of the integration, (S,).
        strength: Strengths w_d at these times, (S, D).
        finished: Time at which each feature had 98 % of its optimum, (D,); infinity if never.
        head: Number of the head that takes each feature, (D,); −1 where none does.
        dormant: Heads that have taken no feature, (H,).
    """

    time: np.ndarray
    strength: np.ndarray
    finished: np.ndarray
    head: Int[Any, "*runs D"]
    dormant: Bool[Any, "*runs H"]


def integrate_heads(
    heads: Sequence[np.ndarray],
    drive: np.ndarray,
    entries: np.ndarray,
    out: np.ndarray,
    brake: np.ndarray,
    ascent: Ascent,
    until: Any,
) -> Cascade:
    """Integrate heads (value, key, query) until a time, or until nothing is left to learn.

    Every array has runs first, so features, ρ and times may differ between runs.

    Args:
        heads: Values (runs, H), keys and queries (runs, H, R, D).
        drive: The drives a_d, (runs, D).
        entries: The curvatures C_de of entries, (runs, D, D).
        out: Whether a head that has learned d keeps out of e, (runs, D, D).
        brake: The rate s at which the sum of values is braked, (runs,).
        ascent: SAM's ascent step, with ρ of shape (runs,).
        until: The times, (runs,). At most `MOST_STEPS` steps are taken.

    Returns:
        The cascade, with runs first in every field.
    """
    pieces = list(_pieces(heads, _Args.of(drive, entries, out, brake, ascent, until)))
    time, strength = (np.concatenate(parts, axis=-1) for parts in zip(*(piece[1:] for piece in pieces), strict=True))
    owns, finished = np.asarray(pieces[-1][0].owns), np.asarray(pieces[-1][0].finished)
    head = np.where(owns.any(0), owns.argmax(0), -1)
    return Cascade(time, np.moveaxis(strength, 1, -1), finished.T, head.T, ~owns.any(1).T)


def sample_heads(
    heads: Sequence[np.ndarray],
    drive: np.ndarray,
    entries: np.ndarray,
    out: np.ndarray,
    brake: np.ndarray,
    ascent: Ascent,
    at: Float[np.ndarray, "runs T"],
) -> tuple[Float[np.ndarray, "runs T D"], Float[np.ndarray, "runs D"]]:
    """Integrate heads as `integrate_heads` does, and keep the strengths at ascending times alone.

    Returns:
        The strengths, and the time at which each feature had 98 % of its optimum; infinity if never.
    """
    found, finished = np.empty((*at.shape, drive.shape[-1])), np.empty(0)
    for state, time, strength in _pieces(heads, _Args.of(drive, entries, out, brake, ascent, at[:, -1])):
        for run, times in enumerate(at):
            rest = slice(np.searchsorted(times, time[run, 0]), None)  # a later piece overwrites what is beyond this one
            for d, column in enumerate(strength[run]):
                found[run, rest, d] = np.interp(times[rest], time[run], column)
        finished = np.asarray(state.finished).T
    return found, finished


class _Args(NamedTuple):
    drive: Array
    entries: Array
    keeps_out: Array
    brake: Array
    ascent: Ascent
    until: Array

    @classmethod
    def of(cls, drive: Any, entries: Any, out: Any, brake: Any, ascent: Ascent, until: Any) -> _Args:
        """The arguments with runs last."""
        with jax.enable_x64(True):
            drive, entries, out = (jnp.asarray(np.moveaxis(part, 0, -1)) for part in (drive, entries, out))
            ascent = ascent._replace(rho=jnp.asarray(ascent.rho))
            return cls(drive, entries, out, jnp.asarray(brake), ascent, jnp.asarray(until))


class _State(NamedTuple):
    """Runs are the last axis, so that numbers of one kind lie together."""

    time: Array
    value: Array
    key: Array
    query: Array
    owns: Array  # (H, D, runs): head h has finished feature d
    finished: Array  # (D, runs)
    done: Array

    @classmethod
    def begin(cls, value: Array, key: Array, query: Array) -> _State:
        """The state at time 0."""
        runs = value.shape[-1]
        owns, never = jnp.zeros((len(key), *key.shape[2:]), bool), jnp.full(key.shape[2:], jnp.inf)
        return cls(jnp.zeros(runs), value, key, query, owns, never, jnp.zeros(runs, bool))


def _pieces(heads: Sequence[np.ndarray], args: _Args) -> Iterator[tuple[_State, np.ndarray, np.ndarray]]:
    """Yield the state after many steps, the times (runs, S) and the strengths (runs, D, S), beginning at the last."""
    with jax.enable_x64(True):
        state = _State.begin(*(jnp.asarray(np.moveaxis(part, 0, -1)) for part in heads))
    time, strength = np.zeros((len(heads[0]), 1)), np.einsum("nh,nhrd,nhrd->nd", *heads)[..., None]
    for _ in range(MOST_STEPS // (STEPS_AT_ONCE * KEPT)):
        times, strengths = [time[:, -1:]], [strength[..., -1:]]
        for _ in range(KEPT):
            if bool(state.done.all()):
                break
            with jax.enable_x64(True):
                state, (after, reached) = _advance(state, args)
            times.append(np.asarray(after).T)
            strengths.append(np.asarray(reached).T)
        time, strength = np.concatenate(times, axis=-1), np.concatenate(strengths, axis=-1)
        yield state, time, strength
        if bool(state.done.all()):
            return


@jax.jit
def _advance(state: _State, args: _Args) -> tuple[_State, tuple[Array, Array]]:
    return jax.lax.scan(lambda now, _: _step(now, args), state, None, length=STEPS_AT_ONCE)


def _step(state: _State, args: _Args) -> tuple[_State, tuple[Array, Array]]:
    """Take one step of the classical Runge–Kutta method, with a length of its own for each run."""
    curvature = _diagonal(args.entries)
    optimum = args.drive / curvature
    rest = _resting(state.owns, args.keeps_out, state.key.shape[1])
    live = ~rest
    heads = (state.value, state.key, state.query)
    residual = _residual(heads, state.owns, rest, args)
    size = jnp.abs(state.value) + sum(jnp.sqrt(jnp.sum(part**2, (1, 2))) for part in heads[1:])
    size += jnp.where(args.ascent.normalised, args.ascent.rho, 0.0)  # the point at which the velocity is taken
    parts = jnp.abs(state.value)[:, None] * jnp.sum(jnp.abs(state.key * state.query), 1)
    pull = jnp.max(jnp.abs(residual), 0) + jnp.sum(curvature * parts, 1)
    rate = jnp.max(jnp.where(live, 2.0 * pull * size, 0.0), 0) + 2.0 * args.brake * jnp.sum(live, 0)
    still = ~state.done & (rate > 0) & (state.time < args.until)
    length = jnp.where(still, jnp.minimum(STEP / jnp.where(rate > 0, rate, 1.0), args.until - state.time), 0.0)

    def moved(by: Any, share: Any) -> tuple[Array, ...]:
        return tuple(part + share * length * change for part, change in zip(heads, by, strict=True))

    def stage(found: Any, shares: Any) -> tuple[Any, None]:
        """Take the velocity at a share of the step along the last one, and add it to the mean with its weight."""
        last, mean = found
        share, weight = shares
        now = _velocity(moved(last, share), state.owns, rest, args)
        return (now, tuple(total + weight * part for total, part in zip(mean, now, strict=True))), None

    nothing = tuple(jnp.zeros_like(part) for part in heads)
    (_, mean), _ = jax.lax.scan(stage, (nothing, nothing), (jnp.asarray(STAGES), jnp.asarray(WEIGHTS)))
    value, key, query = moved(mean, 1.0)
    time = state.time + length
    parts = _parts((value, key, query))
    strength = jnp.sum(jnp.where(rest[:, None] & ~state.owns, 0.0, parts), 0)
    newly = (strength >= FINISHED * optimum) & ~state.owns.any(0)
    leading = jnp.argmax(jnp.where(rest[:, None], -jnp.inf, parts), 0)
    owns = state.owns | (newly[None] & (jnp.arange(len(value))[:, None, None] == leading[None]))
    finished = jnp.where(newly, time, state.finished)
    done = ~still | owns.any(0).all(0)
    return _State(time, value, key, query, owns, finished, done), (time, strength)


def _resting(owns: Array, keeps_out: Array, rank: int) -> Array:
    """Return the heads with as many features as their rank that keep out of all that are not finished, (H, runs)."""
    open_ = ~owns.any(0)  # (D, runs)
    goes_on = jnp.einsum("hdr,der,er->hr", owns.astype(float), (~keeps_out).astype(float), open_.astype(float)) > 0
    return (jnp.sum(owns, 1) >= rank) & ~goes_on


def _velocity(heads: Any, owns: Array, rest: Array, args: _Args) -> tuple[Array, ...]:
    """Return the velocity of all heads under gradient descent or SAM."""
    plain = _gradient(heads, owns, rest, args)
    squares = jnp.sum(plain[0] ** 2, 0) + sum(jnp.sum(part**2, (0, 1, 2)) for part in plain[1:])
    norm = jnp.sqrt(squares)
    unit = jnp.where(norm > 0, 1.0 / jnp.where(norm > 0, norm, 1.0), 0.0)
    scale = args.ascent.rho * jnp.where(args.ascent.normalised, unit, 1.0)
    moved = tuple(part - scale * change for part, change in zip(heads, plain, strict=True))
    return jax.lax.cond(jnp.any(args.ascent.rho > 0), lambda: _gradient(moved, owns, rest, args), lambda: plain)


def _residual(heads: Any, owns: Array, rest: Array, args: _Args) -> Array:
    """Return the drives that are left, (D, runs)."""
    parts = jnp.where(rest[:, None] & ~owns, 0.0, _parts(heads))
    left = args.drive - _diagonal(args.entries) * jnp.sum(parts, 0)
    return jnp.where(jnp.any(owns & rest[:, None], 0), 0.0, left)  # the last 2 % would keep others going


def _gradient(heads: Any, owns: Array, rest: Array, args: _Args) -> tuple[Array, ...]:
    value, key, query = heads
    residual = _residual(heads, owns, rest, args)
    others = args.entries * (1.0 - jnp.eye(key.shape[2]))[..., None]
    large = jnp.any(owns, 1) & ~rest  # heads that have learned and go on: all see their entries off the diagonal
    own = jnp.where(large, 0.0, value)[:, None, None]
    against_query = jnp.einsum("der,hkser->hksdr", others, query[:, :, None] * query[:, None])
    against_key = jnp.einsum("der,hksdr->hkser", others, key[:, :, None] * key[:, None])
    on_query = residual * query - own * jnp.sum(key[:, None] * against_query, 2)  # Ψ q
    on_key = residual * key - own * jnp.sum(query[:, None] * against_key, 2)  # Ψᵀ k

    def with_large() -> tuple[Array, Array]:
        led = jnp.where(large, value, 0.0)[:, None, None]
        matrix = others * jnp.sum((led * key)[:, :, :, None] * query[:, :, None], (0, 1))
        return jnp.sum(matrix * query[:, :, None], 3), jnp.sum(matrix * key[:, :, :, None], 2)

    none = (jnp.zeros_like(query), jnp.zeros_like(key))
    less_query, less_key = jax.lax.cond(jnp.any(large), with_large, lambda: none)
    on_query, on_key = on_query - less_query, on_key - less_key
    live, twice = ~rest, 2.0 * value[:, None, None]
    on_value = jnp.sum(key * on_query, (1, 2)) - args.brake * jnp.sum(value, 0)
    change = (2.0 * on_value, twice * on_query, twice * on_key)
    return tuple(part * (live if part.ndim == 2 else live[:, None, None]) for part in change)


def _parts(heads: Any) -> Array:
    """Return the strength of each head in each feature, (H, D, runs)."""
    value, key, query = heads
    return value[:, None] * jnp.sum(key * query, 1)


def _diagonal(entries: Array) -> Array:
    """Return the curvatures c_d, (D, runs)."""
    return jnp.diagonal(entries).T
