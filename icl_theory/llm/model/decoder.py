"""One decoder-only transformer for all families of `families.py`, which differ only in `DecoderConfig`.

The weights of the blocks are stacked (`stacking.py`), and one block is applied to one layer after the other.

Shapes: B sequences, T tokens, S key positions, L layers, C hidden size, N heads, K key/value heads, H head dimension,
R rotated dimensions, V vocabulary size. Weights are stored in `param_dtype` and used in `dtype`; norms, rotations and
the softmax are computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from icl_theory.llm.model.block import Block, Cache, Norm, Room, linear
from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.masks import by_kind, layout, windowed
from icl_theory.llm.model.rotary import rope_frequencies
from icl_theory.llm.model.sharding import by_rows
from icl_theory.llm.model.stacking import stacked

EMBEDDING_STD = 0.02
# operations on single entries, which the backward pass computes again instead of keeping their results
ARITHMETIC = ("abs", "add", "div", "erf", "exp", "integer_pow", "log", "logistic", "max", "min", "mul", "neg", "pow")
FUNCTIONS = ("rsqrt", "sqrt", "square", "sub", "tanh", "cos", "sin", "convert_element_type")
COMPARING = ("and", "eq", "ge", "gt", "le", "lt", "ne", "not", "or", "select_n")
SHAPING = ("broadcast_in_dim", "concatenate", "iota", "reshape", "slice", "split", "squeeze", "transpose")
RANDOM = ("random_bits", "random_wrap", "random_unwrap", "threefry2x32", "shift_right_logical", "bitcast_convert_type")
CHEAP = {*ARITHMETIC, *FUNCTIONS, *COMPARING, *SHAPING, *RANDOM, "add_any", "stop_gradient"}


class Decoder(nnx.Module):
    """Decoder-only transformer, from tokens to logits.

    Initial weights are normal: embeddings with standard deviation 0.02, matrices with 1/√(number of inputs). Matrices
    that write into the residual stream are divided by √(2 · layers).

    Args:
        config: architecture of the decoder.
        rngs: random keys of the initial weights.
        dtype: number type of matrix products.
        param_dtype: number type of the weights.
        remat: whether to keep only the input of each block for the backward pass and recompute the rest.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        remat: bool = False,
    ):
        c = config
        self.config, self.dtype, self.remat = config, dtype, remat
        shape = (c.vocab_size, c.hidden_size)
        self.embedding = nnx.Param(EMBEDDING_STD * jax.random.normal(rngs.params(), shape, param_dtype))
        parts = [nnx.split(Block(c, dtype, param_dtype, rngs)) for _ in range(c.num_layers)]
        self.blocks: Block = nnx.merge(parts[0][0], stacked([state for _, state in parts]))
        self.final_norm = Norm(c.hidden_size, c, param_dtype)
        self.head = None if c.tied else linear(c.hidden_size, c.vocab_size, c.bias, dtype, param_dtype, rngs)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        valid: Bool[Array, "B T"] | None = None,
        segments: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T V"]:
        """Return the float32 logits of every next token; the arguments are those of `hidden`."""
        return self.logits(self.hidden(tokens, valid=valid, segments=segments))

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        valid: Bool[Array, "B T"] | None = None,
        segments: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T C"]:
        """Return the final hidden states, which the output layer reads.

        Args:
            tokens: token ids, below the vocabulary size.
            valid: False for padding; None if padding is at the end only, where no earlier token sees it.
            segments: number of the example that each token of a packed row belongs to; tokens see only their own.
        """
        positions, mask = layout(tokens, valid, segments)

        def once(block: Block, hidden: Array, local: Any, layer: Any) -> Array:
            return by_rows(block(hidden, self._angles(positions, local), self._seen(mask, local), local)[0])

        return self.final_norm(self._through_layers(once, by_rows(self._embed(tokens))))

    def logits(self, hidden: Float[Array, "B T C"]) -> Float[Array, "B T V"]:
        """Apply the output layer to hidden states; return float32 logits."""
        if self.head is not None:
            return self.head(hidden).astype(jnp.float32)
        return jnp.matmul(hidden, self.embedding[...].T.astype(self.dtype)).astype(jnp.float32)

    def start_cache(self, batch: int, length: int) -> Cache:
        """Return an empty cache of keys and values for every layer."""
        shape = (self.config.num_layers, batch, length, self.config.num_kv_heads, self.config.head_dim)
        return Cache(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))

    def extend(
        self, tokens: Int[Array, "B T"], cache: Cache, start: Int[Array, ""] | int, known: Bool[Array, "B S"]
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Process T more tokens; return the logits of the token after the last, and the extended cache.

        Args:
            tokens: the next T tokens, which fill columns `start` … `start + T − 1` of the cache.
            cache: cache from `start_cache` or from an earlier call.
            start: number of columns filled so far, padding included.
            known: True for columns of the cache that hold tokens, the new ones included; False for padding.
        """
        places = jnp.cumsum(known, axis=1) - 1
        length = tokens.shape[1]
        positions = jnp.maximum(jax.lax.dynamic_slice_in_dim(places, start, length, 1), 0)
        rows, columns = start + jnp.arange(length), jnp.arange(known.shape[1])
        mask = (columns[None, :] <= rows[:, None])[None] & known[:, None, :]

        def once(block: Block, state: tuple[Array, Cache], local: Any, layer: Any) -> Any:
            hidden, cache = state
            seen = self._seen(mask, local, start)
            return block(hidden, self._angles(positions, local), seen, local, Room(cache, layer, start))

        hidden, cache = self._through_layers(once, (self._embed(tokens), cache))
        return self.logits(self.final_norm(hidden[:, -1:]))[:, 0], cache

    def _embed(self, tokens: Array) -> Array:
        return jnp.take(self.embedding[...], tokens, axis=0).astype(self.dtype) * jnp.asarray(
            self.config.embed_scale, self.dtype
        )

    def _through_layers(self, once: Callable[..., Any], state: Any) -> Any:
        """Apply `once(block, state, local, layer)` with the block of each layer.

        `local` is a bool, or traced in a loop over layers that differ.
        """
        c, (graph, weights) = self.config, nnx.split(self.blocks)
        kinds = [c.is_local(layer) for layer in range(c.num_layers)]

        def applied(local: Any, layer: Any, state: Any, weights: Any) -> Any:
            return once(nnx.merge(graph, weights), state, local, layer)

        if unrolled():
            for layer, local in enumerate(kinds):
                apply: Any = partial(applied, local, layer)
                own = jax.tree.map(itemgetter(layer), weights)
                state = jax.checkpoint(apply)(state, own) if self.remat else apply(state, own)
            return state

        def body(state: Any, inputs: Any) -> tuple[Any, None]:
            layer, local, own = inputs
            return applied(local if len(set(kinds)) > 1 else kinds[0], layer, state, own), None

        policy = None if self.remat else lambda primitive, *_, **__: primitive.name not in CHEAP
        inputs = (jnp.arange(c.num_layers, dtype=jnp.int32), jnp.array(kinds), weights)
        return jax.lax.scan(jax.checkpoint(body, policy=policy, prevent_cse=False), state, inputs)[0]

    def _seen(self, mask: Array | None, local: Any, start: Any = 0) -> Array | None:
        """Return the mask of a layer; None for a plain causal mask."""
        if mask is None or not self.config.window:
            return mask
        return by_kind(local, windowed(mask, self.config.window, start), mask)

    def _angles(self, positions: Array, local: Any) -> Array:
        c = self.config
        local_rope, rope = (rope_frequencies(one, c.rotary_dim or c.head_dim) for one in (c.local_rope, c.rope))
        return positions[..., None].astype(jnp.float32) * by_kind(local, local_rope, rope)


def unrolled() -> bool:
    """Return whether each layer has code of its own in a program, as on CPUs; elsewhere a loop goes over the layers.

    On CPUs a loop takes up to half as long again, and two processes that share the weights wait for each other in it.
    """
    return jax.default_backend() == "cpu"
