"""Models in GGUF files: the golden models of all families, written with the format's library, stay the same models."""

import dataclasses
import tracemalloc

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from gguf_files import ARCHITECTURES, GOLDENS, tensors_of, write_gguf

from icl_theory.errors import InputError
from icl_theory.llm.model import gguf_file
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.model.config import Rope
from icl_theory.llm.model.families import from_huggingface
from icl_theory.llm.model.gguf_families import describe_gguf
from icl_theory.llm.model.gguf_file import GgufFile, dequantised
from icl_theory.llm.model.gguf_weights import load_gguf
from icl_theory.llm.model.rotary import rope_frequencies

EMBEDDING = "token_embd.weight"


def config_of(path):
    return from_huggingface(describe_gguf(GgufFile(path)))


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_gguf_file_is_the_model_it_was_made_of(family, tmp_path):
    expected, model = load_decoder(GOLDENS / family), load_gguf(GgufFile(write_gguf(tmp_path / "model.gguf", family)))
    config = expected.config
    if family == "qwen2":  # such files have no windows
        config = dataclasses.replace(config, window=0, local_layers=())
    if family == "llama":  # two lengths that say the same of three frequencies
        assert model.config.rope.original != config.rope.original
        frequencies = [rope_frequencies(one.rope, one.head_dim) for one in (model.config, config)]
        np.testing.assert_allclose(*frequencies, rtol=1e-4)
        config = dataclasses.replace(config, rope=model.config.rope, local_rope=model.config.rope)
    if family == "gemma3_text":  # by the norm of queries instead (tensors_of)
        config = dataclasses.replace(config, query_scale=config.head_dim**-0.5)
        norm = expected.blocks.attention.query_norm
        norm.scale[...] = (1 + norm.scale[...]) * (10 / 12) ** 0.5 - 1
    assert model.config == config
    ours, theirs = (dict(nnx.to_flat_state(nnx.state(one, nnx.Param))) for one in (model, expected))
    assert ours.keys() == theirs.keys()
    for place, weights in ours.items():
        np.testing.assert_allclose(weights[...], theirs[place][...], atol=1e-6, err_msg=str(place))


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_its_logits_are_those_of_transformers(family, tmp_path):
    """Where the configuration differs from that of the golden model: rotated pairs, scaled positions, query scale."""
    with np.load(GOLDENS / f"{family}.npz") as known:
        tokens, valid, logits = (known[f"right_{name}"] for name in ("tokens", "valid", "logits"))
    model = load_gguf(GgufFile(write_gguf(tmp_path / "model.gguf", family)))
    ours = nnx.jit(lambda model, tokens: model(tokens))(model, jnp.asarray(tokens))
    ours = np.where(valid[..., None], ours, 0.0)[:, ::3]
    np.testing.assert_allclose(ours, logits, atol=2e-5 * np.abs(logits).max())


def test_queries_keys_and_values_in_one_tensor(tmp_path):
    """Older files of Phi-2 join them."""
    found = tensors_of("phi")
    change = {}
    for layer in range(2):
        for kind in ("weight", "bias"):
            names = [f"blk.{layer}.attn_{part}.{kind}" for part in "qkv"]
            change |= dict.fromkeys(names) | {names[0].replace("_q", "_qkv"): np.concatenate([found[n] for n in names])}
    apart = load_gguf(GgufFile(write_gguf(tmp_path / "apart.gguf", "phi")))
    joined = load_gguf(GgufFile(write_gguf(tmp_path / "joined.gguf", "phi", tensors=change)))
    for one, other in zip(jax.tree.leaves(nnx.state(apart)), jax.tree.leaves(nnx.state(joined)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("original", [2048, 5000, 8192, 131_072])
def test_positions_of_llama_3_are_recognised(original, tmp_path):
    """By its frequencies, with the factors of Llama 3.2 (32) and 3.1 (8); both had 8192 tokens before."""
    for size, factor in ((64, 32.0), (128, 8.0)):
        rope = Rope(500_000.0, factor, original, 1.0, 4.0)
        divisors = np.asarray(rope_frequencies(Rope(500_000.0), size) / rope_frequencies(rope, size), np.float32)
        entries = {f"llama.attention.{name}_length": size for name in ("key", "value")}
        entries["llama.rope.freq_base"] = 500_000.0
        path = write_gguf(tmp_path / f"{size}.gguf", tensors={"rope_freqs.weight": divisors}, entries=entries)
        assert config_of(path).rope == rope


def test_positions_that_are_scaled_otherwise(tmp_path):
    plain = {"rope_freqs.weight": None}
    for place, (entries, factor) in enumerate(
        (
            ({"llama.rope.scale_linear": 4.0}, 4.0),
            ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}, 2.0),
            ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 2.0}, 1.0),
        )
    ):
        path = write_gguf(tmp_path / f"{place}.gguf", tensors=plain, entries=entries)
        assert config_of(path).rope == Rope(500.0, factor)


