"""One measured figure, and what the parts share: clocks, the machine's own limits, the model that is trained."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import icl_theory as icl

NUM_CONTEXT, NUM_HEADS, REPEATS = 31, 8, 5


class Row(NamedTuple):
    """One measured figure.

    Attributes:
        setting: what was measured under which settings.
        what: name of the figure.
        value: value of the figure.
        unit: unit of the value.
        reach: bound on the value, from below (from above if `less`); None without a bound.
        less: whether smaller is better.
    """

    setting: str
    what: str
    value: float
    unit: str
    reach: float | None = None
    less: bool = False

    @property
    def verdict(self) -> str:
        """Verdict on the bound: "met", or "missed" with the share reached; empty without a bound."""
        if self.reach is None:
            return ""
        share = self.gain_over(self.reach)
        return "met" if share >= 1 else f"missed: {100 * share:.0f} % of it"

    def gain_over(self, other: float) -> float:
        """Return the ratio to another value of this figure, inverted if smaller is better: above 1 is a gain."""
        over, under = (other, self.value) if self.less else (self.value, other)
        return over / under if under else float("inf" if over else 1)


def median_seconds(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Return the median wall time of `call`, after one call that is not counted."""
    return statistics.median(all_seconds(call, repeats)[1:])


def all_seconds(call: Callable[[], Any], repeats: int = REPEATS) -> list[float]:
    """Return the wall times of `call`, the first one (with compilation) included."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return times


def gemm_peak() -> float:
    """Return the best measured multiply-add rate of a matrix product in the session's precision, FLOP/s."""
    product = jax.jit(partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))
    rates = []
    for size in (1024, 2048):
        array = jnp.ones((size, size))
        rates.append(2 * size**3 / min(all_seconds(partial(product, array, array), 5)[1:]))
    return max(rates)


def memory_bandwidth() -> float:
    """Return the best measured rate of summing a large array, bytes/s."""
    array = jnp.ones(2**26)
    total = jax.jit(jnp.sum)
    return array.nbytes / min(all_seconds(partial(total, array), 5)[1:])


def mixture(dim: int) -> icl.TaskMixture:
    """Return a mixture of one task with the default spectrum along the coordinate axes."""
    return icl.TaskMixture.single(icl.linear_spectrum(dim), num_context=NUM_CONTEXT)


def model(dim: int, key: Any = None, init_scale: float = 1e-2) -> icl.MergedAttention:
    """Return merged attention with full weight blocks, as in the public PyTorch code of ZSLS25."""
    rngs = nnx.Rngs(0) if key is None else nnx.Rngs(params=key)
    return icl.MergedAttention(dim, NUM_HEADS, init_scale=init_scale, blocks="full", rngs=rngs)


def output_of(script: str, *words: str) -> str:
    """Return the standard output of a Python script run in a process of its own; its errors go to standard error."""
    command = [sys.executable, "-c", script, *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
