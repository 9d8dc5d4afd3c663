"""Signal and noise of the gradients of early and late examples, measured on a language model (theory notes, §17)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, PyTree

from icl_theory.errors import InputError, check_number
from icl_theory.llm.data.batches import Batch, Tokenized, pad
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.sharding import in_host_memory, on_mesh, place_rows, place_weights
from icl_theory.llm.model.stacking import by_layer
from icl_theory.llm.training.step import batch_loss, model_of, split
from icl_theory.upsampling.noise_scale import NoiseScale, estimate

BATCHES, ROWS = 8, 32
COLUMNS = 2**20  # weights whose products are formed at once


def measure_noise(
    model: Decoder,
    examples: Sequence[Tokenized],
    late: Bool[np.ndarray, " P"],
    *,
    step: int = 0,
    batches: int = BATCHES,
    rows: int = ROWS,
    together: int = 8,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> NoiseScale:
    """Measure the signal and noise of early and late examples at a model's weights.

    The gradients of a few batches of each group are held in host memory: `2 · batches` times the weights in float32.
    An example counts by its number of learned tokens, as in training. Blocks are the arrays of weights, layer by
    layer; those of the adapters alone if the model has some.

    Args:
        model: the decoder.
        examples: all examples.
        late: True for the late ones.
        step: step of the run at which the model has these weights.
        batches: number of batches of each group, at least 3.
        rows: number of examples in a batch; fewer if a group has not enough.
        together: number of rows in memory at once.
        seed: seed of the draw of the batches; no example is drawn twice.
        mesh: devices; None for one.

    Raises:
        InputError: a number is out of range, or a group has fewer examples than there are batches.
    """
    check_number("batches", batches, minimum=3, integer=True)
    for name, value in {"rows": rows, "together": together}.items():
        check_number(name, value, minimum=1, integer=True)
    late = np.asarray(late, bool)
    if late.shape != (len(examples),):
        raise InputError("late", f"shape {late.shape}", f"give shape ({len(examples)},)")
    members = [np.flatnonzero(~late), np.flatnonzero(late)]
    fewest = min(map(len, members))
    if fewest < batches:
        name = "late" if fewest == len(members[1]) else "early"
        raise InputError("late", f"{fewest} {name} examples", f"noise needs at least {batches} in each group")
    rows = min(rows, fewest // batches)
    mean_tokens = float(np.mean([example.learned[1:].sum() for example in examples]))
    length = max(len(example.tokens) for example in examples)
    graph, params, frozen = split(model)
    params, frozen = place_weights(params, mesh), place_weights(frozen, mesh)
    size = min(together, rows)
    size += -size % (1 if mesh is None else mesh.size)

    def gradient(params: PyTree, frozen: PyTree, batch: Batch) -> Any:
        def loss(theta: PyTree) -> Array:
            decoder = model_of(graph, theta, frozen)
            hidden = decoder.hidden(batch.tokens, segments=batch.segments)
            return batch_loss(decoder, hidden, batch, rows * mean_tokens)

        return jax.grad(loss)(params)

    gradient = on_mesh(jax.jit(gradient), mesh)
    draw, found = np.random.default_rng(seed), []
    for group in members:
        chosen = draw.permutation(group)[: batches * rows].reshape(batches, rows)
        for one in chosen:
            total = None
            for begin in range(0, rows, size):
                batch = pad([examples[row] for row in one[begin : begin + size]], length, rows=size)
                part = gradient(params, frozen, batch if mesh is None else place_rows(batch, mesh))
                total = part if total is None else jax.tree.map(jax.numpy.add, total, part)
            found.append(by_layer(in_host_memory(total)))
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in _leaves(found[0])]
    parts = zip(*(jax.tree.leaves(one) for one in found), strict=True)
    blocks = [estimate(_products(part, batches), rows, list(map(len, members))) for part in parts]
    signal, variance = (np.stack([block[place] for block in blocks], 1)[None] for place in (0, 1))
    sizes = np.array([leaf.size for leaf in jax.tree.leaves(found[0])])
    counts = np.array(list(map(len, members)))
    return NoiseScale(np.array([float(step)]), np.array(names), sizes, signal, variance, counts)


def _leaves(tree: PyTree) -> Any:
    return jax.tree_util.tree_leaves_with_path(tree)


def _products(gradients: Sequence[np.ndarray], batches: int) -> np.ndarray:
    """Return the inner products of the gradients of one block, (2, K, 2, K)."""
    count, total = gradients[0].size, np.zeros((2 * batches, 2 * batches))
    flat = [gradient.reshape(-1) for gradient in gradients]
    for begin in range(0, count, COLUMNS):
        some = np.stack([gradient[begin : begin + COLUMNS] for gradient in flat]).astype(float)
        total += some @ some.T
    return total.reshape(2, batches, 2, batches)