def test_windows_of_gemma_3(tmp_path):
    """Every sixth layer sees all where the file does not say otherwise; the local base is 10,000."""
    bare = {"gemma3.attention.sliding_window_pattern": None, "gemma3.rope.freq_base_swa": None}
    found = config_of(write_gguf(tmp_path / "bare.gguf", "gemma3_text", entries={**bare, "gemma3.block_count": 7}))
    assert found.local_layers == (True,) * 5 + (False, True)
    assert (found.window, found.local_rope, found.rope.factor) == (7, Rope(10_000.0), 8.0)
    listed = {"gemma3.attention.sliding_window_pattern": [False, True, False]}
    found = config_of(write_gguf(tmp_path / "listed.gguf", "gemma3_text", entries=listed))
    assert found.local_layers == (False, True, False)
    none = {"gemma3.attention.sliding_window": None}
    assert config_of(write_gguf(tmp_path / "none.gguf", "gemma3_text", entries=none)).local_layers == ()


def test_queries_of_the_largest_gemma_3_are_scaled_by_its_width(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", "gemma3_text", entries={"gemma3.block_count": 62})
    assert config_of(path).query_scale == pytest.approx((24 / 4) ** -0.5)


def test_quantised_tensors_are_dequantised_in_parts(tmp_path, monkeypatch):
    """All number types of the library, each with 7 rows of 2 blocks; parts give what the whole gives."""
    generator, stored, kinds = np.random.default_rng(0), {}, {}
    for name in dequantised():
        kind = gguf.GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        values = generator.integers(0, 120, (7, 2 * size), np.uint8)  # no infinite scales
        if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
            values = generator.normal(size=(7, 2 * block)).astype(name.replace("F", "float"))
        stored[f"{name}.weight"], kinds[f"{name}.weight"] = values, kind
    assert {"F32", "F16", "BF16", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "Q5_0", "IQ4_XS"} <= set(dequantised())
    file = GgufFile(write_gguf(tmp_path / "model.gguf", tensors=stored, kinds=kinds))
    monkeypatch.setattr(gguf_file, "BUFFER", 512)
    for name, values in stored.items():
        expected = gguf.quants.dequantize(values, kinds[name])
        np.testing.assert_array_equal(file.tensor(name), expected)


def test_damaged_scales_are_refused_without_warnings(tmp_path, recwarn):
    values, kind = np.full((40, 68), 0x7C, np.uint8), gguf.GGMLQuantizationType.Q8_0  # of 0x7C7C, which is NaN
    entries = {"qwen3.embedding_length": 64}
    path = write_gguf(
        tmp_path / "model.gguf", "qwen3", tensors={EMBEDDING: values}, kinds={EMBEDDING: kind}, entries=entries
    )
    with pytest.raises(InputError, match=r"model\.embed_tokens\.weight = 'NaN or infinite numbers'"):
        load_gguf(GgufFile(path))
    assert not recwarn.list


def test_a_tensor_that_cannot_be_dequantised_is_named(tmp_path):
    kind = gguf.GGMLQuantizationType.I8
    path = write_gguf(tmp_path / "model.gguf", tensors={EMBEDDING: np.ones((40, 24), np.int8)}, kinds={EMBEDDING: kind})
    with pytest.raises(InputError, match=r"quantisation of token_embd\.weight = 'I8': .* supported are F32, F16"):
        load_gguf(GgufFile(path))


def test_a_quantisation_that_the_library_does_not_know_is_named(tmp_path):
    path = write_gguf(tmp_path / "model.gguf")
    whole = bytearray(path.read_bytes())
    place = (
        whole.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    )  # after the number of sizes and a size
    whole[place : place + 4] = (99).to_bytes(4, "little")
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"unknown quantisation .*99.* supported are F32, F16"):
        GgufFile(path)


