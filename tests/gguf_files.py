"""GGUF files of the golden models, written with the library of the format as llama.cpp's converters do."""

import json
import math
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

GOLDENS = Path(__file__).parent / "goldens" / "llm"
ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3_text": "gemma3",
    "phi": "phi2",
    "phi3": "phi3",
}
OUTER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.final_layernorm": "output_norm",
    "lm_head": "output",
}
INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "self_attn.dense": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def described(family):
    return json.loads((GOLDENS / family / "config.json").read_text())


def tensors_of(family):
    """Tensors of a golden model under their names in a GGUF file, and with the values that they have there."""
    config, found = described(family), {}
    for name, values in load_file(GOLDENS / family / "model.safetensors").items():
        stem, kind = name.rsplit(".", 1)
        parts = stem.split(".")
        if "layers" in parts:
            known = INNER | GEMMA if family == "gemma3_text" else INNER
            made = f"blk.{parts[2]}.{known['.'.join(parts[3:])]}.{kind}"
        else:
            made = f"{OUTER[stem]}.{kind}"
        if family == "llama" and ("q_proj" in name or "k_proj" in name):
            values = side_by_side(values, 4 if "q_proj" in name else 2)
        if family == "gemma3_text" and "norm" in name:
            values = values + 1.0
            if "q_norm" in name:  # such files divide queries by √head_dim, the golden model by √12
                values = values * math.sqrt(config["head_dim"] / config["query_pre_attn_scalar"])
        found[made] = values.astype(np.float32)
    if family == "llama":
        found["rope_freqs.weight"] = llama3_divisors(config)
    return found


def side_by_side(values, heads):
    """Rows in the order of the file: rotated pairs next to each other."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
    return halves.swapaxes(1, 2).reshape(values.shape)


def llama3_divisors(config):
    """Divisors of the frequencies: by wavelength, as the model card of Llama 3.1 has them."""
    rope, size = config["rope_parameters"], config["head_dim"]
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    found = []
    for pair in range(size // 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (2 * pair / size)
        if wavelength < original / rope["high_freq_factor"]:
            found.append(1.0)
        elif wavelength > original / rope["low_freq_factor"]:
            found.append(factor)
        else:
            share = (original / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            found.append(1 / ((1 - share) / factor + share))
    return np.array(found, np.float32)


def metadata_of(family):
    """Entries of the architecture."""
    c = described(family)
    rope = c["rope_parameters"]
    full = rope.get("full_attention", rope)
    size = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    found = {
        "embedding_length": c["hidden_size"],
        "feed_forward_length": c["intermediate_size"],
        "block_count": c["num_hidden_layers"],
        "attention.head_count": c["num_attention_heads"],
        "attention.head_count_kv": c["num_key_value_heads"],
        "context_length": c["max_position_embeddings"],
        "rope.freq_base": full["rope_theta"],
    }
    if "layer_norm_eps" in c:
        found["attention.layer_norm_epsilon"] = c["layer_norm_eps"]
    else:
        found["attention.layer_norm_rms_epsilon"] = c["rms_norm_eps"]
    if "head_dim" in c:
        found |= {"attention.key_length": size, "attention.value_length": size}
    if "partial_rotary_factor" in full:
        found["rope.dimension_count"] = int(size * full["partial_rotary_factor"])
    if family == "gemma3_text":
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": full["factor"]}
        found |= {"rope.freq_base_swa": rope["sliding_attention"]["rope_theta"], "attention.sliding_window_pattern": 2}
    if family in ("gemma3_text", "phi3"):
        found["attention.sliding_window"] = c["sliding_window"]
    return found


def write_gguf(path, family="llama", *, tokens=None, tensors=None, entries=None, architecture=None, kinds=None):
    """Write the golden model of a family.

    `tensors` and `entries` replace what they name; None leaves it out. `tokens` are entries of the tokenizer, and
    `kinds` names the quantisation of tensors given as bytes.
    """
    writer = gguf.GGUFWriter(path, architecture or ARCHITECTURES[family])
    named = {f"{ARCHITECTURES[family]}.{name}": value for name, value in metadata_of(family).items()}
    named |= {f"tokenizer.{name}": value for name, value in (tokens or {}).items()} | (entries or {})
    for name, value in named.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        elif value is not None:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](name, value)
    for name, values in (tensors_of(family) | (tensors or {})).items():
        if values is not None:
            writer.add_tensor(name, np.ascontiguousarray(values), raw_dtype=(kinds or {}).get(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
