"""Loading of Llama models from a GGUF file, quantised or not, with the `gguf` library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from icl_theory.errors import InputError, error_text
from icl_theory.llm.model.checkpoint import build_decoder
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.families import from_huggingface
from icl_theory.results import exists

NAMES = {  # tensor names of a layer: in GGUF files -> in Hugging Face files
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def load_gguf(path: str | Path, **settings: Any) -> Decoder:
    """Load the decoder of a GGUF file with dequantised weights; the settings are those of `load_decoder`.

    Raises:
        InputError: as in `describe_gguf`; or tensors that are missing or do not fit.
    """
    path = Path(path)
    reader, described = _opened(path)
    config = from_huggingface(described)
    tensors = _tensors(reader, config.num_heads, config.num_kv_heads, path)
    return build_decoder(config, tensors, where=str(path), **settings)


def describe_gguf(path: str | Path) -> dict[str, Any]:
    """Return a `config.json` that describes the model of a GGUF file.

    Raises:
        InputError: the file is missing or damaged, the architecture is not llama, or positions are scaled.
    """
    return _opened(Path(path))[1]


def _opened(path: Path) -> tuple[Any, dict[str, Any]]:
    if not exists(path) or path.is_dir():
        raise InputError("model", str(path), "there is no such file")
    try:
        reader = gguf.GGUFReader(path)
        return reader, _described(reader)
    except InputError:
        raise
    except Exception as error:  # the reader raises many types
        raise InputError("model", str(path), f"cannot be read as GGUF ({error_text(error)})") from None


def _described(reader: Any) -> dict[str, Any]:
    """Return the metadata of a GGUF file in the form of a `config.json`."""

    def field(name: str, default: Any = None) -> Any:
        found = reader.get_field(name)
        return default if found is None else found.contents()

    kind = field("general.architecture")
    if kind != "llama":
        raise InputError(
            "general.architecture", kind, "of GGUF files llama is supported; give a folder with safetensors"
        )
    sizes = {
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "max_position_embeddings": "context_length",
    }
    for name in (*sizes.values(), "attention.layer_norm_rms_epsilon"):
        if field(f"llama.{name}") is None:
            raise InputError(f"llama.{name}", "none", "the file lacks it; fetch it again")
    shapes = {tensor.name: tensor.shape for tensor in reader.tensors}
    if "token_embd.weight" not in shapes:
        raise InputError("token_embd.weight", "none", "the file lacks this tensor; fetch it again")
    rows = shapes["token_embd.weight"]
    scaled = field("llama.rope.scaling.type", "none")
    linear = field("llama.rope.scale_linear", 1.0)
    if scaled not in ("none", "") or linear != 1.0 or "rope_freqs.weight" in shapes:
        raise InputError("rope scaling", scaled, "it is not read from GGUF; give a folder with safetensors")
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": int(max(rows)) if int(min(rows)) == field("llama.embedding_length") else int(min(rows)),
        **{ours: int(field(f"llama.{theirs}")) for ours, theirs in sizes.items()},
        "num_key_value_heads": int(field("llama.attention.head_count_kv") or field("llama.attention.head_count")),
        "head_dim": int(
            field("llama.attention.key_length")
            or field("llama.embedding_length") // field("llama.attention.head_count")
        ),
        "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": float(field("llama.rope.freq_base", 10_000.0)),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in shapes,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
    }


def _tensors(reader: Any, heads: int, kv_heads: int, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield dequantised tensors with Hugging Face names; the rows of queries and keys are reordered by `apart`."""
    for tensor in reader.tensors:
        parts = tensor.name.removesuffix(".weight").split(".")
        known = OUTER.get(parts[0]) if len(parts) == 1 else None
        if len(parts) == 3 and parts[0] == "blk" and parts[2] in NAMES:
            known = f"model.layers.{parts[1]}.{NAMES[parts[2]]}"
        try:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise InputError(
                "model", str(path), f"its {tensor.name} is quantised as {kind}, which cannot be undone"
            ) from None
        if parts[-1] in ("attn_q", "attn_k"):
            values = apart(values, heads if parts[-1] == "attn_q" else kv_heads)
        yield f"{known or tensor.name.removesuffix('.weight')}.weight", values


def apart(values: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows (heads · H, C) of each head from interleaved pairs to first entries, then second ones."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, values.shape[1])
    return pairs.swapaxes(1, 2).reshape(values.shape)
