"""Integration of many rank-one heads that are coupled through strengths and learned heads (theory notes, §16).

Runs are the last axis, so that numbers of one kind lie together. Each run has steps of its own length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from icl_theory.theory.aligned_dynamics import Ascent

FINISHED = 0.98  # share of w_d* at which a head has done with its feature
STEP = 0.5  # length of a step, in units of the fastest head's time
STEPS_AT_ONCE = 64
MOST_STEPS = 8192


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
    heads: Sequence[np.ndarray], drive: np.ndarray, entries: np.ndarray, out: np.ndarray, ascent: Ascent, until: float
) -> Cascade:
    """Integrate heads (value, key, query) with runs first until a time, or until nothing is left to learn.

    Args:
        heads: Values (runs, H), keys and queries (runs, H, D).
        drive: The drives a_d, (D,).
        entries: The curvatures C_de of entries, (D, D).
        out: Whether a head that has learned d keeps out of e, (D, D).
        ascent: SAM's ascent step.
        until: The time.

    Returns:
        The cascade, with runs first in every field.
    """
    with jax.enable_x64(True):
        state = _State.begin(*(jnp.asarray(np.moveaxis(part, 0, -1)) for part in heads))
        args = _Args(jnp.asarray(drive), jnp.asarray(entries), jnp.asarray(out), ascent, jnp.asarray(until))
        times, strengths = [np.zeros((1, len(heads[0])))], [np.einsum("rh,rhd,rhd->dr", *heads)[None]]
        for _ in range(MOST_STEPS // STEPS_AT_ONCE):
            if bool(state.done.all()):
                break
            state, (time, strength) = _advance(state, args)
            times.append(np.asarray(time))
            strengths.append(np.asarray(strength))
        owns, finished = np.asarray(state.owns), np.asarray(state.finished)
    strength = np.moveaxis(np.concatenate(strengths), -1, 0)
    head = np.where(owns.any(0), owns.argmax(0), -1)
    return Cascade(np.concatenate(times).T, strength, finished.T, head.T, ~owns.any(1).T)


class _Args(NamedTuple):
    drive: Array
    entries: Array
    keeps_out: Array
    ascent: Ascent
    until: Array


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
        never = jnp.full(key.shape[1:], jnp.inf)
        return cls(jnp.zeros(runs), value, key, query, jnp.zeros(key.shape, bool), never, jnp.zeros(runs, bool))


@jax.jit
def _advance(state: _State, args: _Args) -> tuple[_State, tuple[Array, Array]]:
    return jax.lax.scan(lambda now, _: _step(now, args), state, None, length=STEPS_AT_ONCE)


def _step(state: _State, args: _Args) -> tuple[_State, tuple[Array, Array]]:
    """Take one step of the classical Runge–Kutta method, with a length of its own for each run."""
    curvature = jnp.diagonal(args.entries)
    optimum = (args.drive / curvature)[:, None]
    rest = _resting(state.owns, args.keeps_out)
    live = ~rest
    heads = (state.value, state.key, state.query)
    first, residual = _velocity(heads, state.owns, rest, args)
    size = jnp.abs(state.value) + jnp.sqrt(jnp.sum(state.key**2, 1)) + jnp.sqrt(jnp.sum(state.query**2, 1))
    size += jnp.where(args.ascent.normalised, args.ascent.rho, 0.0)  # the point at which the velocity is taken
    parts = jnp.abs(state.value)[:, None] * jnp.abs(state.key * state.query)
    pull = jnp.max(jnp.abs(residual), 0) + jnp.sum(curvature[:, None] * parts, 1)
    rate = jnp.max(jnp.where(live, 2.0 * pull * size, 0.0), 0)
    still = ~state.done & (rate > 0) & (state.time < args.until)
    length = jnp.where(still, jnp.minimum(STEP / jnp.where(rate > 0, rate, 1.0), args.until - state.time), 0.0)

    def moved(by: Any, share: float) -> tuple[Array, ...]:
        return tuple(part + share * length * change for part, change in zip(heads, by, strict=True))

    second, _ = _velocity(moved(first, 0.5), state.owns, rest, args)
    third, _ = _velocity(moved(second, 0.5), state.owns, rest, args)
    fourth, _ = _velocity(moved(third, 1.0), state.owns, rest, args)
    mean = [(a + 2.0 * b + 2.0 * c + d) / 6.0 for a, b, c, d in zip(first, second, third, fourth, strict=True)]
    value, key, query = moved(mean, 1.0)
    time = state.time + length
    parts = value[:, None] * key * query
    strength = jnp.sum(jnp.where(rest[:, None] & ~state.owns, 0.0, parts), 0)
    newly = (strength >= FINISHED * optimum) & ~state.owns.any(0)
    leading = jnp.argmax(jnp.where(rest[:, None], -jnp.inf, parts), 0)
    owns = state.owns | (newly[None] & (jnp.arange(len(value))[:, None, None] == leading[None]))
    finished = jnp.where(newly, time, state.finished)
    done = ~still | owns.any(0).all(0)
    return _State(time, value, key, query, owns, finished, done), (time, strength)


def _resting(owns: Array, keeps_out: Array) -> Array:
    """Return the heads that have a feature and keep out of all that are not finished, (H, runs)."""
    open_ = ~owns.any(0)  # (D, runs)
    goes_on = jnp.einsum("hdr,de,er->hr", owns.astype(float), (~keeps_out).astype(float), open_.astype(float)) > 0
    return owns.any(1) & ~goes_on


def _velocity(heads: Any, owns: Array, rest: Array, args: _Args) -> tuple[tuple[Array, ...], Array]:
    """Return the velocity of all heads under gradient descent or SAM, and the residual drives (D, runs)."""
    plain, residual = _gradient(heads, owns, rest, args)
    squares = jnp.sum(plain[0] ** 2, 0) + sum(jnp.sum(part**2, (0, 1)) for part in plain[1:])
    norm = jnp.sqrt(squares)
    unit = jnp.where(norm > 0, 1.0 / jnp.where(norm > 0, norm, 1.0), 0.0)
    scale = args.ascent.rho * jnp.where(args.ascent.normalised, unit, 1.0)
    moved = tuple(part - scale * change for part, change in zip(heads, plain, strict=True))
    return jax.lax.cond(args.ascent.rho > 0, lambda: _gradient(moved, owns, rest, args)[0], lambda: plain), residual


def _gradient(heads: Any, owns: Array, rest: Array, args: _Args) -> tuple[tuple[Array, ...], Array]:
    value, key, query = heads
    diagonal = jnp.diagonal(args.entries)
    parts = jnp.where(rest[:, None] & ~owns, 0.0, value[:, None] * key * query)
    left = args.drive[:, None] - diagonal[:, None] * jnp.sum(parts, 0)
    residual = jnp.where(jnp.any(owns & rest[:, None], 0), 0.0, left)  # the last 2 % would keep others going
    others = args.entries - jnp.diag(diagonal)
    large = jnp.any(owns, 1) & ~rest  # heads that have learned and go on: all see their entries off the diagonal
    own = jnp.where(large, 0.0, value)[:, None]
    on_query = residual * query - own * key * jnp.einsum("de,her->hdr", others, query**2)  # Ψ q
    on_key = residual * key - own * query * jnp.einsum("de,hdr->her", others, key**2)  # Ψᵀ k

    def with_large() -> tuple[Array, Array]:
        led = jnp.where(large, value, 0.0)[:, None]
        matrix = others[..., None] * jnp.sum((led * key)[:, :, None] * query[:, None], 0)
        return jnp.sum(matrix * query[:, None], 2), jnp.sum(matrix * key[:, :, None], 1)

    none = (jnp.zeros_like(query), jnp.zeros_like(key))
    less_query, less_key = jax.lax.cond(jnp.any(large), with_large, lambda: none)
    on_query, on_key = on_query - less_query, on_key - less_key
    live = ~rest
    change = (2.0 * jnp.sum(key * on_query, 1), 2.0 * value[:, None] * on_query, 2.0 * value[:, None] * on_key)
    return tuple(part * (live if part.ndim == 2 else live[:, None]) for part in change), residual
