"""The fine-tuning loop, with recorded losses, checkpoints and exact resume."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float, PyTree

from icl_theory.errors import InputError, check_number
from icl_theory.llm.data.batches import Batch, Tokenized, groups, pack_row, pad, stack
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.lora import adapted
from icl_theory.llm.model.sharding import check_rows, decided_by_first_host, place_rows
from icl_theory.llm.model.stacking import by_layer
from icl_theory.llm.training.config import FinetuneConfig
from icl_theory.llm.training.run_checkpoints import Checkpoints
from icl_theory.llm.training.step import begin, learning_rate_at, make_example_losses, make_step, model_of
from icl_theory.results import plain
from icl_theory.upsampling.record_files import LossRecorder

LAYOUT = "stacked by layer"  # of the weights in checkpoints
MULTIPLE = 16  # without packing, rows are padded to a multiple of this
Progress = Callable[[int, int, str], None]


class Finetuned(NamedTuple):
    """Result of a fine-tuning run.

    Attributes:
        model: decoder with the weights after the last step, placed on the mesh; with adapters if they were trained.
        losses: (num_steps,) loss of each step's batch before the step.
    """

    model: Decoder
    losses: np.ndarray


def finetune(
    model: Decoder,
    examples: Sequence[Tokenized],
    config: FinetuneConfig,
    *,
    indices: np.ndarray | None = None,
    recorder: LossRecorder | None = None,
    record_every: int = 100,
    folder: str | Path | None = None,
    save_every: int = 500,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> Finetuned:
    """Train a model on examples; the same settings give the same weights, whether the run was interrupted or not.

    Args:
        model: initial model, on a device or in host memory (`load_model`); it is not modified.
        examples: examples that fit into `config.length` (`batches.fitting`).
        config: settings of the run.
        indices: training set as row indices of `examples`, such as `Upsampling.indices()`; None for each example once.
        recorder: records the loss of each of `examples` before training, every `record_every` steps, and at the end.
        record_every: number of steps between records.
        folder: folder for checkpoints, from which an earlier start of the run is resumed; None for no checkpoints.
        save_every: number of steps between checkpoints; the last step is saved too.
        mesh: devices to train on (`sharding.make_mesh`); None for one device. A run may be resumed on another mesh.
        progress: called with the number of steps done, the total, and the loss as text.

    Raises:
        InputError: more warm-up than steps; no examples; examples that are too long or hold tokens outside the
            vocabulary; indices out of range; a folder of another run; a checkpoint that cannot be read or written; or
            a loss or weights that are not finite (these are not saved).
    """
    for name, value in {"record_every": record_every, "save_every": save_every}.items():
        check_number(name, value, minimum=1, integer=True)
    asked = plain(config)
    if config.warmup > config.num_steps:
        raise InputError("warmup", config.warmup, f"the run has {config.num_steps} steps; give at most as many")
    if not len(examples):
        raise InputError("examples", "none", "give at least one")
    rows = np.arange(len(examples)) if indices is None else np.asarray(indices)
    if rows.ndim != 1 or not rows.size or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= len(examples):
        raise InputError("indices", f"{rows.dtype} of shape {rows.shape}", f"give rows from 0 to {len(examples) - 1}")
    longest = max(len(example.tokens) for example in examples)
    if longest > config.length:
        raise InputError(
            "length", config.length, f"an example has {longest} tokens; raise it, or leave out what is longer"
        )
    highest = [int(example.tokens.max()) for example in examples]
    if max(highest) >= model.config.vocab_size:
        place = int(np.argmax(highest))
        remedy = f"the model has {model.config.vocab_size} tokens; give the tokenizer that it came with"
        raise InputError(f"examples[{place}]", f"token {highest[place]}", remedy)
    single = dataclasses.replace(
        config, length=min(config.length, -(-longest // MULTIPLE) * MULTIPLE)
    )  # one example per row
    if mesh is not None:
        check_rows(config.batch_size, mesh, config.accumulate)
    digest = _digest(examples, rows, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    if config.lora is not None:
        model = adapted(model, config.lora, seed=config.seed)
    graph, learner = begin(model, config.optimizer, mesh=mesh, weight_decay=config.weight_decay)
    to_devices = (lambda batch: batch) if mesh is None else (lambda batch: place_rows(batch, mesh))
    step_of = make_step(
        graph,
        config.optimizer,
        sharpness=config.sharpness,
        preconditioner=config.preconditioner,
        accumulate=config.accumulate,
        clip=config.clip or None,
        dropout_seed=config.seed if config.lora_dropout else None,
        mesh=mesh,
        weight_decay=config.weight_decay,
        dtype=model.dtype,
    )
    saved, curve = None, np.zeros(config.num_steps)
    if folder is not None:
        described = asked | {"model": plain(model.config), "data": digest, "weights": LAYOUT}
        saved = Checkpoints(Path(folder), described)
        learner, curve = saved.restore(learner, curve)
    losses_of = make_example_losses(graph, mesh)
    batches = Batches(examples, rows, config if config.packing else single)

    def record(step: int) -> None:
        if recorder is not None:
            held = learner.params, learner.frozen
            losses = _losses(lambda batch: losses_of(held[0], to_devices(batch), held[1]), examples, single)
            if jax.process_index() == 0:
                recorder.add(step, losses)

    def check_loss(loss: float, step: int) -> None:
        if not np.isfinite(loss):
            raise InputError(
                "learning_rate", config.learning_rate, f"the loss is {loss} at step {step}; lower it, or clip"
            )

    def check_end(done: int) -> None:
        check_loss(float(waiting[-1]), done - 1)
        if not bool(_finite(learner.params)):
            remedy = f"weights are not finite after step {done - 1}; lower it, or clip"
            raise InputError("learning_rate", config.learning_rate, remedy)

    first, waiting = int(learner.step), []  # losses since then, possibly still on the device
    again = decided_by_first_host(
        saved is not None and saved.begun and recorder is not None and recorder.num_checkpoints > 0
    )
    if first == 0 and not again:  # else the initial losses are recorded already
        record(0)
    for step in range(first, config.num_steps):
        batch = to_devices(batches.at_step(step))
        rate = learning_rate_at(
            step, peak=config.learning_rate, warmup=config.warmup, total=config.num_steps, schedule=config.schedule
        )
        learner, met = step_of(learner, batch, rate, config.rho)
        waiting.append(met["loss"])
        done = step + 1
        if len(waiting) > 1:  # the loss of the previous step, so as not to wait for the device
            check_loss(float(waiting[-2]), step - 1)
        if done % record_every == 0 or done == config.num_steps:
            record(done)
        if saved is not None and (done % save_every == 0 or done == config.num_steps):
            check_end(done)
            curve[first:done] = np.array(waiting)
            saved.save(learner, curve)
        if progress is not None:
            progress(done, config.num_steps, f"loss {float(waiting[-2:][0]):.3f}")
    if waiting:
        check_end(config.num_steps)
    if saved is not None:
        saved.close()
    curve[first:] = np.array(waiting)
    return Finetuned(model_of(graph, learner.params, learner.frozen), curve)


class Batches:
    """Batches of a training set, each determined by the seed and the step number alone.

    Each epoch has its own order, in which it is packed with `config.packing`. Batches run across the ends of epochs.

    Args:
        examples: all examples.
        rows: training set as row indices of the examples.
        config: settings of the run.
    """

    def __init__(self, examples: Sequence[Tokenized], rows: np.ndarray, config: FinetuneConfig):
        self.examples, self.rows, self.config = examples, rows, config
        self._packed: list[list[int]] = []  # rows of the epochs packed so far
        self._epochs = 0
        self._orders: dict[int, np.ndarray] = {}  # order of the epoch drawn last

    def at_step(self, step: int) -> Batch:
        """Return the batch of a step: rows `step · batch_size` and following."""
        size, length = self.config.batch_size, self.config.length
        if not self.config.packing:
            return pad([self.examples[row] for row in self.chosen(step)], length)
        while len(self._packed) < (step + 1) * size:
            order = self._order(self._epochs)
            self._packed += groups([len(self.examples[row].tokens) for row in order], order, length)
            self._epochs += 1
        filled = self._packed[step * size : (step + 1) * size]
        return stack([pack_row([self.examples[row] for row in group], length) for group in filled])

    def chosen(self, step: int) -> np.ndarray:
        """Return the indices of the examples in a step, without packing."""
        places = step * self.config.batch_size + np.arange(self.config.batch_size)
        epochs, within = np.divmod(places, len(self.rows))
        return np.array([self._order(int(epoch))[place] for epoch, place in zip(epochs, within, strict=True)])

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders = {epoch: np.random.default_rng([self.config.seed, epoch]).permutation(self.rows)}
        return self._orders[epoch]


def _digest(examples: Sequence[Tokenized], rows: np.ndarray, params: PyTree) -> str:
    """Return ten hex digits of a hash of data, training set and initial weights (the first thousand of each array)."""
    known = hashlib.sha256(np.ascontiguousarray(rows, np.int64).tobytes())
    for example in examples:
        known.update(np.append(np.where(example.learned, 1, -1) * (example.tokens + 1), 0).astype(np.int64).tobytes())
    for leaf in jax.tree.leaves(by_layer(params)):
        known.update(np.asarray(leaf.reshape(-1)[:1000].astype(jnp.float32)).tobytes())
    return known.hexdigest()[:10]


@jax.jit
def _finite(params: PyTree) -> Any:
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))


def _losses(
    losses_of: Callable[[Batch], Any], examples: Sequence[Tokenized], config: FinetuneConfig
) -> Float[np.ndarray, " P"]:
    """Return the loss of every example, in batches of one shape with one example per row."""
    parts = []
    for row in range(0, len(examples), config.batch_size):
        some = examples[row : row + config.batch_size]
        parts.append(np.asarray(losses_of(pad(some, config.length, rows=config.batch_size)))[: len(some)])
    return np.concatenate(parts)
