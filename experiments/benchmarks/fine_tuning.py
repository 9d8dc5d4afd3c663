"""Cost of a step of fine-tuning in time and memory, by optimizer and sharpness.

Memory is what the compiler lays out for a step: arguments, results and temporaries. `make bench` measures a small
decoder; `language_models` measures models in full size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.benchmarks.row import Row
from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Batch
from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.families import from_huggingface
from icl_theory.llm.model.paper_models import PUBLISHED
from icl_theory.llm.training.step import make_step, start

SMALL = "8 layers of 256"  # a CPU takes a step of it in a few tenths of a second


def small_name(model: str) -> str:
    """Return the name of the small model of the same family."""
    return f"{model}, small"


def small(config: DecoderConfig) -> DecoderConfig:
    """Return a small model of the same family, with windows and without where the full one has both."""
    layers, heads = 7, 4
    changed: dict[str, Any] = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    changed |= {"num_heads": heads, "num_kv_heads": max(1, heads * config.num_kv_heads // config.num_heads)}
    changed |= {"rotary_dim": min(config.rotary_dim, 8), "window": min(config.window, 16)}
    return replace(config, **changed, num_layers=layers, local_layers=config.local_layers[:layers])


SHAPES = {name: from_huggingface(described) for name, described in PUBLISHED.items()} | {
    SMALL: DecoderConfig(4096, 256, 1024, 8, 4, 4, 64)
}
SHAPES |= {small_name(name): small(SHAPES[name]) for name in PUBLISHED}
STEPS = (("adamw", "none"), ("muon", "none"), ("adamw", "sam"), ("adamw", "fsam"), ("muon", "fsam"))
PART_STEPS = (STEPS[0], STEPS[3], STEPS[2])  # AdamW first, then the one whose ratio has a bound
TIMES, MEMORY = 2.2, 1.3  # most that functional SAM may take, relative to AdamW


def step_name(optimizer: str, sharpness: str) -> str:
    """Return a name such as `adamw` or `adamw fsam`."""
    return optimizer if sharpness == "none" else f"{optimizer} {sharpness}"


class Case(NamedTuple):
    """One kind of step to measure."""

    model: str
    optimizer: str
    sharpness: str
    remat: bool = False

    @property
    def step(self) -> str:
        """Name of the step by optimizer and sharpness."""
        return step_name(self.optimizer, self.sharpness)


class Measured(NamedTuple):
    """Cost of one step.

    Attributes:
        case: kind of step.
        seconds: median seconds of a step.
        quartiles: lower and upper quartile of these seconds.
        memory: bytes that the compiler lays out.
        compilation: seconds of compilation.
    """

    case: Case
    seconds: float
    quartiles: tuple[float, float]
    memory: int
    compilation: float


def fine_tuning_rows(dtype: str, quick: bool) -> Iterator[Row]:
    """Measure steps of the small decoder for `make bench`: AdamW alone, with functional SAM and with SAM."""
    rows, length, repeats = (2, 16, 2) if quick else (8, 64, 4)
    setting = f"{SMALL}, {rows} × {length} tokens"
    found: list[Measured] = []
    for one in PART_STEPS[:2] if quick else PART_STEPS:
        case = Case(SMALL, *one)
        step, shapes, seconds = compiled(case, rows, length, jnp.dtype(dtype))
        found.append(measure(case, step, shapes, rows, length, repeats, seconds))
        yield Row(setting, case.step, 1e3 * found[-1].seconds, "ms", less=True)
        yield Row(setting, f"{case.step}: compilation", seconds, "s", less=True)
        if len(found) > 1:
            asked = one == ("adamw", "fsam")
            times, memory = found[-1].seconds / found[0].seconds, found[-1].memory / found[0].memory
            yield Row(setting, f"{case.step}: time / AdamW", times, "x", TIMES if asked else None, less=True)
            yield Row(setting, f"{case.step}: memory / AdamW", memory, "x", MEMORY if asked else None, less=True)


def compiled(case: Case, rows: int, length: int, dtype: Any) -> tuple[Any, Any, float]:
    """Return the compiled step, the shapes of its learner, and the seconds that this took."""
    began = time.monotonic()
    config = SHAPES[case.model]
    model = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), dtype=dtype, remat=case.remat))
    graph, learner = start_shapes(model, case.optimizer)
    step = make_step(graph, case.optimizer, sharpness=case.sharpness, dtype=dtype)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    batch = jax.eval_shape(lambda: a_batch(config, rows, length))
    made = step.lower(learner, batch, number, number).compile()  # type: ignore[attr-defined]
    return made, learner, time.monotonic() - began


def start_shapes(model: Decoder, optimizer: str) -> tuple[Any, Any]:
    """Apply `start` to shapes alone."""
    graph, state = nnx.split(model, nnx.Param)
    learner = jax.eval_shape(lambda state: start(nnx.merge(graph, state), optimizer)[1], state)
    return graph, learner


def a_batch(config: DecoderConfig, rows: int, length: int) -> Batch:
    """Return a batch of random tokens; all but the first of each row are learned."""
    tokens = jax.random.randint(jax.random.key(0), (rows, length), 0, config.vocab_size)
    return Batch(tokens, jnp.ones((rows, length), bool).at[:, 0].set(False), jnp.ones(rows))


def measure(case: Case, step: Any, shapes: Any, rows: int, length: int, repeats: int, compilation: float) -> Measured:
    """Time successive steps from random weights; the first two are not counted."""
    filled = jax.tree.map(_filled, shapes.params)
    learner = shapes._replace(params=filled, optimizer=jax.tree.map(_zeros, shapes.optimizer), step=_zeros(shapes.step))
    batch = jax.jit(lambda: a_batch(SHAPES[case.model], rows, length))()
    numbers = (jnp.asarray(1e-5, jnp.float32), jnp.asarray(0.01, jnp.float32))
    times = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        learner, seen = step(learner, batch, *numbers)
        loss = float(seen["loss"])
        times.append(time.perf_counter() - began)
    if not np.isfinite(loss):
        raise InputError("loss", loss, f"{case} went wrong; nothing is measured")
    kept = times[2:]
    layout = step.memory_analysis()
    memory = layout.argument_size_in_bytes + layout.output_size_in_bytes - layout.alias_size_in_bytes
    ends = np.quantile(kept, [0.25, 0.75])
    return Measured(
        case, statistics.median(kept), (float(ends[0]), float(ends[1])), memory + layout.temp_size_in_bytes, compilation
    )


def _filled(shape: Any) -> Any:
    if len(shape.shape) < 2:
        return jnp.ones(shape.shape, shape.dtype)
    return _normal(jax.random.key(int(np.prod(shape.shape) % 2**31)), shape.shape, shape.dtype)


_normal = jax.jit(lambda key, shape, dtype: 0.02 * jax.random.normal(key, shape, dtype), static_argnums=(1, 2))


def _zeros(shape: Any) -> Any:
    return jnp.zeros(shape.shape, shape.dtype)
