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
from icl_theory.theory.cascade_flow import HeadFlow
from icl_theory.theory.stabilised_steps import STABLE, stabilised_step

FINISHED = 0.98  # share of w_d* at which a head has done with its feature
STEP = 0.5  # length of a step, in units of the fastest head's time
CHANGE = 0.05  # most relative change in a step of a head that rests at its optimum
GAIN = 4.0  # factor by which steps must become longer to pay for the method that is stable at them
RESTING = 30.0  # a head rests if it changes so many times slower than it could
STEPS_AT_ONCE = 64
KEPT = 16  # times as many steps are held at once
MOST_STEPS = 8192
STAGES, WEIGHTS = (0.5, 0.5, 1.0), (1 / 3, 1 / 3, 1 / 6)  # after the first, of the Runge–Kutta method


class Cascade(NamedTuple):
    """Strengths over time, and the head that takes each feature. For many starts, the axis of runs comes first.

    Attributes:
        time: Times of the integration, (S,).
        strength: Strengths w_d at these times, (S, D).
        finished: Time at which each feature had 98 % of its optimum, (D,); infinity if never, NaN if `MOST_STEPS` steps
            were too few to know.
        head: Number of the head that led at 98 %, (D,); −1 where no feature came so far. A feature that heads share may
            rest at less, and then has a learning time at ½ and no head.
        dormant: Heads that led no feature at 98 %, (H,).
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
    pieces = list(_pieces(heads, HeadFlow.of(drive, entries, out, brake, ascent, until)))
    time, strength = (np.concatenate(parts, axis=-1) for parts in zip(*(piece[1:] for piece in pieces), strict=True))
    owns, finished = np.asarray(pieces[-1][0].owns), _finished(pieces[-1][0])
    head = np.where(owns.any(0), owns.argmax(0), -1)
    return Cascade(time, np.moveaxis(strength, 1, -1), finished, head.T, ~owns.any(1).T)


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
        The strengths, NaN where they are not known, and the times `finished` of `Cascade`.
    """
    found, finished = np.empty((*at.shape, drive.shape[-1])), np.empty(0)
    for state, time, strength in _pieces(heads, HeadFlow.of(drive, entries, out, brake, ascent, at[:, -1])):
        for run, times in enumerate(at):
            rest = slice(np.searchsorted(times, time[run, 0]), None)  # a later piece overwrites what is beyond this one
            for d, column in enumerate(strength[run]):
                found[run, rest, d] = np.interp(times[rest], time[run], column)
        finished = _finished(state)
    found[(at > time[:, -1:])[..., None] & np.isnan(finished)[:, None]] = np.nan
    return found, finished


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
        owns, never = jnp.zeros((len(key), *key.shape[2:]), bool), jnp.full(key.shape[2:], jnp.inf, value.dtype)
        return cls(jnp.zeros(runs), value, key, query, owns, never, jnp.zeros(runs, bool))


def _finished(state: _State) -> np.ndarray:
    """Return when features were finished, (runs, D); infinity if never, NaN in a run that is not done."""
    finished, done = np.asarray(state.finished).T, np.asarray(state.done)[:, None]
    return np.where(np.isinf(finished) & ~done, np.nan, finished)


def _pieces(heads: Sequence[np.ndarray], args: HeadFlow) -> Iterator[tuple[_State, np.ndarray, np.ndarray]]:
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
def _advance(state: _State, args: HeadFlow) -> tuple[_State, tuple[Array, Array]]:
    return jax.lax.scan(lambda now, _: _step(now, args), state, None, length=STEPS_AT_ONCE)


