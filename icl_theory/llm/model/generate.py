"""Greedy generation with a key-value cache: one compiled loop for all prompts of a batch.

Prompts are padded on the left to one length. That length, the room for new tokens and the number of rows are rounded
up, by at most a quarter, so that few programs serve all sizes. The loop ends when every row has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int, PyTree

from icl_theory.errors import InputError, check_number
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.sharding import everywhere, on_mesh, place_rows

SHORTEST = 16  # padded lengths


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new: int,
    stop: Sequence[int] = (),
    batch_size: int = 32,
    mesh: Mesh | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Generate the most likely next token repeatedly, until a stop token or `max_new` tokens.

    Args:
        model: the decoder.
        prompts: tokens of each prompt, at least one.
        max_new: maximum number of new tokens for each prompt.
        stop: tokens that end a generation; they are not returned.
        batch_size: number of prompts in a batch, grouped by length; on a mesh, rounded up to a multiple of the number
            of devices.
        mesh: devices over which the weights are placed (`sharding.place_weights`); None for one device.
        progress: called with the number of prompts done and the total.

    Returns:
        The new tokens of each prompt, in the order of the prompts.

    Raises:
        InputError: an empty prompt, tokens outside the vocabulary, or sizes below one.
    """
    for name, value in {"max_new": max_new, "batch_size": batch_size}.items():
        check_number(name, value, minimum=1, integer=True)
    for place, prompt in enumerate(prompts):
        if not len(prompt):
            raise InputError(
                f"prompts[{place}]", "empty", "give at least one token, such as the one that begins a text"
            )
        if not 0 <= min(prompt) <= max(prompt) < model.config.vocab_size:
            raise InputError(f"prompts[{place}]", max(prompt), f"tokens go from 0 to {model.config.vocab_size - 1}")
    if mesh is not None:
        batch_size = -(-batch_size // mesh.size) * mesh.size
    greedy, room = on_mesh(_greedy, mesh), rounded_up(max_new, SHORTEST)
    graph, params = nnx.split(model, nnx.Param)
    ends = jnp.asarray(list(stop), jnp.int32)
    found: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    for begin in range(0, len(order), batch_size):
        places = order[begin : begin + batch_size]
        rows = [prompts[place] for place in places]
        full = batch_size if mesh is not None else min(batch_size, rounded_up(len(order)))
        rows += [rows[-1]] * (full - len(rows))  # so that the last batch has the same shape
        inputs = pad_left(rows)
        tokens, valid = inputs if mesh is None else place_rows(inputs, mesh)
        made = np.asarray(greedy(graph, params, tokens, valid, ends, room, max_new))[:, :max_new]
        for place, new in zip(places, made, strict=False):
            found[place] = _until(new.tolist(), set(stop))
        if progress is not None:
            progress(begin + len(places), len(order))
    return found


def pad_left(rows: Sequence[Sequence[int]]) -> tuple[Int[np.ndarray, "B T"], Bool[np.ndarray, "B T"]]:
    """Pad rows on the left to one length; return the tokens, and True where they are not padding."""
    length = rounded_up(max(map(len, rows)), SHORTEST)
    tokens, valid = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), bool)
    for place, row in enumerate(rows):
        tokens[place, length - len(row) :], valid[place, length - len(row) :] = row, True
    return tokens, valid


def rounded_up(size: int, least: int = 1) -> int:
    """Round a size up, to at least `least` and by at most a quarter, to one of four sizes in each octave.

    Examples:
        >>> rounded_up(3), rounded_up(9), rounded_up(129), rounded_up(5, least=16)
        (3, 10, 160, 16)
    """
    size = max(size, least)
    step = 1 << max((size - 1).bit_length() - 3, 0)
    return -(-size // step) * step


@partial(jax.jit, static_argnums=(0, 5))
def _greedy(graph: Any, params: PyTree, tokens: Array, valid: Array, stop: Array, room: int, most: Any) -> Array:
    """Generate (B, room) tokens, of which the first `most` are wanted; those after a stop token are meaningless."""
    model = nnx.merge(graph, params)
    batch, length = tokens.shape
    columns = jnp.arange(length + room)
    known = jnp.pad(valid, ((0, 0), (0, room)))

    def chosen(logits: Array, made: Array, count: Any, done: Array) -> Any:
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return count + 1, made.at[:, count].set(token), done | jnp.isin(token, stop)

    def more(state: PyTree) -> Array:
        (count, _, done), _ = state
        return (count < most) & ~done.all()

    def once(state: PyTree) -> Any:
        (count, made, done), cache = state
        place = length + count - 1
        seen = known | ((columns >= length) & (columns <= place))[None]
        last = jax.lax.dynamic_slice_in_dim(made, count - 1, 1, axis=1)
        logits, cache = model.extend(last, cache, place, seen)
        return chosen(logits, made, count, done), cache

    logits, cache = model.extend(tokens, model.start_cache(batch, length + room), 0, known)
    first = chosen(logits, jnp.zeros((batch, room), jnp.int32), jnp.zeros((), jnp.int32), jnp.zeros(batch, bool))
    return everywhere(jax.lax.while_loop(more, once, (first, cache))[0][1])


def _until(tokens: list[int], stop: set[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in stop:
            return tokens[:place]
    return tokens
