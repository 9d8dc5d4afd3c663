"""Reading the configuration of a model from the metadata of a GGUF file, as a `config.json`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from icl_theory.errors import InputError
from icl_theory.llm.model.config import Rope
from icl_theory.llm.model.families import FULL, SLIDING
from icl_theory.llm.model.gguf_file import GgufFile
from icl_theory.llm.model.rotary import rope_frequencies

EMBEDDING, HEAD, FACTORS, LONG = "token_embd.weight", "output.weight", "rope_freqs.weight", "rope_factors_long.weight"
SIZES = {  # names of sizes: in config.json -> in GGUF files
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
}
TOKENS = {
    f"{name}_token_id": f"tokenizer.ggml.{key}_token_id"
    for name, key in {"bos": "bos", "eos": "eos", "pad": "padding"}.items()
}
ROUNDING = 1e-5  # of the numbers in a file
LOW, HIGH = 1.0, 4.0  # bounds of the scaling of positions in every Llama 3
GEMMA_PERIOD, GEMMA_LOCAL, GEMMA_27B = 6, 10_000.0, 62  # windows and local rope base of Gemma 3; layers of its largest


class Architecture(NamedTuple):
    """An architecture of GGUF files.

    Attributes:
        family: its `model_type` in `config.json`.
        model: its class in `transformers`.
        settings: further settings, from the file and the settings that all architectures share.
    """

    family: str
    model: str
    settings: Callable[[GgufFile, dict[str, Any]], dict[str, Any]]


def describe_gguf(file: GgufFile) -> dict[str, Any]:
    """Return a `config.json` that describes the model of a GGUF file.

    Raises:
        InputError: an architecture that is not supported, an entry or the embedding that is missing, another number of
            tokens than rows of the embedding, or positions that are scaled in another way than linearly or as in
            Llama 3.
    """
    if file.architecture not in ARCHITECTURES:
        remedy = f"supported are {', '.join(ARCHITECTURES)}; give a model of one of them"
        raise InputError("general.architecture", file.architecture, remedy)
    if EMBEDDING not in file.shapes:
        raise InputError(EMBEDDING, "none", "the file lacks this tensor; fetch it again")
    rows, tokens = file.shapes[EMBEDDING][0], file.count("tokenizer.ggml.tokens")
    if tokens not in (None, rows):
        remedy = f"the embedding has {rows} rows, so the file is damaged or badly converted; fetch another"
        raise InputError("tokenizer.ggml.tokens", f"{tokens} of them", remedy)
    known = ARCHITECTURES[file.architecture]
    sizes = {ours: int(file.number(theirs)) for ours, theirs in SIZES.items()}
    heads = sizes["num_attention_heads"]
    head_dim = int(file.number("attention.key_length", sizes["hidden_size"] // heads))
    shared = {
        "model_type": known.family,
        "architectures": [known.model],
        "vocab_size": rows,
        **sizes,
        "num_key_value_heads": int(file.number("attention.head_count_kv", heads)),
        "head_dim": head_dim,
        "rope_theta": float(file.number("rope.freq_base", 10_000.0)),
        "rope_scaling": None,
        "tie_word_embeddings": HEAD not in file.shapes,
        **{ours: file.get(theirs) for ours, theirs in TOKENS.items()},
    }
    if file.number("attention.value_length", head_dim) != head_dim:
        raise InputError("attention.value_length", file.own("attention.value_length"), f"{head_dim} is supported")
    return shared | {"rope_scaling": _scaling(file, shared)} | known.settings(file, shared)


def _like_llama(file: GgufFile, shared: dict[str, Any]) -> dict[str, Any]:
    if _rotated(file, shared) != 1.0:
        remedy = f"only {shared['head_dim']}, the size of a head, is supported"
        raise InputError("rope.dimension_count", file.own("rope.dimension_count"), remedy)
    return {"hidden_act": "silu", "rms_norm_eps": file.number("attention.layer_norm_rms_epsilon")}


def _gemma3(file: GgufFile, shared: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of Gemma 3; files leave out most of those that all its sizes share."""
    layers, window = shared["num_hidden_layers"], int(file.number("attention.sliding_window", 0))
    pattern = file.own("attention.sliding_window_pattern", GEMMA_PERIOD)
    local = pattern if isinstance(pattern, list) else [bool((layer + 1) % pattern) for layer in range(layers)]
    if file.own("final_logit_softcapping") or file.own("attn_logit_softcapping"):
        raise InputError("logit_softcapping", "given", "it is not built here; give a Gemma 3 without it")
    width = shared["hidden_size"] // shared["num_attention_heads"] if layers == GEMMA_27B else shared["head_dim"]
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": file.number("attention.layer_norm_rms_epsilon"),
        "query_pre_attn_scalar": width,
        "rope_local_base_freq": float(file.number("rope.freq_base_swa", GEMMA_LOCAL)),
        "sliding_window": window or None,
        "layer_types": [SLIDING if window and one else FULL for one in local],
    }


