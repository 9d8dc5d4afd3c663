"""Names of tensors in the Hugging Face format, and the places of these tensors in a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.stacking import BLOCKS

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class Place(NamedTuple):
    """The place of a tensor of a file in a decoder.

    Attributes:
        paths: paths of the weights in the decoder; several if the file joins their rows in one tensor.
        transposed: whether the weights are transposed in the decoder.
        layer: layer in the stacked weights of the blocks; None for other weights.
    """

    paths: tuple[tuple[Any, ...], ...]
    transposed: bool = False
    layer: int | None = None

    def parts(self, flat: Mapping[Any, Any]) -> list[np.ndarray]:
        """Return the weights at the paths, as the decoder has them."""
        wholes = [np.asarray(flat[path][...]) for path in self.paths]
        return wholes if self.layer is None else [whole[self.layer] for whole in wholes]

    def tensor(self, flat: Mapping[Any, Any]) -> np.ndarray:
        """Return the tensor of the file made of the weights of a decoder."""
        parts = [part.T if self.transposed else part for part in self.parts(flat)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def weight_places(config: DecoderConfig) -> dict[str, Place]:
    """Map the Hugging Face name of each tensor to its place in a `Decoder`."""
    phi = config.family == "phi"
    norms: dict[str, Any] = {"input_layernorm": "attention_norm"}
    if config.sandwich:
        norms |= {
            "post_attention_layernorm": "attention_out_norm",
            "pre_feedforward_layernorm": "mlp_norm",
            "post_feedforward_layernorm": "mlp_out_norm",
        }
    elif not config.parallel:
        norms["post_attention_layernorm"] = "mlp_norm"
    if config.qk_norm:
        norms |= {"self_attn.q_norm": ("attention", "query_norm"), "self_attn.k_norm": ("attention", "key_norm")}
    places: dict[str, Place] = {EMBEDDING: Place((("embedding",),))}
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        for name, ours in norms.items():
            path = (BLOCKS, *([ours] if isinstance(ours, str) else ours))
            places |= _norm(f"{prefix}.{name}", path, config, layer)
        for name, (part, *inner) in _matrices(config).items():
            bias = config.bias or (config.qkv_bias and inner[0] in ("query", "key", "value"))
            places |= _matrix(f"{prefix}.{name}", [(BLOCKS, part, matrix) for matrix in inner], bias, layer)
    places |= _norm("model.final_layernorm" if phi else "model.norm", ("final_norm",), config)
    if not config.tied:
        places |= _matrix("lm_head", [("head",)], config.bias)
    return places


def _matrices(config: DecoderConfig) -> dict[str, tuple[str, ...]]:
    """Map the name of each matrix of a block to its part of a `Block` and to the matrices there that it joins."""
    if config.family == "phi3":
        return {
            "self_attn.qkv_proj": ("attention", "query", "key", "value"),
            "self_attn.o_proj": ("attention", "output"),
            "mlp.gate_up_proj": ("mlp", "gate", "up"),
            "mlp.down_proj": ("mlp", "down"),
        }
    phi = config.family == "phi"
    return {
        "self_attn.q_proj": ("attention", "query"),
        "self_attn.k_proj": ("attention", "key"),
        "self_attn.v_proj": ("attention", "value"),
        "self_attn.dense" if phi else "self_attn.o_proj": ("attention", "output"),
        "mlp.fc1" if phi else "mlp.up_proj": ("mlp", "up"),
        "mlp.fc2" if phi else "mlp.down_proj": ("mlp", "down"),
        **({"mlp.gate_proj": ("mlp", "gate")} if config.gated else {}),
    }


def _norm(name: str, path: tuple[Any, ...], config: DecoderConfig, layer: int | None = None) -> dict[str, Place]:
    kinds = {"weight": "scale"} | ({"bias": "bias"} if config.norm == "layer" else {})
    return {f"{name}.{theirs}": Place(((*path, ours),), layer=layer) for theirs, ours in kinds.items()}


def _matrix(name: str, paths: list[tuple[Any, ...]], bias: bool, layer: int | None = None) -> dict[str, Place]:
    kernels, biases = (tuple((*path, kind) for path in paths) for kind in ("kernel", "bias"))
    found = {f"{name}.weight": Place(kernels, True, layer)}
    return found | ({f"{name}.bias": Place(biases, layer=layer)} if bias else {})
