"""The cores of a CPU: blocks of runs that fit the cache of one core, and threads that work side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from icl_theory.environment import cores

RUNS_PER_BLOCK = 64  # this many small models fit into the cache of one core


def run_blocks(runs: int, devices: int = 1) -> list[np.ndarray]:
    """Split run indices into blocks of equal size, divisible by `devices`; the last run fills up the last block."""
    on_cpu = jax.default_backend() == "cpu"
    at_once = RUNS_PER_BLOCK * devices if on_cpu else runs
    count = -(-runs // at_once)
    even = -(-count // cores()) * cores()  # every core busy to the end, unless blocks become too small to be worth it
    if on_cpu and devices == 1 and runs >= even * RUNS_PER_BLOCK // 4:
        count = even
    size = -(-runs // (count * devices)) * devices
    return list(np.minimum(np.arange(-(-runs // size) * size), runs - 1).reshape(-1, size))


class Workers:
    """A pool of threads that work on pieces in parallel; compiled programs do not hold Python's lock."""

    def __init__(self, count: int):
        threads = min(count, cores())
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._settings = (jax.config.jax_enable_x64, jax.config.jax_default_device)  # type: ignore[attr-defined]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Any], Any], pieces: Sequence[Any]) -> list[Any]:
        """Apply a function to every piece and return the results in order.

        JAX's settings are local to a thread, so they are passed on to the workers.
        """
        if self._pool is None:
            return [function(piece) for piece in pieces]
        x64, device = self._settings

        def work(piece: Any) -> Any:
            with jax.enable_x64(x64), jax.default_device(device):
                return function(piece)

        return list(self._pool.map(work, pieces))
