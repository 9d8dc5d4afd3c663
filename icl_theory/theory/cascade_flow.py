"""Velocity of many heads that are coupled through strengths and learned heads (theory notes, §16)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from icl_theory.theory.aligned_dynamics import Ascent


class HeadFlow(NamedTuple):
    """Drives, curvatures, brake and ascent step, which make the velocity of heads; runs are the last axis."""

    drive: Array
    entries: Array
    keeps_out: Array
    brake: Array
    ascent: Ascent
    until: Array

    @classmethod
    def of(cls, drive: Any, entries: Any, out: Any, brake: Any, ascent: Ascent, until: Any) -> HeadFlow:
        """Return the flow from arrays with runs first."""
        with jax.enable_x64(True):
            drive, entries, out = (jnp.asarray(np.moveaxis(part, 0, -1)) for part in (drive, entries, out))
            ascent = ascent._replace(rho=jnp.asarray(ascent.rho))
            return cls(drive, entries, out, jnp.asarray(brake), ascent, jnp.asarray(until))

    def resting(self, owns: Array, rank: int) -> Array:
        """Return the heads with as many features as their rank that keep out of all others left, (H, runs)."""
        open_ = ~owns.any(0)  # (D, runs)
        goes_on = (
            jnp.einsum("hdr,der,er->hr", owns.astype(float), (~self.keeps_out).astype(float), open_.astype(float)) > 0
        )
        return (jnp.sum(owns, 1) >= rank) & ~goes_on

    def velocity(self, heads: Any, owns: Array, rest: Array) -> tuple[Array, ...]:
        """Return the velocity of all heads under gradient descent or SAM."""
        plain = self._gradient(heads, owns, rest)
        squares = jnp.sum(plain[0] ** 2, 0) + sum(jnp.sum(part**2, (0, 1, 2)) for part in plain[1:])
        norm = jnp.sqrt(squares)
        unit = jnp.where(norm > 0, 1.0 / jnp.where(norm > 0, norm, 1.0), 0.0)
        scale = self.ascent.rho * jnp.where(self.ascent.normalised, unit, 1.0)
        moved = tuple(part - scale * change for part, change in zip(heads, plain, strict=True))
        return jax.lax.cond(jnp.any(self.ascent.rho > 0), lambda: self._gradient(moved, owns, rest), lambda: plain)

    def residual(self, heads: Any, owns: Array, rest: Array) -> Array:
        """Return the drives that are left, (D, runs)."""
        parts = jnp.where(rest[:, None] & ~owns, 0.0, self.strengths(heads))
        left = self.drive - self.curvature * jnp.sum(parts, 0)
        return jnp.where(jnp.any(owns & rest[:, None], 0), 0.0, left)  # the last 2 % would keep others going

    def _gradient(self, heads: Any, owns: Array, rest: Array) -> tuple[Array, ...]:
        value, key, query = heads
        residual = self.residual(heads, owns, rest)
        others = self.entries * (1.0 - jnp.eye(key.shape[2]))[..., None]
        large = jnp.any(owns, 1) & ~rest  # heads that have learned and go on: all see their entries off the diagonal
        own = jnp.where(large, 0.0, value)[:, None, None]
        against_query = jnp.sum(others * (query[:, :, None] * query[:, None])[:, :, :, None], 4)
        against_key = jnp.sum(others * (key[:, :, None] * key[:, None])[:, :, :, :, None], 3)
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
        on_value = jnp.sum(key * on_query, (1, 2)) - self.brake * jnp.sum(value, 0)
        change = (2.0 * on_value, twice * on_query, twice * on_key)
        return tuple(part * (live if part.ndim == 2 else live[:, None, None]) for part in change)

    @staticmethod
    def strengths(heads: Any) -> Array:
        """Return the strength of each head in each feature, (H, D, runs)."""
        value, key, query = heads
        return value[:, None] * jnp.sum(key * query, 1)

    @property
    def curvature(self) -> Array:
        """The curvatures c_d, (D, runs)."""
        return jnp.diagonal(self.entries).T
