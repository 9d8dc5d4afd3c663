"""Training steps of many runs at once: their rate, and its share of the machine's rate of matrix products.

Only the products with the moments count as work. Compilation is reported in rows of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import numpy as np

import icl_theory as icl
from experiments.benchmarks.row import Row, all_seconds, gemm_peak, mixture, model

RUN_STEPS = {4: 10**6, 8: 10**5}  # in a timed call, by D, at one product each: some tenths of a second
MIN_STEPS = {4: 300, 8: 40}  # enough that starting a batch hardly counts
MAX_STEPS = {4: 30_000, 8: 3_000}
REACH = {4: 3.0, 8: 40.0}  # bounds for many runs of GD: 10⁶ run-steps/s at D = 4, % of the peak at D = 8
MOST = 4096
MANY = 256  # from this many runs on, a CPU takes a batch in blocks that share one program


class Optimizer(NamedTuple):
    """An optimizer: factory, settings besides the rate, products with the moments per step, and batch sizes to time."""

    factory: Callable[..., Any]
    settings: dict[str, float]
    products: int
    runs: tuple[int, ...]


OPTIMIZERS = {
    "GD": Optimizer(icl.gd, {}, 1, (1, 16, MANY, MOST)),
    "SAM": Optimizer(icl.sam, {"rho": 1e-3}, 2, (1, MANY)),
}


def run_rows(dtype: str, quick: bool) -> Iterator[Row]:
    """Measure batches of growing size at D = 4 and D = 8."""
    jax.clear_caches()  # recompile what another part compiled, so that compilation is timed
    peak = gemm_peak()
    yield Row("this machine", f"matrix product, {dtype}", peak / 1e9, "GFLOP/s")
    for dim in (4,) if quick else (4, 8):
        built = icl.prompt_moments(icl.sample_prompts(mixture(dim), 5000, key=jax.random.key(0)))
        loss, _ = icl.make_loss(model(dim), built)
        starts = starting_weights(dim, MOST)
        for name, optimizer in OPTIMIZERS.items():
            for count in optimizer.runs[:2] if quick else optimizer.runs:
                steps = 100 if quick else steps_of(dim, count * optimizer.products)
                rate, compilation = speed(loss, jax.tree.map(itemgetter(slice(count)), starts), optimizer, steps)
                share = 100 * optimizer.products * 2 * built.num_features**2 * rate / peak
                setting = f"{count:,} run{'s' if count > 1 else ''}, D = {dim}"
                reach = REACH[dim] if count >= MANY and name == "GD" else None
                yield Row(setting, name, rate / 1e6, "10⁶ run-steps/s", reach if dim == 4 else None)
                yield Row(setting, f"{name}: of the matrix product", share, "%", reach if dim == 8 else None)
                if count <= MANY:
                    yield Row(setting, f"{name}: compilation", compilation, "s", less=True)


def steps_of(dim: int, work: int) -> int:
    """Return the number of steps of a timed call; `work` is the products in each step of the batch."""
    return min(max(MIN_STEPS[dim], RUN_STEPS[dim] // work), MAX_STEPS[dim])


def starting_weights(dim: int, count: int) -> Any:
    """Return starting weights of `count` runs, stacked along a first axis."""
    start = jax.jit(jax.vmap(lambda key: icl.split_model(model(dim, key))[1]))
    return jax.tree.map(np.asarray, start(jax.random.split(jax.random.key(1), count)))


def speed(loss: Any, starts: Any, optimizer: Optimizer, num_steps: int) -> tuple[float, float]:
    """Return (run-steps per second, seconds of compilation) of a batch; a single run has no batch axis."""
    count = len(jax.tree.leaves(starts)[0])
    train = icl.train_many if count > 1 else icl.train
    params = starts if count > 1 else jax.tree.map(itemgetter(0), starts)
    settings = {"learning_rate": 1e-3, **optimizer.settings}

    def go() -> Any:
        return train(
            loss, params, optimizer=optimizer.factory, hyperparameters=settings, num_steps=num_steps, num_snapshots=2
        ).loss

    first, *others = all_seconds(go, 3)
    seconds = statistics.median(others)
    return count * num_steps / seconds, first - seconds
