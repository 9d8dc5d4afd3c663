"""Greedy generation with a key-value cache, by one compiled loop for each padded prompt length."""

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

MULTIPLE = 16  # padded lengths are multiples of this, to limit the number of compilations


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
    greedy = on_mesh(_greedy, mesh)
    graph, params = nnx.split(model, nnx.Param)
    ends = jnp.asarray(list(stop), jnp.int32)
    found: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    for begin in range(0, len(order), batch_size):
        places = order[begin : begin + batch_size]
        rows = [prompts[place] for place in places]
        full = batch_size if mesh is not None else min(batch_size, len(order))
        rows += [rows[-1]] * (full - len(rows))  # so that the last batch has the same shape
        inputs = pad_left(rows)
        tokens, valid = inputs if mesh is None else place_rows(inputs, mesh)
        made = np.asarray(greedy(graph, params, tokens, valid, ends, max_new))
        for place, new in zip(places, made, strict=False):
            found[place] = _until(new.tolist(), set(stop))
        if progress is not None:
            progress(begin + len(places), len(order))
    return found


def pad_left(rows: Sequence[Sequence[int]]) -> tuple[Int[np.ndarray, "B T"], Bool[np.ndarray, "B T"]]:
    """Pad rows on the left to one length; return the tokens, and True where they are not padding."""
    length = -(-max(map(len, rows)) // MULTIPLE) * MULTIPLE
    tokens, valid = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), bool)
    for place, row in enumerate(rows):
        tokens[place, length - len(row) :], valid[place, length - len(row) :] = row, True
    return tokens, valid


@partial(jax.jit, static_argnums=(0, 5))
def _greedy(graph: Any, params: PyTree, tokens: Array, valid: Array, stop: Array, max_new: int) -> Array:
    """Generate (B, max_new) tokens; those after a stop token are meaningless."""
    model = nnx.merge(graph, params)
    batch, length = tokens.shape
    columns = jnp.arange(length + max_new)
    known = jnp.pad(valid, ((0, 0), (0, max_new)))
    logits, cache = model.extend(tokens, model.start_cache(batch, length + max_new), 0, known)
    made = jnp.zeros((batch, max_new), jnp.int32)

    def more(state: PyTree) -> Array:
        count, _, _, done, _ = state
        return (count < max_new) & ~done.all()

    def once(state: PyTree) -> Any:
        count, logits, made, done, cache = state
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        made = made.at[:, count].set(token)
        done = done | jnp.isin(token, stop)
        place = length + count
        seen = known | ((columns >= length) & (columns <= place))[None]
        logits, cache = model.extend(token[:, None], cache, place, seen)
        return count + 1, logits, made, done, cache

    start = (jnp.zeros((), jnp.int32), logits, made, jnp.zeros(batch, bool), cache)
    return everywhere(jax.lax.while_loop(more, once, start)[2])


def _until(tokens: list[int], stop: set[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in stop:
            return tokens[:place]
    return tokens
