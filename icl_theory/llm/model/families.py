"""Decoder configurations, and how to read them from the `config.json` of each model family."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from icl_theory.errors import InputError, check_choice, check_number


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary position embedding (RoPE) of one kind of layer.

    Attributes:
        theta: base of the frequencies.
        factor: divisor of the frequencies; 1 for no scaling.
        original: context length before scaling, for Llama 3's scaling by wavelength; 0 to divide all frequencies.
        low: frequencies with wavelengths above original/low are divided (Llama 3 only).
        high: frequencies with wavelengths below original/high are kept, those in between interpolated (Llama 3 only).
    """

    theta: float = 10_000.0
    factor: float = 1.0
    original: int = 0
    low: float = 1.0
    high: float = 4.0

    def __post_init__(self) -> None:
        check_number("rope_theta", self.theta, minimum=0.0, exclusive=True)
        check_number("rope factor", self.factor, minimum=0.0, exclusive=True)
        check_number("original_max_position_embeddings", self.original, minimum=0)
        check_number("low_freq_factor", self.low, minimum=0.0, exclusive=True)
        check_number("high_freq_factor", self.high, minimum=0.0, exclusive=True)


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Architecture of a decoder.

    Attributes:
        vocab_size: number of tokens in the vocabulary.
        hidden_size: width of the residual stream.
        intermediate_size: width of an MLP.
        num_layers: number of blocks of attention and MLP.
        num_heads: number of query heads.
        num_kv_heads: number of key and value heads.
        head_dim: dimension of one head.
        norm: "rms" (scale), "rms_offset" (1 + scale) or "layer" (scale and bias).
        norm_eps: constant added to the mean square (to the variance, for "layer").
        activation: "silu" or "gelu" (the tanh approximation).
        gated: whether the MLP computes act(gate x) * (up x) instead of act(up x).
        parallel: whether attention and MLP read the same norm and are added together, instead of one after the other
            with a norm each.
        bias: whether every projection and the output layer have a bias.
        qk_norm: whether query and key heads are normalised before rotation.
        sandwich: whether the outputs of attention and MLP are normalised again before they are added.
        embed_scale: factor of the embeddings.
        query_scale: factor of the attention scores; 0 for head_dim^(−1/2).
        rotary_dim: number of entries of a head that are rotated; 0 for all.
        rope: position embedding of layers with full attention.
        local_rope: position embedding of layers with windowed attention.
        window: number of tokens that a windowed layer sees, including the current one; 0 for no window.
        local_layers: whether each layer is windowed; empty if none is.
        tied: whether the output layer uses the embedding matrix.
        family: model family whose tensor names the checkpoints use.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm: str = "rms"
    norm_eps: float = 1e-6
    activation: str = "silu"
    gated: bool = True
    parallel: bool = False
    bias: bool = False
    qk_norm: bool = False
    sandwich: bool = False
    embed_scale: float = 1.0
    query_scale: float = 0.0
    rotary_dim: int = 0
    rope: Rope = Rope()
    local_rope: Rope = Rope()
    window: int = 0
    local_layers: tuple[bool, ...] = ()
    tied: bool = True
    family: str = "llama"

    def __post_init__(self) -> None:
        for field in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
        ):
            check_number(field, getattr(self, field), minimum=1, integer=True)
        check_choice("norm", self.norm, ("rms", "rms_offset", "layer"))
        check_choice("activation", self.activation, ("silu", "gelu"))
        for name in ("norm_eps", "embed_scale", "query_scale"):
            check_number(name, getattr(self, name), minimum=0.0)
        for name in ("rotary_dim", "window"):
            check_number(name, getattr(self, name), minimum=0, integer=True)
        if (self.rotary_dim or self.head_dim) % 2:
            raise InputError("head_dim", self.rotary_dim or self.head_dim, "its rotated entries must be pairs")
        if self.num_heads % self.num_kv_heads:
            raise InputError("num_kv_heads", self.num_kv_heads, f"it must divide num_heads ({self.num_heads})")
        if self.local_layers and len(self.local_layers) != self.num_layers:
            raise InputError("local_layers", f"{len(self.local_layers)} of them", f"give {self.num_layers}")

    def is_local(self, layer: int) -> bool:
        """Return whether a layer has windowed attention."""
        return bool(self.local_layers) and self.local_layers[layer]


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