def _step(state: _State, args: HeadFlow) -> tuple[_State, tuple[Array, Array]]:
    """Take one step with a length of its own for each run.

    The method is the classical Runge–Kutta method. A head that rests at its optimum without being done would need short
    steps there all the time. Runs that have one take a method that is stable at longer steps.
    """
    optimum = args.drive / args.curvature
    rest = args.resting(state.owns, state.key.shape[1])
    heads = (state.value, state.key, state.query)

    def velocity(at: Any) -> tuple[Array, ...]:
        return args.velocity(at, state.owns, rest)

    start = velocity(heads)
    short, long = _rates(heads, start, state.owns, rest, args)
    open_ = ~state.done & (short > 0) & (state.time < args.until)
    gains = open_ & (GAIN * long < short)
    rate = jnp.where(gains, long, short)
    still = open_ & (rate > 0)
    length = jnp.where(still, jnp.minimum(STEP / jnp.where(still, rate, 1.0), args.until - state.time), 0.0)

    def moved(by: Any, share: Any) -> tuple[Array, ...]:
        return tuple(part + share * length * change for part, change in zip(heads, by, strict=True))

    def stage(found: Any, shares: Any) -> tuple[Any, None]:
        """Take the velocity at a share of the step along the last one, and add it to the mean with its weight."""
        last, mean = found
        share, weight = shares
        now = velocity(moved(last, share))
        return (now, tuple(total + weight * part for total, part in zip(mean, now, strict=True))), None

    def classical() -> tuple[Array, ...]:
        first = tuple(part / 6.0 for part in start)
        (_, mean), _ = jax.lax.scan(stage, (start, first), (jnp.asarray(STAGES), jnp.asarray(WEIGHTS)), unroll=True)
        return moved(mean, 1.0)

    def by_run() -> tuple[Array, ...]:
        """Take for each run the method that it would have alone."""
        pairs = zip(stabilised_step(velocity, heads, start, length), classical(), strict=True)
        return tuple(jnp.where(gains, one, other) for one, other in pairs)

    value, key, query = jax.lax.cond(jnp.any(gains), by_run, classical)
    time = state.time + length
    parts = args.strengths((value, key, query))
    strength = jnp.sum(jnp.where(rest[:, None] & ~state.owns, 0.0, parts), 0)
    newly = (strength >= FINISHED * optimum) & ~state.owns.any(0)
    leading = jnp.argmax(jnp.where(rest[:, None], -jnp.inf, parts), 0)
    owns = state.owns | (newly[None] & (jnp.arange(len(value))[:, None, None] == leading[None]))
    finished = jnp.where(newly, time, state.finished)
    done = ~still | owns.any(0).all(0)
    return _State(time, value, key, query, owns, finished, done), (time, strength)


def _rates(heads: Any, velocity: Any, owns: Array, rest: Array, args: HeadFlow) -> tuple[Array, Array]:
    """Return the rates that steps of the classical and of the stabilised method must resolve, (runs,).

    A head changes, and comes to its optimum, at a rate below `2 · pull · size`. If it rests there, its steps need only
    be stable at that rate, and resolve what still changes. A learned head under normalised SAM never rests.
    """
    value, key, query = heads
    length = jnp.abs(value), jnp.sqrt(jnp.sum(key**2, (1, 2))), jnp.sqrt(jnp.sum(query**2, (1, 2)))
    size = sum(length) + jnp.where(args.ascent.normalised, args.ascent.rho, 0.0)  # where the velocity is taken
    parts = length[0][:, None] * jnp.sum(jnp.abs(key * query), 1)
    pull = jnp.max(jnp.abs(args.residual(heads, owns, rest)), 0) + jnp.sum(args.curvature * parts, 1)
    rates = jnp.where(rest, 0.0, 2.0 * pull * size)
    brake = 2.0 * args.brake * jnp.sum(~rest, 0)
    changes = _changes(heads, velocity)
    slow = STEP / CHANGE * changes
    rests = (RESTING * slow < rates) & ~(jnp.asarray(args.ascent.normalised) & (args.ascent.rho > 0))
    resolved = jnp.max(jnp.where(rests, slow, jnp.maximum(rates, changes)), 0)
    stable = STEP / STABLE * jnp.sum(jnp.where(rests, rates, 0.0), 0)
    return jnp.max(rates, 0) + brake, jnp.maximum(resolved, stable) + brake


def _changes(heads: Any, velocity: Any) -> Array:
    """Return the rate at which each head changes relative to itself, or its entries on a feature grow, (H, runs)."""
    squares = heads[0] ** 2 + sum(jnp.sum(part**2, (1, 2)) for part in heads[1:])
    moves = velocity[0] ** 2 + sum(jnp.sum(part**2, (1, 2)) for part in velocity[1:])
    squares = jnp.where(squares > 0, squares, 1.0)
    entries = jnp.maximum(sum(jnp.sum(part**2, 1) for part in heads[1:]), 1e-12 * squares[:, None])  # (H, D, runs)
    growth = sum(jnp.sum(part * change, 1) for part, change in zip(heads[1:], velocity[1:], strict=True)) / entries
    return jnp.maximum(jnp.max(growth, 1), jnp.sqrt(moves / squares))
