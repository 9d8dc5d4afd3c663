"""Configurations of the four language models of the paper, for measurements without their weights."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import nnx

from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.stacking import num_axes

PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama-3.2-1B": {
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": True,
    },
    "Qwen3-0.6B": {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
    },
    "Gemma-3-1B": {
        "model_type": "gemma3_text",
        "vocab_size": 262_144,
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 256,
    },
    "Phi-2": {
        "model_type": "phi",
        "vocab_size": 51_200,
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.4,
        "rope_theta": 10_000.0,
    },
}


def model_flops(config: DecoderConfig, rows: int, length: int) -> float:
    """Return the FLOPs of one step of plain training.

    They are `6 · (weights of matrices) · tokens`, plus `12 · N · H` in each layer for every pair of tokens of which one
    attends to the other. The output layer counts whether tied or not. Embedding look-ups, norms, the softmax, and what
    remat or a second pass computes again do not count.

    Args:
        config: architecture of the model.
        rows: number of sequences in a step.
        length: number of tokens in each sequence.
    """
    c = config
    shapes = nnx.state(nnx.eval_shape(lambda: Decoder(c, rngs=nnx.Rngs(0))), nnx.Param)
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    matrices = sum(np.prod(leaf.shape, dtype=float) for path, leaf in leaves if num_axes(path, leaf) == 2)
    matrices -= 0 if c.tied else c.vocab_size * c.hidden_size
    pairs = 0.0
    for layer in range(c.num_layers):
        window = min(c.window, length) if c.is_local(layer) else length
        pairs += window * (window + 1) / 2 + (length - window) * window
    return rows * (6.0 * matrices * length + 12.0 * c.num_heads * c.head_dim * pairs)
