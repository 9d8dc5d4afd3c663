"""Models with their tokenizers, loaded from the hub, a folder or a GGUF file and saved for `transformers`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from icl_theory.errors import InputError, error_text
from icl_theory.llm.model.checkpoint import load_decoder, read_folder, save_decoder
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.gguf_families import describe_gguf
from icl_theory.llm.model.gguf_file import GgufFile
from icl_theory.llm.model.gguf_tokenizer import gguf_tokenizer
from icl_theory.llm.model.gguf_weights import load_gguf
from icl_theory.llm.model.lora import merged
from icl_theory.llm.model.tokenizer import check_tokenizer, load_tokenizer
from icl_theory.results import exists, writing

WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")  # files that are fetched from a hub repository
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
GENERATION = "generation_config.json"


class Model(NamedTuple):
    """A decoder with its tokenizer.

    Attributes:
        decoder: the decoder with its weights.
        tokenizer: its `transformers` tokenizer.
        described: contents of its `config.json`.
        path: folder or GGUF file that it was read from.
    """

    decoder: Decoder
    tokenizer: Any
    described: dict[str, Any]
    path: Path


def load(source: str | Path, *, dtype: Any = jnp.float32, remat: bool = False) -> tuple[Decoder, Any]:
    """Load a model and its tokenizer.

    Args:
        source: a folder with `config.json`, safetensors and tokenizer; a GGUF file; or a hub repository (`owner/name`),
            which is fetched if necessary.
        dtype: number type of matrix products; weights are float32.
        remat: whether to recompute blocks in the backward pass, which saves memory in training.

    Returns:
        The decoder and its `transformers` tokenizer.

    Raises:
        InputError: there is no such model, it cannot be fetched, or it is damaged or not supported.
    """
    model = load_model(find_model(str(source)), dtype=dtype, remat=remat)
    return model.decoder, model.tokenizer


def save(model: Decoder, tokenizer: Any, folder: str | Path, *, source: str | Path) -> None:
    """Save a model and its tokenizer as a folder that `transformers` loads, completely or not at all.

    Adapters are merged into the weights.

    Args:
        model: the decoder.
        tokenizer: its tokenizer.
        folder: a new folder.
        source: what the model was loaded from; its settings are kept.

    Raises:
        InputError: the folder exists or cannot be written, or there is no such source.
    """
    path = find_model(str(source))
    save_model(Model(model, tokenizer, described_by(path), path), model, Path(folder))


def described_by(path: Path) -> dict[str, Any]:
    """Return the contents of the `config.json` of a model, made from its metadata if it is a GGUF file."""
    return describe_gguf(GgufFile(path)) if path.is_file() else read_folder(path)[1]


def find_model(source: str) -> Path:
    """Return the path of a local folder or GGUF file, or of a hub repository (`owner/name`), fetched if necessary.

    Raises:
        InputError: there is no such model, or the hub cannot be reached or refuses.
    """
    path = Path(source)
    if exists(path):
        return path
    if path.suffix == ".gguf" or not REPOSITORY.fullmatch(source):
        raise InputError("model", source, "there is no such folder or file; or give owner/name of a hub repository")
    try:
        return Path(snapshot_download(source, allow_patterns=list(WANTED), ignore_patterns=["original/*"]))
    except LocalEntryNotFoundError:
        remedy = "no such folder here, and the hub cannot be reached; fetch it elsewhere and give its folder"
        raise InputError("model", source, remedy) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError("model", source, f"no such folder here, and the hub refuses ({error_text(error)})") from None
    except Exception as error:  # transport libraries raise many types
        remedy = f"fetching it was cut off ({error_text(error)}); the same command goes on with it"
        raise InputError("model", source, remedy) from None


def load_model(path: Path, **settings: Any) -> Model:
    """Load a model from a path that `find_model` returned; the settings are those of `load_decoder`.

    Raises:
        InputError: as in `load_decoder` and `load_tokenizer`, or `GgufFile`, `load_gguf` and `gguf_tokenizer`; or a
            tokenizer that does not fit the model.
    """
    if path.is_file():
        file = GgufFile(path)
        described, tokenizer, decoder = describe_gguf(file), gguf_tokenizer(file), load_gguf(file, **settings)
    else:
        described, tokenizer, decoder = described_by(path), load_tokenizer(path), load_decoder(path, **settings)
    check_tokenizer(tokenizer, decoder.config)
    return Model(decoder, tokenizer, described, path)


def save_model(model: Model, decoder: Decoder, folder: Path) -> None:
    """Save a trained decoder with the tokenizer and settings of its model as a folder, completely or not at all.

    Adapters are merged into the weights of the model.

    Raises:
        InputError: the folder exists or cannot be written.
    """
    with writing(folder) as partial:
        partial.mkdir()
        model.tokenizer.save_pretrained(partial)
        if (model.path / GENERATION).is_file():
            shutil.copyfile(model.path / GENERATION, partial / GENERATION)
        save_decoder(merged(decoder, model.decoder), partial, model.described)
