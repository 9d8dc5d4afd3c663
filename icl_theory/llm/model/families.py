"""Reading the configuration of a decoder from the `config.json` of each model family."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_theory.errors import InputError, check_choice
from icl_theory.llm.model.config import DecoderConfig, Rope

FULL, SLIDING = "full_attention", "sliding_attention"
GEMMA3 = {  # sizes that files of Gemma 3 may omit
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


def read_config(folder: Path) -> tuple[DecoderConfig, dict[str, Any]]:
    """Read the `config.json` of a model folder; return the configuration and the contents of the file.

    Of a Gemma 3 with vision, both are those of its text part (`text_description`).

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
    return from_huggingface(described), text_description(described)


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


def text_description(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of the text part of a Gemma 3 with vision (`gemma3`), as `gemma3_text`.

    Other descriptions are returned unchanged. Special tokens and tying are those of the whole model where it has them.
    """
    if described.get("model_type") != "gemma3":
        return dict(described)
    outer = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")
    whole = {name: described[name] for name in outer if described.get(name) is not None}
    kind = {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]}
    return {**described["text_config"], **whole, **kind}


def _sizes(c: Mapping[str, Any], **defaults: int) -> dict[str, Any]:
    c = {**defaults, **c}
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


def _rotated(c: Mapping[str, Any], default: float) -> float:
    """Return the fraction of each head that is rotated."""
    return (c.get("rope_parameters") or {}).get("partial_rotary_factor", c.get("partial_rotary_factor", default))


def _windows(window: int | None, kinds: Sequence[str]) -> dict[str, Any]:
    """Return the settings of windowed attention, from the window and the kind of attention of each layer."""
    for kind in kinds:
        check_choice("layer_types", kind, (FULL, SLIDING))
    if SLIDING not in kinds:
        return {}
    return {"window": window or 0, "local_layers": tuple(kind == SLIDING for kind in kinds)}


def _refuse(c: Mapping[str, Any], **wanted: Any) -> None:
    """Raise `InputError` for settings with values that are not implemented here."""
    for name, value in wanted.items():
        if c.get(name, value) != value and not (c[name] is None and not value):
            raise InputError(name, c[name], f"only {value} is built here")


def _like_llama(c: Mapping[str, Any], family: str, sizes: Mapping[str, Any], **more: Any) -> DecoderConfig:
    """Return a configuration with the parts that all families but Gemma 3 and Phi share."""
    _refuse(c, hidden_act="silu")
    rope = _rope(c.get("rope_theta", 10_000.0), c.get("rope_parameters") or c.get("rope_scaling"))
    shared = {"norm_eps": c.get("rms_norm_eps", 1e-6), "tied": c.get("tie_word_embeddings", False)}
    return DecoderConfig(**{**sizes, **shared, **more}, rope=rope, local_rope=rope, family=family)


def _llama(c: Mapping[str, Any]) -> DecoderConfig:
    _refuse(c, attention_bias=False, mlp_bias=False)
    return _like_llama(c, "llama", _sizes(c))


def _qwen(c: Mapping[str, Any], family: str, sizes: Mapping[str, Any], **more: Any) -> DecoderConfig:
    window = c.get("sliding_window", 4096) if c.get("use_sliding_window") else None
    first = sizes["num_layers"] if window is None else c.get("max_window_layers", 28)
    kinds = c.get("layer_types") or [SLIDING if layer >= first else FULL for layer in range(sizes["num_layers"])]
    return _like_llama(c, family, sizes, **_windows(window, kinds), **more)


def _qwen2(c: Mapping[str, Any]) -> DecoderConfig:
    return _qwen(c, "qwen2", _sizes(c, num_key_value_heads=32), qkv_bias=True)


def _qwen3(c: Mapping[str, Any]) -> DecoderConfig:
    _refuse(c, attention_bias=False)
    sizes = _sizes(c, num_key_value_heads=32) | {"head_dim": c.get("head_dim") or 128}
    return _qwen(c, "qwen3", sizes, qk_norm=True)


def _mistral(c: Mapping[str, Any]) -> DecoderConfig:
    _refuse(c, layer_types=None)
    sizes = _sizes(c, num_key_value_heads=8)
    return _like_llama(c, "mistral", sizes, **_windowed_throughout(c.get("sliding_window", 4096), sizes))


def _phi3(c: Mapping[str, Any]) -> DecoderConfig:
    sizes = _sizes(c)
    windows = _windowed_throughout(c.get("sliding_window"), sizes)
    more = {"norm_eps": c.get("rms_norm_eps", 1e-5), "rotary_dim": int(sizes["head_dim"] * _rotated(c, 1.0))}
    return _like_llama(c, "phi3", sizes, **windows, **more)


def _windowed_throughout(window: int | None, sizes: Mapping[str, Any]) -> dict[str, Any]:
    return _windows(window, [FULL if window is None else SLIDING] * sizes["num_layers"])


def _gemma3(c: Mapping[str, Any]) -> DecoderConfig:
    _refuse(
        c,
        hidden_activation="gelu_pytorch_tanh",
        attention_bias=False,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        use_bidirectional_attention=False,
    )
    sizes = _sizes(c, **GEMMA3) | {"head_dim": c.get("head_dim") or 256}
    nested = c.get("rope_parameters") or {}
    scaling = nested.get("full_attention", c.get("rope_scaling"))
    local = nested.get("sliding_attention")
    every = c.get("sliding_window_pattern", c.get("_sliding_window_pattern", 6))
    kinds = c.get("layer_types") or [
        FULL if (layer + 1) % every == 0 else SLIDING for layer in range(sizes["num_layers"])
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
        **_windows(c.get("sliding_window", 4096), kinds),
        tied=c.get("tie_word_embeddings", True),
        family="gemma3_text",
    )


def _phi(c: Mapping[str, Any]) -> DecoderConfig:
    _refuse(c, hidden_act="gelu_new", qk_layernorm=False)
    sizes = _sizes(c)
    return DecoderConfig(
        **sizes,
        norm="layer",
        norm_eps=c.get("layer_norm_eps", 1e-5),
        activation="gelu",
        gated=False,
        parallel=True,
        bias=True,
        rotary_dim=int(sizes["head_dim"] * _rotated(c, 0.5)),
        rope=_rope(c.get("rope_theta", 10_000.0), c.get("rope_parameters") or c.get("rope_scaling")),
        tied=c.get("tie_word_embeddings", False),
        family="phi",
    )


FAMILIES: dict[str, Callable[[Mapping[str, Any]], DecoderConfig]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma3": lambda c: _gemma3(text_description(c)),
    "gemma3_text": _gemma3,
    "phi": _phi,
    "phi3": _phi3,
}
