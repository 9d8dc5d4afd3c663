"""Reading the configuration of a decoder from the `config.json` of each model family."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from icl_theory.errors import InputError
from icl_theory.llm.model.config import DecoderConfig, Rope


def read_config(folder: Path) -> tuple[DecoderConfig, dict[str, Any]]:
    """Read the `config.json` of a model folder; return the configuration and the contents of the file.

    Raises:
        InputError: the file is missing or damaged, the weights are quantised, or the architecture is not supported.
    """
    path = folder / "config.json"
    try:
        described = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError("model", str(folder), "it holds no config.json, so it is no model folder") from None
    except (OSError, ValueError) as error:
        raise InputError("model", str(path), f"cannot be read ({error})") from None
    if not isinstance(described, dict):
        raise InputError("model", str(path), "it holds no settings; fetch it again")
    if described.get("quantization_config"):
        how = described["quantization_config"]
        kind = how.get("quant_method", how) if isinstance(how, Mapping) else how
        raise InputError(
            "quantization_config", kind, "quantised weights are not read; give the model without, or as GGUF"
        )
    return from_huggingface(described), described


def from_huggingface(described: Mapping[str, Any]) -> DecoderConfig:
    """Return the configuration that a `config.json` describes.

    Raises:
        InputError: an architecture that is not supported (the message names those that are), a setting with a value
            that is not implemented here, or a setting that is missing or of the wrong type.
    """
    family = described.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise InputError("model_type", family, "supported are " + ", ".join(FAMILIES))
    try:
        return FAMILIES[family](described)
    except KeyError as error:
        raise InputError("config.json", f"model_type {family}", f"it lacks {error}") from None
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise InputError("config.json", f"model_type {family}", f"a setting is of the wrong kind ({error})") from None


def _sizes(c: Mapping[str, Any]) -> dict[str, Any]:
    heads = c["num_attention_heads"]
    return {
        "vocab_size": c["vocab_size"],
        "hidden_size": c["hidden_size"],
        "intermediate_size": c["intermediate_size"],
        "num_layers": c["num_hidden_layers"],
        "num_heads": heads,
        "num_kv_heads": c.get("num_key_value_heads") or heads,
        "head_dim": c.get("head_dim") or c["hidden_size"] // heads,
    }


def _rope(theta: float, scaling: Mapping[str, Any] | None) -> Rope:
    """Return the RoPE of flat settings (`rope_theta`, `rope_scaling`) or of nested `rope_parameters` (newer files)."""
    scaling = scaling or {}
    theta = scaling.get("rope_theta", theta)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, scaling["factor"])
    if kind == "llama3":
        lengths = scaling["original_max_position_embeddings"]
        return Rope(theta, scaling["factor"], lengths, scaling["low_freq_factor"], scaling["high_freq_factor"])
    raise InputError("rope_scaling", kind, "supported are default, linear and llama3")


def _refuse(c: Mapping[str, Any], **wanted: Any) -> None:
    """Raise `InputError` for settings with values that are not implemented here."""
    for name, value in wanted.items():
        if c.get(name, value) != value and not (c[name] is None and not value):
            raise InputError(name, c[name], f"only {value} is built here")


def _llama(c: Mapping[str, Any]) -> DecoderConfig:
    _refuse(c, hidden_act="silu", attention_bias=False, mlp_bias=False)
    rope = _rope(c.get("rope_theta", 10_000.0), c.get("rope_parameters") or c.get("rope_scaling"))
    return DecoderConfig(
        **_sizes(c),
        norm_eps=c.get("rms_norm_eps", 1e-6),
        rope=rope,
        tied=c.get("tie_word_embeddings", False),
        family="llama",
    )


def _qwen3(c: Mapping[str, Any]) -> DecoderConfig:
    _refuse(c, hidden_act="silu", attention_bias=False, use_sliding_window=False)
    rope = _rope(c.get("rope_theta", 10_000.0), c.get("rope_parameters") or c.get("rope_scaling"))
    sizes = _sizes(c) | {"head_dim": c.get("head_dim") or 128}
    return DecoderConfig(
        **sizes,
        norm_eps=c.get("rms_norm_eps", 1e-6),
        rope=rope,
        qk_norm=True,
        tied=c.get("tie_word_embeddings", False),
        family="qwen3",
    )


def _gemma3(c: Mapping[str, Any]) -> DecoderConfig:
    _refuse(
        c,
        hidden_activation="gelu_pytorch_tanh",
        attention_bias=False,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        use_bidirectional_attention=False,
    )
    sizes = _sizes({"num_key_value_heads": 4, **c}) | {"head_dim": c.get("head_dim") or 256}
    nested = c.get("rope_parameters") or {}
    scaling = nested.get("full_attention", c.get("rope_scaling"))
    local = nested.get("sliding_attention")
    every = c.get("sliding_window_pattern", c.get("_sliding_window_pattern", 6))
    kinds = c.get("layer_types") or [
        "full_attention" if (layer + 1) % every == 0 else "sliding_attention" for layer in range(sizes["num_layers"])
    ]
    return DecoderConfig(
        **sizes,
        norm="rms_offset",
        norm_eps=c.get("rms_norm_eps", 1e-6),
        activation="gelu",
        qk_norm=True,
        sandwich=True,
        embed_scale=float(sizes["hidden_size"]) ** 0.5,
        query_scale=float(c.get("query_pre_attn_scalar", 256)) ** -0.5,
        rope=_rope(c.get("rope_theta", 1_000_000.0), scaling),
        local_rope=_rope(c.get("rope_local_base_freq", 10_000.0), local),
        window=c.get("sliding_window", 4096),
        local_layers=tuple(kind == "sliding_attention" for kind in kinds),
        tied=c.get("tie_word_embeddings", True),
        family="gemma3_text",
    )


def _phi(c: Mapping[str, Any]) -> DecoderConfig:
    _refuse(c, hidden_act="gelu_new", qk_layernorm=False)
    sizes = _sizes(c)
    nested = c.get("rope_parameters") or {}
    fraction = nested.get("partial_rotary_factor", c.get("partial_rotary_factor", 0.5))
    return DecoderConfig(
        **sizes,
        norm="layer",
        norm_eps=c.get("layer_norm_eps", 1e-5),
        activation="gelu",
        gated=False,
        parallel=True,
        bias=True,
        rotary_dim=int(sizes["head_dim"] * fraction),
        rope=_rope(c.get("rope_theta", 10_000.0), nested or c.get("rope_scaling")),
        tied=c.get("tie_word_embeddings", False),
        family="phi",
    )


FAMILIES: dict[str, Callable[[Mapping[str, Any]], DecoderConfig]] = {
    "llama": _llama,
    "qwen3": _qwen3,
    "gemma3_text": _gemma3,
    "phi": _phi,
}