def _phi2(file: GgufFile, shared: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_act": "gelu_new",
        "layer_norm_eps": file.number("attention.layer_norm_epsilon"),
        "partial_rotary_factor": _rotated(file, shared),
    }


def _phi3(file: GgufFile, shared: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "rms_norm_eps": file.number("attention.layer_norm_rms_epsilon"),
        "partial_rotary_factor": _rotated(file, shared),
        "sliding_window": int(file.number("attention.sliding_window", 0)) or None,
    }


ARCHITECTURES = {
    "llama": Architecture("llama", "LlamaForCausalLM", _like_llama),  # Mistral too
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", _like_llama),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", _like_llama),
    "gemma3": Architecture("gemma3_text", "Gemma3ForCausalLM", _gemma3),
    "phi2": Architecture("phi", "PhiForCausalLM", _phi2),
    "phi3": Architecture("phi3", "Phi3ForCausalLM", _phi3),
}


def _rotated(file: GgufFile, shared: dict[str, Any]) -> float:
    """Return the fraction of each head that is rotated."""
    return file.number("rope.dimension_count", shared["head_dim"]) / shared["head_dim"]


def _scaling(file: GgufFile, shared: dict[str, Any]) -> dict[str, Any] | None:
    """Return the scaling of positions in the form of a `config.json`; None if there is none."""
    factor = file.number("rope.scaling.factor", file.number("rope.scale_linear", 1.0))
    kind = file.own("rope.scaling.type", "linear")
    if LONG in file.shapes or kind not in ("none", "", "linear"):
        kind = "longrope" if LONG in file.shapes else kind
        raise InputError("rope.scaling.type", kind, "supported are none, linear and that of Llama 3")
    if FACTORS in file.shapes:
        return _like_llama3(file.tensor(FACTORS), shared)
    return {"rope_type": "linear", "factor": float(factor)} if kind == "linear" and factor != 1 else None


def _like_llama3(divisors: np.ndarray, shared: dict[str, Any]) -> dict[str, Any]:
    """Return the scaling of Llama 3 whose divisors of the frequencies are the given ones.

    The divisor `d` of a frequency with wavelength λ is `1/d = s + (1 − s)/factor` with `s = (L/λ − low)/(high − low)`,
    cut to [0, 1]. So `L = λ (low + s (high − low))` is the original length where s lies between 0 and 1, and a lower
    bound of it where s = 1.
    """
    plain = Rope(shared["rope_theta"])
    frequencies = np.asarray(rope_frequencies(plain, shared["head_dim"]), np.float64)
    factor, rest = float(divisors.max()), 1.0
    if factor > 1.0 and divisors.shape == frequencies.shape:
        kept = (1.0 / divisors - 1.0 / factor) / (1.0 - 1.0 / factor)
        lengths = 2 * math.pi / frequencies * (LOW + kept * (HIGH - LOW))
        between = (kept > ROUNDING) & (kept < 1 - ROUNDING)
        least = math.ceil(lengths[kept > ROUNDING].max(initial=1.0))
        original = round(float(np.median(lengths[between]))) if between.any() else least
        scaled = rope_frequencies(Rope(shared["rope_theta"], factor, original, LOW, HIGH), shared["head_dim"])
        rest = float(np.abs(np.asarray(scaled) * divisors / frequencies - 1).max())
    if rest > 1e-3:
        raise InputError(FACTORS, f"largest {factor:.4g}", "these are no divisors of Llama 3; give another model")
    names = {"low_freq_factor": LOW, "high_freq_factor": HIGH, "original_max_position_embeddings": original}
    return {"rope_type": "llama3", "factor": round(factor, 4), **names}
