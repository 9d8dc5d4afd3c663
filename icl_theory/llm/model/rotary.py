"""Rotary position embeddings with the frequency scaling of each model family."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from icl_theory.llm.model.config import Rope


def rope_frequencies(rope: Rope, rotary_dim: int) -> Float[Array, " R"]:
    """Return the frequencies `θ^(−2i/R)` of R rotated entries, divided by the factor uniformly or as in Llama 3.

    In Llama 3, frequencies with wavelengths above original/low are divided by the factor, and those with wavelengths
    below original/high are kept. In between, the two are interpolated linearly in original/wavelength.
    """
    frequencies = rope.theta ** (-jnp.arange(0, rotary_dim, 2, dtype=jnp.float32) / rotary_dim)
    if not rope.original:
        return frequencies / rope.factor
    turns = rope.original * frequencies / (2 * jnp.pi)  # original / wavelength
    kept = jnp.clip((turns - rope.low) / (rope.high - rope.low), 0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / rope.factor)


def rotate(x_BTNH: Array, angles_BTR: Array) -> Array:
    """Rotate the pairs (i, i + R) of the first 2R entries of each head by their angles; keep the other entries."""
    half = angles_BTR.shape[-1]
    cos, sin = jnp.cos(angles_BTR)[:, :, None], jnp.sin(angles_BTR)[:, :, None]
    x = x_BTNH.astype(jnp.float32)
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin, rest]
    return jnp.concatenate(turned, axis=-1).astype(x_BTNH.dtype)