def test_a_file_that_is_cut_off_or_lacks_a_part(tmp_path):
    """At every length, and without a part in the middle, as when joined files are forgotten."""
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    tried = [whole[:length] for length in (*range(0, 2000, 97), len(whole) // 2, len(whole) - 32)]
    for part in [*tried, whole[: len(whole) // 4] + whole[len(whole) // 2 :], whole[len(whole) // 4 :]]:
        path = tmp_path / "part.gguf"
        path.write_bytes(part)
        with pytest.raises(InputError, match="cut off, lacks a part, or is damaged; fetch or join it again"):
            GgufFile(path)


def test_gguf_files_that_cannot_be(tmp_path):
    def write(name, *arguments, **settings):
        return write_gguf(tmp_path / f"{name}.gguf", *arguments, **settings)

    tokens = {"ggml.tokens": ["a", "b"]}
    entries = {"llama.attention.head_count": [2, 4]}
    for path, said in (
        (tmp_path / "none.gguf", "no such file"),
        (tmp_path, "no such file"),
        (write("other", architecture="mamba"), "'mamba': supported are llama, qwen2, qwen3, gemma3, phi2, phi3"),
        (write("rows", tensors={EMBEDDING: None}), "lacks this tensor"),
        (write("heads", entries=entries), r"head_count = \[2, 4\]: one number for all layers"),
        (write("entry", entries={"llama.block_count": None}), r"llama\.block_count = 'none': the file lacks it"),
        (write("split", entries={"split.count": 3}), "one of 3 files"),
        (write("yarn", entries={"llama.rope.scaling.type": "yarn"}), "yarn.*: supported are none, linear"),
        (write("long", "phi3", tensors={"rope_factors_long.weight": np.ones(2, np.float32)}), "longrope"),
        (write("freqs", tensors={"rope_freqs.weight": np.array([1, 8, 2], np.float32)}), "no divisors of Llama 3"),
        (write("turned", entries={"llama.rope.dimension_count": 4}), "only 6, the size of a head"),
        (write("values", entries={"llama.attention.value_length": 8}), "value_length = 8: 6 is supported"),
        (write("capped", "gemma3_text", entries={"gemma3.final_logit_softcapping": 30.0}), "softcapping"),
        (write("less", tensors={"output_norm.weight": None}), r"it lacks model\.norm\.weight"),
        (write("more", tensors={"blk.0.attn_q.scale": np.ones(1, np.float32)}), r"no place for its tensor blk\.0"),
        (write("shape", tensors={"blk.0.attn_q.weight": np.ones((9, 24), np.float32)}), r"asks for \(24, 24\)"),
        (write("nan", tensors={"output_norm.weight": np.full(24, np.nan, np.float32)}), "NaN or infinite"),
        (write("tokens", tokens=tokens), "2 of them': the embedding has 40 rows"),
    ):
        with pytest.raises(InputError, match=said):
            load_gguf(GgufFile(path))


def test_memory_is_the_weights_and_one_tensor(tmp_path, monkeypatch):
    """Here the embedding is nearly all; it is made once, and the numbers that are read fill the rest."""
    size = 20_000 * 24 * 4
    values, kind = np.zeros((20_000, 24 * 2), np.uint8), gguf.GGMLQuantizationType.BF16
    path = write_gguf(tmp_path / "model.gguf", "qwen3", tensors={EMBEDDING: values}, kinds={EMBEDDING: kind})
    file = GgufFile(path)
    load_gguf(file, host=True)
    monkeypatch.setattr(gguf_file, "BUFFER", 24 * 1000)
    tracemalloc.start()
    model = load_gguf(file, host=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.embedding[...].nbytes == size
    assert size < peak < 1.5 * size
