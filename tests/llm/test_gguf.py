"""GGUF files: what a writer of the format's own library wrote is the same model, and its tokenizer the same texts."""

import dataclasses
import json
from pathlib import Path

import gguf
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import load_file
from tiny_model import tiny_tokenizer

from icl_theory.errors import InputError
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.model.gguf_file import NAMES, OUTER, describe_gguf, load_gguf
from icl_theory.llm.model.tokenizer import check_tokenizer, load_tokenizer

GOLDEN = Path(__file__).parents[1] / "goldens" / "llm" / "llama"
TOKENS = jnp.asarray(np.random.default_rng(0).integers(3, 40, (2, 20)))
PLAIN = {"rope_type": "default", "rope_theta": 500.0}


def model_folder(path):
    """The golden model with plain rotary positions, as GGUF files have them."""
    path.mkdir()
    described = json.loads((GOLDEN / "config.json").read_text()) | {"rope_parameters": PLAIN}
    (path / "config.json").write_text(json.dumps(described))
    (path / "model.safetensors").write_bytes((GOLDEN / "model.safetensors").read_bytes())
    return path


def side_by_side(values, heads):
    """The order of rows in the file: rotated pairs next to each other."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
    return halves.swapaxes(1, 2).reshape(values.shape)


def write_gguf(path, *, architecture="llama", change=None, tokens=None, dtype=np.float32, more=None):
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in (more or {}).items():
        writer.add_float32(name, value)
    writer.add_embedding_length(24)
    writer.add_feed_forward_length(40)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_context_length(256)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500.0)
    if tokens is not None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens["words"])
        writer.add_token_types(tokens["types"])
        if tokens["merges"]:
            writer.add_token_merges(tokens["merges"])
        writer.add_eos_token_id(0)
        writer.add_chat_template("{{ messages[0]['content'] }}<end>")
    tensors = {name: np.asarray(tensor) for name, tensor in load_file(GOLDEN / "model.safetensors").items()}
    if change is not None:
        change(tensors)
    theirs = {ours: name for name, ours in NAMES.items()}
    outer = {ours: name for name, ours in OUTER.items()}
    for name, values in tensors.items():
        stem, parts = name.removesuffix(".weight"), name.split(".")
        if parts[1] == "layers":
            inner = theirs[".".join(parts[3:-1])]
            values = (
                side_by_side(values, {"attn_q": 4, "attn_k": 2}[inner]) if inner in ("attn_q", "attn_k") else values
            )
            stem = f"blk.{parts[2]}.{inner}"
        else:
            stem = outer[stem]
        writer.add_tensor(
            f"{stem}.weight", np.ascontiguousarray(values.astype(dtype if values.ndim > 1 else np.float32))
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float16, 2e-2)])
def test_a_gguf_file_is_the_model_it_was_made_of(tmp_path, dtype, tolerance):
    expected = load_decoder(model_folder(tmp_path / "folder"))(TOKENS)
    path = write_gguf(tmp_path / "model.gguf", dtype=dtype)
    model, described = load_gguf(path), describe_gguf(path)
    assert described["vocab_size"] == 40
    assert described["tie_word_embeddings"]
    np.testing.assert_allclose(model(TOKENS), expected, atol=tolerance * np.abs(expected).max())


def test_gguf_files_that_cannot_be(tmp_path):
    for path, said in (
        (tmp_path / "none.gguf", "no such file"),
        (tmp_path / "text.gguf", "cannot be read as GGUF"),
        (write_gguf(tmp_path / "other.gguf", architecture="mamba"), "llama is supported"),
        (write_gguf(tmp_path / "rows.gguf", change=lambda t: t.pop("model.embed_tokens.weight")), "lacks this tensor"),
        (write_gguf(tmp_path / "linear.gguf", more={"llama.rope.scale_linear": 4.0}), "rope scaling"),
        (write_gguf(tmp_path / "less.gguf", change=lambda t: t.pop("model.norm.weight")), "it lacks model.norm.weight"),
    ):
        if path.name == "text.gguf":
            path.write_text("GGUF")
        with pytest.raises(InputError, match=said):
            load_gguf(path)


def bytes_alphabet():
    """A token for each byte, two merges, and one that stands for no text."""
    from tokenizers.pre_tokenizers import ByteLevel

    words = ["<end>", *sorted(ByteLevel.alphabet()), "ab", "12"]
    return {"words": words, "types": [3] + [1] * (len(words) - 1), "merges": ["a b", "1 2"]}


def test_the_tokenizer_of_a_gguf_file(tmp_path):
    tokens = bytes_alphabet()
    tokenizer = load_tokenizer(write_gguf(tmp_path / "model.gguf", tokens=tokens))
    for text in ("ab + cd = 12", "naïve\n  ünï 漢字", "x<end>y"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("ab<end>") == [tokens["words"].index("ab"), 0]
    assert tokenizer.encode("12") == [tokens["words"].index(digit) for digit in "12"]  # digits stay apart
    assert tokenizer.eos_token_id == 0
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
    assert chat == "ab<end>"


def test_a_tokenizer_that_does_not_fit(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", tokens=bytes_alphabet())
    model = load_gguf(path)
    with pytest.raises(InputError, match="the model has 40 tokens"):
        check_tokenizer(load_tokenizer(path), model.config)
    tokenizer = tiny_tokenizer()
    config = dataclasses.replace(model.config, vocab_size=len(tokenizer))
    tokenizer.add_tokens(["<image>"])  # beyond the model's, as in Gemma 3
    check_tokenizer(tokenizer, config)
    with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
        load_tokenizer(GOLDEN)
    for place, change in enumerate(({"merges": None}, {"merges": ["a c"]}, {"merges": ["ab"]}, {"types": [3]})):
        path = write_gguf(tmp_path / f"{place}.gguf", tokens=bytes_alphabet() | change)
        with pytest.raises(InputError, match="do not fit together"):
            load_tokenizer(path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer"):
        load_tokenizer(tmp_path)
