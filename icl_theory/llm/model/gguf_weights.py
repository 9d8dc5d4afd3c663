"""Loading of a decoder from a GGUF file, quantised or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gguf
import numpy as np

from icl_theory.errors import InputError
from icl_theory.llm.model.checkpoint import build_decoder
from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.families import from_huggingface
from icl_theory.llm.model.gguf_families import FACTORS, describe_gguf
from icl_theory.llm.model.gguf_file import GgufFile
from icl_theory.llm.model.weight_places import weight_places

KINDS = (".weight", ".bias")
JOINED = "attn_qkv"  # queries, keys and values in one tensor, in older files of Phi-2


def load_gguf(file: GgufFile, **settings: Any) -> Decoder:
    """Load the decoder of a GGUF file with dequantised weights; the settings are those of `load_decoder`.

    Memory: the weights and one matrix of all layers.

    Raises:
        InputError: as in `describe_gguf`; a quantisation that cannot be undone; or tensors that are missing, unknown,
            of the wrong shape, or not finite.
    """
    config = from_huggingface(describe_gguf(file))
    return build_decoder(config, _tensors(file, config), where=str(file.path), **settings)


def _tensors(file: GgufFile, config: DecoderConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the tensors with Hugging Face names, as `transformers` has them."""
    architecture = next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == file.architecture)
    theirs = gguf.get_tensor_name_map(architecture, config.num_layers)
    ours = {str(theirs.get_name(name, KINDS)): name for name in weight_places(config)}
    heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}
    for name in file.shapes:
        part = name.split(".")[-2]
        if name == FACTORS:
            continue
        if part == JOINED and name not in ours:
            yield from _apart(file, name, ours, config)
        elif name not in ours:
            raise InputError("model", str(file.path), f"no place for its tensor {name} in a {config.family} model")
        else:
            values = file.tensor(name)
            if file.architecture == "llama" and part in heads and len(values) == heads[part] * config.head_dim:
                values = halves(values, heads[part])
            if config.norm == "rms_offset" and part.endswith("norm"):
                values -= 1.0  # the file holds 1 + scale
            yield ours[name], values


def halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows (heads · H, C) of each head from rotated pairs to first entries, then second ones."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, values.shape[1])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _apart(file: GgufFile, name: str, ours: dict[str, str], config: DecoderConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Yield queries, keys and values from a tensor that joins their rows."""
    names = [ours.get(name.replace(JOINED, part), "") for part in ("attn_q", "attn_k", "attn_v")]
    sizes = np.cumsum([config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim])
    yield from zip(names, np.split(file.tensor(name), sizes), strict=True)
