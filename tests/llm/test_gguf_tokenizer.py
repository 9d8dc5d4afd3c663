"""Tokenizers in GGUF files give the ids of the tokenizers of `transformers` that they were made of."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from gguf_files import write_gguf
from hard_texts import HARD_TEXTS, SENTENCEPIECE_TEXTS
from tiny_model import tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Tokenizer, Qwen2Tokenizer
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer
from transformers.tokenization_utils_base import generate_merges

from icl_theory.errors import InputError
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.model.gguf_file import GgufFile
from icl_theory.llm.model.gguf_tokenizer import gguf_tokenizer
from icl_theory.llm.model.gguf_weights import load_gguf
from icl_theory.llm.model.pretrained import load_model
from icl_theory.llm.model.tokenizer import check_tokenizer, load_tokenizer

GOLDENS = Path(__file__).parents[1] / "goldens" / "llm"
CORPUS = [*HARD_TEXTS, (Path(__file__).parents[2] / "README.md").read_text()[:20_000]]
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
ENDS = ["<pad>", "<eos>", "<bos>", "<unk>"]


def from_file(tmp_path, **entries):
    """Load a tokenizer with these entries from a file with a model of another size; only its metadata is read."""
    tokens = {f"ggml.{name}": value for name, value in entries.items() if name != "chat_template"}
    tokens |= {name: value for name, value in entries.items() if name == "chat_template"}
    return gguf_tokenizer(GgufFile(write_gguf(tmp_path / "model.gguf", tokens=tokens)))


@pytest.fixture(scope="module")
def by_bytes():
    """Vocabulary and merges of a byte-level BPE trained on the corpus, cut as GPT-2 does."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, special_tokens=special, show_progress=False),
    )
    stored = json.loads(made.to_str())["model"]
    words = [*sorted(stored["vocab"], key=stored["vocab"].get), "<think>"]
    types = [CONTROL] * 3 + [NORMAL] * (len(words) - 4) + [USER_DEFINED]
    merges = [tuple(pair) for pair in stored["merges"]]
    return {"words": words, "types": types, "merges": merges}


def entries_of(by_bytes, pre, **more):
    words, types, merges = by_bytes["words"], by_bytes["types"], [" ".join(pair) for pair in by_bytes["merges"]]
    known = {"model": "gpt2", "pre": pre, "tokens": words, "token_type": types, "merges": merges, "eos_token_id": 0}
    return known | more


def parts_of(by_bytes, make):
    """A tokenizer of `transformers` from the same vocabulary."""
    vocab = {word: place for place, word in enumerate(by_bytes["words"])}
    made = make(vocab=vocab, merges=by_bytes["merges"])
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.add_tokens(["<think>"])
    return made


@pytest.mark.parametrize(
    ("pre", "make"), [("gpt-2", GPT2Tokenizer), ("phi-2", GPT2Tokenizer), ("qwen2", Qwen2Tokenizer)]
)
def test_byte_level_tokenizers_give_the_ids_of_transformers(pre, make, by_bytes, tmp_path):
    ours, theirs = from_file(tmp_path, **entries_of(by_bytes, pre)), parts_of(by_bytes, make)
    for text in HARD_TEXTS:
        assert ours.encode(text) == theirs.encode(text), text
        if pre != "qwen2":  # which composes characters
            assert ours.decode(ours.encode(text)) == text


def test_smollm_takes_every_digit_alone(by_bytes, tmp_path):
    """GPT-2's tokenizer on the text without its digits, and on each of them."""
    ours, theirs = from_file(tmp_path, **entries_of(by_bytes, "smollm")), parts_of(by_bytes, GPT2Tokenizer)
    for text in HARD_TEXTS:
        pieces = [piece for piece in re.split(r"([0-9½²٣१२Ⅷ३])", text) if piece]
        assert ours.encode(text) == [one for piece in pieces for one in theirs.encode(piece)], text


def test_llama_3_gives_the_ids_of_transformers(by_bytes, tmp_path):
    """And puts its token before a text, whether the file says so or not, unless it says that it does not."""
    entries = entries_of(by_bytes, "llama-bpe", bos_token_id=1)
    ours = from_file(tmp_path, **entries)
    theirs, _ = convert_gguf_tokenizer(
        "llama",
        {
            "tokenizer_type": "gpt2",
            "pre_tokenizer_type": "llama-bpe",
            "tokens": entries["tokens"],
            "token_type": entries["token_type"],
            "merges": entries["merges"],
        },
    )
    for text in HARD_TEXTS:
        assert ours.encode(text) == [1, *theirs.encode(text, add_special_tokens=False).ids], text
    assert from_file(tmp_path, **entries, add_bos_token=False).encode("a") == ours.encode("a")[1:]
    assert from_file(tmp_path, **entries, add_eos_token=True).encode("a") == [*ours.encode("a"), 0]


def test_llama_3_takes_words_that_are_tokens_whole(tmp_path):
    """Even if no merges make them; the others do not."""
    words = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "xyz"]
    entries = {"model": "gpt2", "tokens": words, "token_type": [3] + [1] * (len(words) - 1), "merges": ["a b"]}
    whole, cut = (from_file(tmp_path, **entries, pre=pre) for pre in ("llama-bpe", "qwen2"))
    assert whole.tokenize("xyz ab") == ["xyz", "Ġ", "ab"]
    assert cut.tokenize("xyz ab") == ["x", "y", "z", "Ġ", "ab"]


@pytest.fixture(scope="module")
def known():
    """Of a tokenizer that SentencePiece trained: its vocabulary, and the ids that it gives (make_gguf_goldens.py)."""
    return json.loads((GOLDENS.parent / "sentencepiece.json").read_text())


