"""The architecture of a decoder as settings."""

from __future__ import annotations

import dataclasses

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
        qkv_bias: whether the projections to queries, keys and values have a bias.
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
    qkv_bias: bool = False
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
        if any(self.local_layers) and not self.window:
            raise InputError("window", self.window, "layers with windowed attention need at least 1")

    def is_local(self, layer: int) -> bool:
        """Return whether a layer has windowed attention."""
        return bool(self.local_layers) and self.local_layers[layer]
