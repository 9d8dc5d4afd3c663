"""Discrete maps, iterated by one compiled program to the steps that are asked for."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@partial(jax.jit, static_argnums=0)
def iterate(advance: Any, start: Any, steps: Any, args: Any) -> Any:
    """Return the states at each of the ascending `steps` of the map `state ← advance(step, state, args)`.

    Args:
        advance: A module-level function (its identity is part of the compiled program).
        start: State before the first step, a pytree.
        steps: Numbers of steps taken, (T,).
        args: Pytree of traced numbers.
    """

    def look(carry: Any, stop: Any) -> tuple[Any, Any]:
        step, state = carry
        state = jax.lax.fori_loop(step, stop, lambda step, state: advance(step, state, args), state)
        return (stop, state), state

    return jax.lax.scan(look, (jnp.zeros_like(steps[0]), start), steps)[1]
