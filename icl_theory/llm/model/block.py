"""One block of the decoder: attention and MLP, each with its norm. Letters of shapes are those of `decoder.py`."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.lora import Linear
from icl_theory.llm.model.rotary import rotate


class Cache(NamedTuple):
    """Keys and values of all layers."""

    key: Float[Any, "L B S K H"]
    value: Float[Any, "L B S K H"]


class Room(NamedTuple):
    """A cache, and where in it new keys and values go: layer, and the first of their columns."""

    cache: Cache
    layer: Any
    start: Any


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

    def __init__(self, config: DecoderConfig, dtype: Any, param_dtype: Any, rngs: nnx.Rngs):
        c, self.config = config, config
        widths = {"query": c.num_heads, "key": c.num_kv_heads, "value": c.num_kv_heads}
        for name, heads in widths.items():
            setattr(
                self, name, linear(c.hidden_size, heads * c.head_dim, c.bias or c.qkv_bias, dtype, param_dtype, rngs)
            )
        self.output = linear(
            c.num_heads * c.head_dim, c.hidden_size, c.bias, dtype, param_dtype, rngs, summed=c.num_layers
        )
        self.query_norm = Norm(c.head_dim, c, param_dtype) if c.qk_norm else None
        self.key_norm = Norm(c.head_dim, c, param_dtype) if c.qk_norm else None

    def __call__(
        self, x_BTC: Array, angles_BTR: Array, mask: Array | None, local: Any, room: Room | None
    ) -> tuple[Array, Cache | None]:
        c = self.config
        q, k, v = (getattr(self, name)(x_BTC) for name in ("query", "key", "value"))
        q, k, v = (y.reshape(*y.shape[:2], -1, c.head_dim) for y in (q, k, v))
        if self.query_norm is not None:
            q, k = self.query_norm(q), _maybe(self.key_norm, k)
        q, k = rotate(q, angles_BTR), rotate(k, angles_BTR)
        cache = None
        if room is not None:
            at = [jnp.asarray(index, jnp.int32) for index in (room.layer, 0, room.start, 0, 0)]
            cache = Cache(
                *(
                    jax.lax.dynamic_update_slice(old, new[None].astype(old.dtype), at)
                    for old, new in zip(room.cache, (k, v), strict=True)
                )
            )
            k, v = (jax.lax.dynamic_index_in_dim(whole, room.layer, keepdims=False) for whole in cache)
        if mask is None:
            y = self._causal(q, k, v, local)
        else:
            y = jax.nn.dot_product_attention(q, k, v, scale=self._scale, mask=mask[:, None])
        return self.output(y.reshape(*y.shape[:2], -1)), cache

    @property
    def _scale(self) -> float:
        return self.config.query_scale or self.config.head_dim**-0.5

    def _causal(self, q: Array, k: Array, v: Array, local: Any) -> Array:
        """Attend to all tokens so far, or to a window of them if `local`, which is traced where layers differ."""
        window, kernel = (self.config.window - 1, 0), _fused(q)
        attend = partial(jax.nn.dot_product_attention, scale=self._scale, is_causal=True, implementation=kernel)
        if isinstance(local, bool):
            return attend(q, k, v, local_window_size=window if local else None)
        if kernel is None:
            steps = jnp.arange(q.shape[1])
            seen = ~local | (steps[None, :] >= steps[:, None] - window[0])
            return attend(q, k, v, mask=seen[None, None])
        return jax.lax.cond(local, partial(attend, local_window_size=window), attend, q, k, v)


class MLP(nnx.Module):
    """Feed-forward layer: `down(act(gate x) · up x)`, or `down(act(up x))` without a gate."""

    def __init__(self, config: DecoderConfig, dtype: Any, param_dtype: Any, rngs: nnx.Rngs):
        c = config
        self.act = {"silu": jax.nn.silu, "gelu": jax.nn.gelu}[c.activation]
        wide = (c.hidden_size, c.intermediate_size, c.bias, dtype, param_dtype, rngs)
        self.gate = linear(*wide) if c.gated else None
        self.up = linear(*wide)
        self.down = linear(c.intermediate_size, c.hidden_size, c.bias, dtype, param_dtype, rngs, summed=c.num_layers)

    def __call__(self, x: Array) -> Array:
        up = self.up(x)
        return self.down(self.act(up) if self.gate is None else self.act(self.gate(x)) * up)


class Block(nnx.Module):
    """Residual block of attention and MLP with pre-normalisation; both act in parallel for Phi."""

    def __init__(self, config: DecoderConfig, dtype: Any, param_dtype: Any, rngs: nnx.Rngs):
        c = config
        self.parallel = c.parallel
        self.attention_norm = Norm(c.hidden_size, c, param_dtype)
        self.attention = Attention(c, dtype, param_dtype, rngs)
        self.mlp_norm = None if c.parallel else Norm(c.hidden_size, c, param_dtype)
        self.mlp = MLP(c, dtype, param_dtype, rngs)
        self.attention_out_norm = Norm(c.hidden_size, c, param_dtype) if c.sandwich else None
        self.mlp_out_norm = Norm(c.hidden_size, c, param_dtype) if c.sandwich else None

    def __call__(
        self, x: Array, angles: Array, mask: Bool[Array, "B T S"] | None, local: Any, room: Room | None = None
    ) -> tuple[Array, Cache | None]:
        """Return the new hidden states, and the cache with the new keys and values if there is one.

        Args:
            x: hidden states (B, T, C).
            angles: rotation of each token (B, T, R).
            mask: True where a token (row) sees another (column); None for a plain causal mask.
            local: whether a plain causal mask is restricted to the window; traced where layers differ.
            room: cache to extend, and where; None for none.
        """
        before = self.attention_norm(x)
        attended, cache = self.attention(before, angles, mask, local, room)
        if self.parallel:
            return x + attended + self.mlp(before), cache
        x = x + _maybe(self.attention_out_norm, attended)
        return x + _maybe(self.mlp_out_norm, self.mlp(_maybe(self.mlp_norm, x))), cache


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


def _maybe(norm: Norm | None, x: Array) -> Array:
    return x if norm is None else norm(x)


def linear(
    inputs: int, outputs: int, bias: bool, dtype: Any, param_dtype: Any, rngs: nnx.Rngs, *, summed: int = 0
) -> Linear:
    """Make a linear layer with initial deviation 1/√inputs, or 1/√(2 · summed · inputs) if `summed` layers add up."""
    start = nnx.initializers.normal((inputs * (2 * summed or 1)) ** -0.5)
    return Linear(inputs, outputs, use_bias=bias, kernel_init=start, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
