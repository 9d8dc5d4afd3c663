"""Loading the tokenizer of a model folder or GGUF file as a `transformers` tokenizer, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
from huggingface_hub.errors import StrictDataclassError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from icl_theory.errors import InputError, error_text
from icl_theory.llm.model.config import DecoderConfig

# Pre-tokenizers by their names in GGUF files; all are byte-level.
BY_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
CUTS = {"smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BY_BYTES]), "gpt-2": BY_BYTES}
CONTROL = 3  # token type of control tokens in GGUF


def load_tokenizer(path: str | Path) -> Any:
    """Load the tokenizer of a model.

    Raises:
        InputError: there is no tokenizer, or it is of a kind that cannot be read.
    """
    path = Path(path)
    if path.suffix == ".gguf":
        return _from_gguf(path)
    if not (path / "tokenizer.json").is_file() and not (path / "tokenizer_config.json").is_file():
        raise InputError("tokenizer", str(path), "it holds no tokenizer.json; fetch the whole model")
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except StrictDataclassError as error:
        raise InputError("config.json", str(path), f"transformers refuses it ({error_text(error)})") from None
    except Exception as error:  # the library raises many types
        raise InputError("tokenizer", str(path), f"cannot be read ({error_text(error)})") from None


def check_tokenizer(tokenizer: Any, config: DecoderConfig) -> None:
    """Raise `InputError` if a tokenizer has more tokens than the model, or no end-of-text token.

    Added tokens may lie beyond the model's vocabulary, as the image token of all Gemma 3 tokenizers does. Examples
    that contain such a token are refused by `training.train.finetune`.
    """
    added = set(tokenizer.added_tokens_decoder)
    largest = max((token for token in tokenizer.get_vocab().values() if token not in added), default=-1)
    if largest >= config.vocab_size:
        remedy = f"the model has {config.vocab_size} tokens; give the tokenizer that it came with"
        raise InputError("tokenizer", f"{largest + 1} tokens", remedy)
    if tokenizer.eos_token_id is None:
        raise InputError("tokenizer", "no end of text", "give one that has an eos_token")


def _from_gguf(path: Path) -> PreTrainedTokenizerFast:
    try:
        reader = gguf.GGUFReader(path)
    except Exception as error:  # the reader raises many types
        raise InputError("tokenizer", str(path), f"cannot be read as GGUF ({error})") from None

    def field(name: str) -> Any:
        found = reader.get_field(f"tokenizer.{name}")
        return None if found is None else found.contents()

    kind, cut = field("ggml.model"), field("ggml.pre") or "gpt-2"
    if kind != "gpt2" or cut not in CUTS:
        remedy = f"of GGUF files gpt2 with {', '.join(CUTS)} is read; give a folder with tokenizer.json"
        raise InputError("tokenizer", f"{kind} with {cut}", remedy)
    words, merges, types = (field(f"ggml.{name}") for name in ("tokens", "merges", "token_type"))
    pairs = [tuple(merge.split(" ", 1)) for merge in merges or ()]
    known = set(words or ())
    whole = words and pairs and types and len(types) == len(words)
    if not whole or not all(len(pair) == 2 and {*pair, "".join(pair)} <= known for pair in pairs):
        raise InputError("tokenizer", str(path), "its tokens, merges and types do not fit together; fetch it again")
    made = Tokenizer(models.BPE(vocab={word: place for place, word in enumerate(words)}, merges=pairs))
    made.pre_tokenizer, made.decoder = CUTS[cut], decoders.ByteLevel()
    special = [word for word, type_ in zip(words, types, strict=True) if type_ == CONTROL]
    made.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    names = {"bos_token": "ggml.bos_token_id", "eos_token": "ggml.eos_token_id", "unk_token": "ggml.unknown_token_id"}
    ends = {name: words[field(key)] for name, key in names.items() if field(key) is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **ends)
    tokenizer.chat_template = field("chat_template")
    return tokenizer
