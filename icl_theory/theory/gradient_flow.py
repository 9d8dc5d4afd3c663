"""Gradient flows as ordinary differential equations, solved by diffrax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffrax
import jax
import numpy as np
from jaxtyping import Array, Float

from icl_theory.numerics.tracing import device_array

MAX_STEPS = 1_000_000


def tolerance() -> float:
    """Return the relative tolerance of every flow: 1e-10 in float64, 1e-6 in float32.


    The absolute tolerance is a hundredth of it. The test `test_flow_tolerance_is_justified_by_the_closed_form` (in
    `tests/theory/test_theory.py`) compares the closed form with solutions at this tolerance and at 100 times it.
    """
    return 1e-10 if jax.config.jax_enable_x64 else 1e-6  # type: ignore[attr-defined]


def integrate(
    field: Callable[[Any, Any], Any],
    start: Float[Array | np.ndarray, "*runs K"],
    time: np.ndarray,
    args: Any,
    *,
    stop: Callable[[Any, Any], Any] | None = None,
    stiff: bool = False,
) -> np.ndarray:
    """Solve `ẏ = field(y, args)` from `y(time[0]) = start`.

    Args:
        field: A module-level function (its identity is part of the compiled program).
        start: Initial state, (K,), or (runs, K) to solve several runs as one program.
        time: Times, (T,), ascending.
        args: Pytree of traced numbers. For several runs every leaf has the axis of runs first.
        stop: Condition `stop(y, args) -> bool` that ends the flow. Later values are NaN.
        stiff: Whether to use an implicit solver, for flows with very different rates (normalised SAM on a plateau). It
            needs float64: in float32 it does not reach its tolerance.

    Returns:
        y at every time, (T, K), or (runs, T, K) for several runs.
    """
    count = len(time)
    padded = np.append(time, np.full(2 ** (count - 1).bit_length() - count, time[-1]))  # few lengths, few programs
    start = device_array(start, float)
    values = _integrate(start, device_array(padded, start.dtype), args, tolerance(), field, stop, stiff)
    values = np.asarray(values)[..., :count, :]
    return np.where(np.isfinite(values), values, np.nan)


@partial(jax.jit, static_argnames=("field", "stop", "stiff"))
def _integrate(start: Any, time: Any, args: Any, rtol: Any, field: Any, stop: Any, stiff: bool) -> Any:
    event = None if stop is None else diffrax.Event(lambda t, y, args, **_: stop(y, args))

    def solve(start: Any, args: Any) -> Any:
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: field(y, args)),
            diffrax.Kvaerno5() if stiff else diffrax.Dopri8(),
            t0=time[0],
            t1=time[-1],
            dt0=None,
            y0=start,
            args=args,
            saveat=diffrax.SaveAt(ts=time),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol * 1e-2),
            max_steps=MAX_STEPS,
            event=event,
            throw=False,
        ).ys

    return solve(start, args) if start.ndim == 1 else jax.vmap(solve)(start, args)
