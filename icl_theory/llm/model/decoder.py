"""One decoder-only transformer for all families of `families.py`, which differ only in `DecoderConfig`.

Shapes: B sequences, T tokens, S key positions, C hidden size, N heads, K key/value heads, H head dimension, V
vocabulary size. Weights are stored in `param_dtype` and used in `dtype`; norms, rotations and the softmax are computed
in float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.lora import Linear
from icl_theory.llm.model.rotary import rope_frequencies, rotate
from icl_theory.llm.model.sharding import by_rows

EMBEDDING_STD = 0.02


class Cache(NamedTuple):
    """Keys and values of one layer, (B, S, K, H) each."""

    key: Float[Any, "B S N H"]
    value: Float[Any, "B S N H"]


class Norm(nnx.Module):
    """Normalisation `x/√(mean x² + ε) · scale`, or with (1 + scale), or layer norm with a bias, by `config.norm`."""

    def __init__(self, size: int, config: DecoderConfig, param_dtype: Any):
        offset = config.norm == "rms_offset"
        self.scale = nnx.Param((jnp.zeros if offset else jnp.ones)(size, param_dtype))
        self.bias = nnx.Param(jnp.zeros(size, param_dtype)) if config.norm == "layer" else None
        self.offset, self.eps = offset, config.norm_eps

    def __call__(self, x: Array) -> Array:
        y = x.astype(jnp.float32)
        if self.bias is not None:
            y -= y.mean(-1, keepdims=True)
        y *= jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + self.eps)
        y *= self.scale[...].astype(jnp.float32) + (1.0 if self.offset else 0.0)
        if self.bias is not None:
            y += self.bias[...].astype(jnp.float32)
        return y.astype(x.dtype)


class Attention(nnx.Module):
    """Causal grouped-query attention with rotary positions, over all tokens so far or a window of them."""

    def __init__(self, config: DecoderConfig, local: bool, dtype: Any, param_dtype: Any, rngs: nnx.Rngs):
        c, self.config, self.local = config, config, local
        widths = {"query": c.num_heads, "key": c.num_kv_heads, "value": c.num_kv_heads}
        for name, heads in widths.items():
            setattr(
                self, name, _linear(c.hidden_size, heads * c.head_dim, c.bias or c.qkv_bias, dtype, param_dtype, rngs)
            )
        self.output = _linear(
            c.num_heads * c.head_dim, c.hidden_size, c.bias, dtype, param_dtype, rngs, summed=c.num_layers
        )
        self.query_norm = Norm(c.head_dim, c, param_dtype) if c.qk_norm else None
        self.key_norm = Norm(c.head_dim, c, param_dtype) if c.qk_norm else None

    def __call__(
        self, x_BTC: Array, angles_BTR: Array, mask: Array | None, cache: Cache | None, start: Any
    ) -> tuple[Array, Cache | None]:
        c = self.config
        q, k, v = (getattr(self, name)(x_BTC) for name in ("query", "key", "value"))
        q, k, v = (y.reshape(*y.shape[:2], -1, c.head_dim) for y in (q, k, v))
        if self.query_norm is not None:
            q, k = self.query_norm(q), _maybe(self.key_norm, k)
        q, k = rotate(q, angles_BTR), rotate(k, angles_BTR)
        if cache is not None:
            k, v = (
                jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), start, 1)
                for old, new in zip(cache, (k, v), strict=True)
            )
            cache = Cache(k, v)
        scale = c.query_scale or c.head_dim**-0.5
        if mask is None:
            window = (c.window - 1, 0) if self.local else None
            y = jax.nn.dot_product_attention(
                q, k, v, scale=scale, is_causal=True, local_window_size=window, implementation=_fused(q)
            )
        else:
            y = jax.nn.dot_product_attention(q, k, v, scale=scale, mask=mask)
        return self.output(y.reshape(*y.shape[:2], -1)), cache


class MLP(nnx.Module):
    """Feed-forward layer: `down(act(gate x) · up x)`, or `down(act(up x))` without a gate."""

    def __init__(self, config: DecoderConfig, dtype: Any, param_dtype: Any, rngs: nnx.Rngs):
        c = config
        self.act = {"silu": jax.nn.silu, "gelu": jax.nn.gelu}[c.activation]
        wide = (c.hidden_size, c.intermediate_size, c.bias, dtype, param_dtype, rngs)
        self.gate = _linear(*wide) if c.gated else None
        self.up = _linear(*wide)
        self.down = _linear(c.intermediate_size, c.hidden_size, c.bias, dtype, param_dtype, rngs, summed=c.num_layers)

    def __call__(self, x: Array) -> Array:
        up = self.up(x)
        return self.down(self.act(up) if self.gate is None else self.act(self.gate(x)) * up)


class Block(nnx.Module):
    """Residual block of attention and MLP with pre-normalisation; both act in parallel for Phi."""

    def __init__(self, config: DecoderConfig, layer: int, dtype: Any, param_dtype: Any, rngs: nnx.Rngs):
        c = config
        self.parallel = c.parallel
        self.attention_norm = Norm(c.hidden_size, c, param_dtype)
        self.attention = Attention(c, c.is_local(layer), dtype, param_dtype, rngs)
        self.mlp_norm = None if c.parallel else Norm(c.hidden_size, c, param_dtype)
        self.mlp = MLP(c, dtype, param_dtype, rngs)
        self.attention_out_norm = Norm(c.hidden_size, c, param_dtype) if c.sandwich else None
        self.mlp_out_norm = Norm(c.hidden_size, c, param_dtype) if c.sandwich else None

    def __call__(self, x: Array, *context: Any) -> tuple[Array, Cache | None]:
        before = self.attention_norm(x)
        attended, cache = self.attention(before, *context)
        if self.parallel:
            return x + attended + self.mlp(before), cache
        x = x + _maybe(self.attention_out_norm, attended)
        return x + _maybe(self.mlp_out_norm, self.mlp(_maybe(self.mlp_norm, x))), cache


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
        self.blocks = nnx.List([Block(c, layer, dtype, param_dtype, rngs) for layer in range(c.num_layers)])
        self.final_norm = Norm(c.hidden_size, c, param_dtype)
        self.head = None if c.tied else _linear(c.hidden_size, c.vocab_size, c.bias, dtype, param_dtype, rngs)

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
        positions, mask = _layout(tokens, valid, segments)
        hidden = by_rows(self._embed(tokens))
        for layer, block in enumerate(self.blocks):
            local = self.config.is_local(layer)
            run = nnx.remat(type(block).__call__) if self.remat else type(block).__call__
            seen = None if mask is None else _windowed(mask, self.config.window if local else 0)
            hidden = by_rows(run(block, hidden, self._angles(positions, local), seen, None, None)[0])
        return self.final_norm(hidden)

    def logits(self, hidden: Float[Array, "B T C"]) -> Float[Array, "B T V"]:
        """Apply the output layer to hidden states; return float32 logits."""
        if self.head is not None:
            return self.head(hidden).astype(jnp.float32)
        return jnp.matmul(hidden, self.embedding[...].T.astype(self.dtype)).astype(jnp.float32)

    def start_cache(self, batch: int, length: int) -> list[Cache]:
        """Return an empty cache of keys and values for every layer."""
        shape = (batch, length, self.config.num_kv_heads, self.config.head_dim)
        return [Cache(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)) for _ in self.blocks]

    def extend(
        self, tokens: Int[Array, "B T"], cache: list[Cache], start: Int[Array, ""] | int, known: Bool[Array, "B S"]
    ) -> tuple[Float[Array, "B V"], list[Cache]]:
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
        hidden = self._embed(tokens)
        caches: list[Any] = []
        for layer, block in enumerate(self.blocks):
            local = self.config.is_local(layer)
            seen = _windowed(mask, self.config.window if local else 0, start)
            hidden, filled = block(hidden, self._angles(positions, local), seen, cache[layer], start)
            caches.append(filled)
        return self.logits(self.final_norm(hidden[:, -1:]))[:, 0], caches

    def _embed(self, tokens: Array) -> Array:
        return jnp.take(self.embedding[...], tokens, axis=0).astype(self.dtype) * jnp.asarray(
            self.config.embed_scale, self.dtype
        )

    def _angles(self, positions: Array, local: bool) -> Array:
        c = self.config
        frequencies = rope_frequencies(c.local_rope if local else c.rope, c.rotary_dim or c.head_dim)
        return positions[..., None].astype(jnp.float32) * frequencies


def _fused(q: Array) -> Any:
    """Return "cudnn" where its fused attention kernel applies, else None for XLA's attention.

    The kernel needs half precision and an NVIDIA GPU: Ampere or later for head dimensions up to 128, Hopper or later
    for up to 256.
    """
    if jax.default_backend() != "gpu" or q.dtype not in (jnp.bfloat16, jnp.float16) or q.shape[-1] % 8:
        return None
    device = jax.local_devices()[0]
    if "cuda" not in device.client.platform_version:
        return None
    generation = int(str(device.compute_capability).split(".")[0])
    return "cudnn" if generation >= 8 and q.shape[-1] <= (256 if generation >= 9 else 128) else None


def _layout(tokens: Array, valid: Array | None, segments: Array | None) -> tuple[Array, Array | None]:
    """Return positions within each example, and the attention mask (B, T, S); None for a plain causal mask."""
    length = tokens.shape[1]
    steps = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    if valid is None and segments is None:
        return steps, None
    mask = jnp.tril(jnp.ones((1, length, length), bool))
    positions = steps
    if segments is not None:
        mask = mask & (segments[:, :, None] == segments[:, None, :])
        begins = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
        positions = steps - jax.lax.cummax(jnp.where(begins, steps, 0), axis=1)
    if valid is not None:
        mask = mask & valid[:, None, :]
        positions = (
            jnp.maximum(positions - jnp.argmax(valid, axis=1, keepdims=True), 0) if segments is None else positions
        )
    return positions, mask


def _windowed(mask_BTS: Array, window: int, start: Any = 0) -> Array:
    """Return the mask with a head axis, restricted to a window; its first row is token `start`."""
    if window:
        rows, columns = start + jnp.arange(mask_BTS.shape[1]), jnp.arange(mask_BTS.shape[2])
        mask_BTS = mask_BTS & (columns[None, :] > rows[:, None] - window)[None]
    return mask_BTS[:, None]


def _maybe(norm: Norm | None, x: Array) -> Array:
    return x if norm is None else norm(x)


def _linear(
    inputs: int, outputs: int, bias: bool, dtype: Any, param_dtype: Any, rngs: nnx.Rngs, *, summed: int = 0
) -> Linear:
    """Make a linear layer with initial deviation 1/√inputs, or 1/√(2 · summed · inputs) if `summed` layers add up."""
    start = nnx.initializers.normal((inputs * (2 * summed or 1)) ** -0.5)
    return Linear(inputs, outputs, use_bias=bias, kernel_init=start, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
