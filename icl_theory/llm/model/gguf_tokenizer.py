"""Tokenizers of GGUF files, built with the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from icl_theory.errors import InputError
from icl_theory.llm.model.gguf_file import GgufFile

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # types of tokens
SPACE = "▁"
NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}

# Words of Llama 3 and of Qwen2, which differ in how many digits they take together.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3, QWEN2 = (pre_tokenizers.Split(Regex(WORDS.format(digits=one)), "isolated") for one in ("{1,3}", ""))
DIGITS = pre_tokenizers.Digits(individual_digits=True)
# How text is cut before byte-level merges, by the name in the file; None for GPT-2's way alone.
CUTS = {
    "gpt-2": None,
    "phi-2": None,
    "smollm": DIGITS,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
}


def gguf_tokenizer(file: GgufFile) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a GGUF file: byte-level BPE (`gpt2`), or SentencePiece BPE with byte fallback (`llama`).

    The result is that of the `tokenizer.json` from which such files are made. Qwen's therefore composes characters
    (NFC), and Llama 3's takes a word that is a token whole, although GGUF files do not say so.

    Raises:
        InputError: no tokenizer, one of another kind, or one whose parts do not fit together.
    """
    kind, cut = file.get("tokenizer.ggml.model"), file.get("tokenizer.ggml.pre", "gpt-2")
    if kind is None:
        raise InputError("tokenizer.ggml.model", "none", f"{file.path} holds no tokenizer; fetch the whole model")
    if kind not in ("gpt2", "llama") or (kind == "gpt2" and cut not in CUTS):
        remedy = f"of GGUF files llama and gpt2 with {', '.join(CUTS)} are read; give a folder with tokenizer.json"
        raise InputError("tokenizer", kind if kind != "gpt2" else f"gpt2 with {cut}", remedy)
    words, types = file.get("tokenizer.ggml.tokens"), file.get("tokenizer.ggml.token_type")
    if not words or not types or len(types) != len(words):
        raise _misfit(file)
    ids = {name: file.get(f"tokenizer.ggml.{key}_token_id") for name, key in NAMES.items()}
    if any(place is not None and not 0 <= place < len(words) for place in ids.values()):
        raise _misfit(file)
    ends = {name: words[place] for name, place in ids.items() if place is not None}
    if kind == "llama":
        _check_order(file.get("tokenizer.ggml.scores", ()), types)
        words = [SPACE * len(word) if not word.strip(" ") else word for word in words]
        made = _sentencepiece(words, ends.get("unk_token"), file.get("tokenizer.ggml.add_space_prefix", True))
    else:
        made = _byte_level(words, file, cut)
    for type_, add in ((CONTROL, made.add_special_tokens), (USER_DEFINED, made.add_tokens)):
        found = [word for word, one in zip(words, types, strict=True) if one == type_ and word.strip(SPACE)]
        add([AddedToken(word, special=type_ == CONTROL, normalized=False) for word in found])
    _add_ends(made, file, ends, words, kind == "llama" or CUTS[cut] is LLAMA3)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **ends)
    tokenizer.chat_template = file.get("tokenizer.chat_template")
    return tokenizer


def _byte_level(words: Sequence[str], file: GgufFile, cut: str) -> Tokenizer:
    pairs = [tuple(merge.split(" ", 1)) for merge in file.get("tokenizer.ggml.merges", ())]
    known = set(words)
    if not pairs or not all(len(pair) == 2 and {*pair, "".join(pair)} <= known for pair in pairs):
        raise _misfit(file)
    whole = CUTS[cut] is LLAMA3
    made = Tokenizer(models.BPE(vocab=_places(words), merges=pairs, ignore_merges=whole))
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=CUTS[cut] in (None, DIGITS))
    made.pre_tokenizer = by_bytes if CUTS[cut] is None else pre_tokenizers.Sequence([CUTS[cut], by_bytes])
    if CUTS[cut] is QWEN2:
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    return made


def _sentencepiece(words: Sequence[str], unknown: str | None, prefix: bool) -> Tokenizer:
    vocab = _places(words)
    merges = list(_merges(words, vocab))
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Replace(" ", SPACE)]
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), *steps] if prefix else steps)
    made.decoder = decoders.Sequence([*back, decoders.Strip(" ", left=1)] if prefix else back)
    return made


def _check_order(scores: Sequence[float], types: Sequence[int]) -> None:
    """Raise `InputError` unless tokens are in the order in which they are merged, which is that of their scores."""
    found = [score for score, type_ in zip(scores, types, strict=False) if type_ == NORMAL]
    if any(later > earlier for earlier, later in pairwise(found)):
        remedy = "only falling scores are read; give a folder with tokenizer.json"
        raise InputError("tokenizer.ggml.scores", "out of order", remedy)


def _merges(words: Sequence[str], vocab: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yield the merges of a SentencePiece vocabulary, which lists its tokens in the order in which they are merged.

    Of the pairs that make one token, those with the longest first part come first.
    """
    for word in words:
        for cut in range(len(word) - 1, 0, -1):
            if word[:cut] in vocab and word[cut:] in vocab:
                yield word[:cut], word[cut:]


def _add_ends(made: Tokenizer, file: GgufFile, ends: dict[str, str], words: Sequence[str], usual: bool) -> None:
    """Have the tokenizer put the tokens before and after a text; `usual` is the rule where the file gives none."""
    parts, special = ["$A"], []
    for name, adds in (("bos_token", usual), ("eos_token", False)):
        if file.get(f"tokenizer.ggml.add_{name}", adds) and name in ends:
            parts.insert(0 if name == "bos_token" else len(parts), ends[name])
            special.append((ends[name], words.index(ends[name])))
    if special:
        made.post_processor = processors.TemplateProcessing(single=parts, special_tokens=special)


def _places(words: Sequence[str]) -> dict[str, int]:
    return {word: place for place, word in enumerate(words)}


def _misfit(file: GgufFile) -> InputError:
    return InputError("tokenizer", str(file.path), "its tokens, merges and types do not fit together; fetch it again")