def sentencepiece_entries(known, **more):
    ids = {"padding_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "unknown_token_id": 3}
    parts = {"tokens": known["tokens"], "scores": known["scores"], "token_type": known["types"]}
    return {"model": "llama", **parts, **ids, **more}


@pytest.mark.parametrize("kind", ["plain", "prefixed"])
def test_sentencepiece_gives_the_same_ids(kind, known, tmp_path):
    """Plain as Gemma: no blank before a text, and runs of blanks, breaks and tabs as tokens. Prefixed as Llama 2."""
    ours = from_file(tmp_path, **sentencepiece_entries(known[kind], add_space_prefix=kind == "prefixed"))
    for text, ids in zip(SENTENCEPIECE_TEXTS, known[kind]["ids"], strict=True):
        assert ours.encode(text) == [2, *ids], text


def test_merges_are_those_of_transformers(known, tmp_path):
    """In the order of the tokens that they make, as for Gemma."""
    ours = from_file(tmp_path, **sentencepiece_entries(known["plain"], add_space_prefix=False)).backend_tokenizer
    stored = json.loads(ours.to_str())["model"]
    theirs = generate_merges(stored["vocab"], {word: -place for word, place in stored["vocab"].items()})
    assert [tuple(pair) for pair in stored["merges"]] == theirs


def test_saved_tokenizers_are_the_same(known, by_bytes, tmp_path):
    """Read by `transformers`, in a process that knows nothing of the file."""
    for name, entries in (
        ("plain", sentencepiece_entries(known["plain"], add_space_prefix=False, chat_template="{{ bos_token }}x")),
        ("prefixed", sentencepiece_entries(known["prefixed"])),
        ("qwen2", entries_of(by_bytes, "qwen2")),
        ("llama-bpe", entries_of(by_bytes, "llama-bpe", bos_token_id=1, add_eos_token=True)),
    ):
        ours = from_file(tmp_path, **entries)
        ours.save_pretrained(tmp_path / name)
        again = AutoTokenizer.from_pretrained(tmp_path / name, local_files_only=True)
        for text in HARD_TEXTS:
            assert again.encode(text) == ours.encode(text), (name, text)
        assert again.special_tokens_map == ours.special_tokens_map
        assert again.chat_template == ours.chat_template


def test_special_tokens_and_templates(by_bytes, tmp_path):
    template = "{{ messages[0]['content'] }}<|im_end|>"
    tokenizer = from_file(tmp_path, **entries_of(by_bytes, "qwen2", padding_token_id=2, chat_template=template))
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token) == (0, 2, None)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "<think>ab"}], tokenize=False)
    ids = tokenizer.encode(text)
    assert text == "<think>ab<|im_end|>"
    assert (ids[0], ids[-1]) == (len(by_bytes["words"]) - 1, 2)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>ab"  # a token of its own, but not special


def test_a_model_and_its_tokenizer(tmp_path):
    words = [f"w{place}" for place in range(36)]
    tokens = {"model": "llama", "tokens": [*ENDS, *words], "token_type": [3] * 4 + [1] * 36, "eos_token_id": 1}
    path = write_gguf(tmp_path / "model.gguf", tokens={f"ggml.{name}": value for name, value in tokens.items()})
    model = load_model(path)
    assert len(model.tokenizer) == model.decoder.config.vocab_size == 40
    assert model.described["eos_token_id"] == model.tokenizer.eos_token_id == 1
    (tmp_path / "model.gguf.part00").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="lacks a part"):
        load_model(tmp_path / "model.gguf.part00")


def test_sentencepiece_tokens_in_another_order_are_refused(known, tmp_path):
    scores = list(known["plain"]["scores"])
    place = known["plain"]["types"].index(NORMAL) + 1
    scores[place], scores[place + 1] = scores[place + 1], scores[place]
    with pytest.raises(InputError, match="scores = 'out of order'"):
        from_file(tmp_path, **sentencepiece_entries(known["plain"], scores=scores))


def test_tokenizers_that_cannot_be(by_bytes, tmp_path):
    whole = entries_of(by_bytes, "qwen2")
    for change, said in (
        ({"model": None}, "model = 'none': .* holds no tokenizer"),
        ({"model": "t5"}, "'t5': of GGUF files llama and gpt2 with gpt-2, phi-2, smollm, qwen2"),
        ({"pre": "chameleon"}, "'gpt2 with chameleon': of GGUF files"),
        ({"tokens": None}, "do not fit together"),
        ({"token_type": None}, "do not fit together"),
        ({"token_type": [3]}, "do not fit together"),
        ({"merges": None}, "do not fit together"),
        ({"merges": ["a qq"]}, "do not fit together"),
        ({"merges": ["ab"]}, "do not fit together"),
        ({"eos_token_id": 100_000}, "do not fit together"),
    ):
        with pytest.raises(InputError, match=said):
            from_file(tmp_path, **whole | change)


def test_a_tokenizer_that_does_not_fit(by_bytes, tmp_path):
    config = load_decoder(GOLDENS / "llama").config
    tokenizer = from_file(tmp_path, **entries_of(by_bytes, "qwen2"))
    with pytest.raises(InputError, match="the model has 40 tokens"):
        check_tokenizer(tokenizer, config)
    with pytest.raises(InputError, match="of them': the embedding has 40 rows"):
        load_gguf(GgufFile(tmp_path / "model.gguf"))
    tokenizer = tiny_tokenizer()
    config = dataclasses.replace(config, vocab_size=len(tokenizer))
    tokenizer.add_tokens(["<image>"])  # beyond the model's, as in Gemma 3
    check_tokenizer(tokenizer, config)
    with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
        load_tokenizer(GOLDENS / "llama")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer"):
        load_tokenizer(tmp_path)
