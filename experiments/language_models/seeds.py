"""Several seeds: one compiled function for all, or a process on a core of its own for each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import suppress
from typing import Any

import jax


def over_seeds(function: Callable[..., Any], donated: int | None = None, shared: int = 0) -> Callable[..., Any]:
    """Compile a function over arrays whose first axis is that of the seeds.

    A single seed is not vectorised, which is twice as fast on CPU.

    Args:
        function: function of one seed.
        donated: argument whose memory the result may reuse.
        shared: number of arguments, the last ones, that all seeds share.
    """

    def all_seeds(*arguments: Any) -> Any:
        cut = len(arguments) - shared
        own, common = arguments[:cut], arguments[cut:]
        if len(jax.tree.leaves(own)[0]) > 1:
            return jax.vmap(lambda *one: function(*one, *common))(*own)
        found = function(*jax.tree.map(lambda leaf: leaf[0], own), *common)
        return jax.tree.map(lambda leaf: leaf[None], found)

    return jax.jit(all_seeds, donate_argnums=donated)


def on_cores(function: Callable[..., None], jobs: Mapping[str, tuple[Any, ...]], said: Callable[[str], None]) -> None:
    """Call a function with the arguments of each job, each process on a core of its own; say a job's name when done.

    The first error, or an interrupt, ends all processes.
    """
    cores = available_cores()
    context = multiprocessing.get_context("spawn")
    free = context.Queue()
    for core in cores:
        free.put(core)
    with ProcessPoolExecutor(max(1, min(len(cores), len(jobs))), context, _take_core, (free,)) as pool:
        running: dict[Future[None], str] = {pool.submit(function, *given): name for name, given in jobs.items()}
        try:
            for future in as_completed(running):
                future.result()
                said(running[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def available_cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _take_core(free: Any) -> None:
    """Pin a worker to one core if the system allows it: two workers on a core each are faster than two sharing both."""
    with suppress(AttributeError, OSError):
        os.sched_setaffinity(0, {free.get()})
