"""Loading the tokenizer of a model folder as a `transformers` tokenizer, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer

from icl_theory.errors import InputError, error_text
from icl_theory.llm.model.config import DecoderConfig


def load_tokenizer(path: str | Path) -> Any:
    """Load the tokenizer of a model folder.

    Raises:
        InputError: there is no tokenizer, or it is of a kind that cannot be read.
    """
    path = Path(path)
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
