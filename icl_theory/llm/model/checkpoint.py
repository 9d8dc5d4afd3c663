"""Reading and writing of model folders in the Hugging Face format: `config.json` and safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from icl_theory.errors import InputError
from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.families import from_huggingface, read_config, text_description
from icl_theory.llm.model.weight_places import EMBEDDING, HEAD, weight_places
from icl_theory.results import exists, writing

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
UNUSED = ("rotary_emb.inv_freq",)  # name suffixes of tensors in old files that are not weights
DTYPES = ("F64", "F32", "F16", "BF16")
VISION = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\.")  # left out of Gemma 3 with vision
NESTED = re.compile(r"language_model\.(?=model\.|lm_head\.)|(?<=model\.)language_model\.")


def load_decoder(
    folder: str | Path,
    *,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
    remat: bool = False,
    host: bool = False,
) -> Decoder:
    """Load the decoder of a model folder.

    Args:
        folder: model folder.
        dtype: number type of matrix products.
        param_dtype: number type of the weights.
        remat: whether to recompute blocks in the backward pass.
        host: whether to keep the weights as numpy arrays in host memory, instead of on the first device.

    Raises:
        InputError: not a model folder, an architecture that is not supported, a file that is missing or damaged, or a
            tensor that is missing, unknown to the model, of the wrong shape, or not finite.
    """
    folder = Path(folder)
    config, _ = read_folder(folder)
    settings = {"dtype": dtype, "param_dtype": param_dtype, "remat": remat, "host": host}
    return build_decoder(config, _tensors(folder, config), where=str(folder), **settings)


def read_folder(folder: Path) -> tuple[DecoderConfig, dict[str, Any]]:
    """Read the configuration of a model folder, as `read_config` does, and check it against the weights.

    A tied output becomes untied if the weights hold an output matrix that differs from the embedding, as in
    `transformers`.

    Raises:
        InputError: as in `read_config`; or weights that are missing or damaged.
    """
    config, described = read_config(folder)
    files = _files_of(folder)
    if not config.tied or not {EMBEDDING, HEAD} <= files.keys():
        return config, described
    if np.array_equal(_tensor(*files[EMBEDDING]), _tensor(*files[HEAD])):
        return config, described
    return replace(config, tied=False), {**described, "tie_word_embeddings": False}


def build_decoder(
    config: DecoderConfig,
    tensors: Iterator[tuple[str, Any]],
    *,
    where: str,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
    remat: bool = False,
    host: bool = False,
) -> Decoder:
    """Build a decoder from tensors with Hugging Face names, without initialising weights first.

    `where` names the source in error messages; the other settings are those of `load_decoder`.

    Raises:
        InputError: tensors as in `load_decoder`.
    """
    make = lambda: Decoder(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype, remat=remat)  # noqa: E731
    graph, state = nnx.split(nnx.eval_shape(make))
    flat = dict(nnx.to_flat_state(state))
    places, filled = weight_places(config), set()
    stacks: dict[Any, Any] = {}
    for name, tensor in tensors:
        if name.endswith(UNUSED) or (config.tied and name == HEAD):
            continue
        if name not in places:
            raise InputError("model", where, f"no place for its tensor {name} in a {config.family} model")
        paths, transposed, layer = places[name]
        shapes = [flat[path].shape[layer is not None :] for path in paths]
        shapes = [shape[::-1] if transposed else shape for shape in shapes]
        rows = np.cumsum([shape[0] for shape in shapes])
        wanted = (int(rows[-1]), *shapes[0][1:])
        if tensor.shape != wanted:
            raise InputError(name, f"shape {tuple(tensor.shape)}", f"config.json of {where} asks for {wanted}")
        if not np.isfinite(tensor).all():
            raise InputError(name, "NaN or infinite numbers", f"the weights in {where} are damaged; fetch them again")
        for path, part in zip(paths, np.split(tensor, rows[:-1]), strict=True):
            found = part.T if transposed else part
            if layer is None:
                kept = np.ascontiguousarray(found, param_dtype) if host else jnp.asarray(found, param_dtype)
                flat[path] = flat[path].replace(kept)
            else:
                if path not in stacks:
                    stacks[path] = np.empty(flat[path].shape, param_dtype)
                stacks[path][layer] = found
        filled.add(name)
    missing = sorted(places.keys() - filled)
    if missing:
        raise InputError("model", where, f"it lacks {missing[0]} and {len(missing) - 1} more of {len(places)} tensors")
    for path in list(stacks):
        stack = stacks.pop(path)
        flat[path] = flat[path].replace(stack if host else jnp.asarray(stack))
    return nnx.merge(graph, nnx.from_flat_state(flat.items()))


def save_decoder(model: Decoder, folder: str | Path, described: Mapping[str, Any], *, dtype: Any = None) -> None:
    """Write `config.json` and `model.safetensors`, which `transformers` loads.

    Of a Gemma 3 with vision, the text part is written, as a `gemma3_text` model.

    Args:
        model: the decoder.
        folder: an existing folder without files of these names.
        described: the `config.json` of the original model, or another that describes the same architecture.
        dtype: number type in the file; None for that of the weights.

    Raises:
        InputError: a description of another architecture, or a file that exists or cannot be written.
    """
    folder = Path(folder)
    if from_huggingface(described) != model.config:
        raise InputError("config.json", described.get("model_type"), "it describes another shape than the model's")
    if exists(folder / INDEX):
        raise InputError("output", str(folder / INDEX), "it exists; give another folder")
    flat = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    tensors = {}
    for name, place in weight_places(model.config).items():
        tensor = place.tensor(flat)
        tensors[name] = np.ascontiguousarray(tensor, dtype or tensor.dtype)
    kind = str(jnp.dtype(next(iter(tensors.values())).dtype))
    text = json.dumps({**text_description(described), "dtype": kind, "torch_dtype": kind}, indent=2) + "\n"
    with writing(folder / "config.json") as config, writing(folder / SINGLE) as weights:
        config.write_text(text)
        try:
            save_file(tensors, weights, metadata={"format": "pt"})
        except SafetensorError as error:
            raise InputError(
                "output", str(folder), f"cannot be written ({error}); free space or give another"
            ) from None


def _files_of(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return the file of each tensor in a folder and its name there, by its name in a text model.

    Tensors of a vision tower are left out. A single file takes precedence over a possibly outdated index.
    """
    if (folder / SINGLE).is_file():
        names = [SINGLE]
    elif (folder / INDEX).is_file():
        try:
            names = sorted({str(name) for name in json.loads((folder / INDEX).read_text())["weight_map"].values()})
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            raise InputError("model", str(folder / INDEX), "it is damaged; fetch it again") from None
    else:
        raise InputError("model", str(folder), f"it holds no {SINGLE} and no {INDEX}; fetch the whole model")
    found: dict[str, tuple[Path, str]] = {}
    for name in names:
        if not (folder / name).is_file():
            raise InputError("model", str(folder), f"its part {name} is missing; fetch the whole model")
        with _opened(folder / name) as file:
            keys = file.keys()
        found |= {NESTED.sub("", key): (folder / name, key) for key in keys if not VISION.match(key)}
    return found


def _tensors(folder: Path, config: DecoderConfig) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a folder one by one; a tied output matrix that is saved alone counts as the embedding."""
    files = _files_of(folder)
    saved = HEAD if config.tied and EMBEDDING not in files and HEAD in files else None
    for name in files:
        yield EMBEDDING if name == saved else name, _tensor(*files[name])


def _tensor(path: Path, name: str) -> np.ndarray:
    with _opened(path) as file:
        kind = file.get_slice(name).get_dtype()
        if kind not in DTYPES:
            raise InputError(name, kind, f"quantised weights are not read ({path}); give the model in one of {DTYPES}")
        return file.get_tensor(name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError("model", str(path), f"it is damaged ({reason}); fetch it again") from None


def count_parameters(model: Decoder, kind: type[nnx.Param[Any]] = nnx.Param) -> int:
    """Return the number of weights of a kind; a tied output matrix counts once."""
    return int(sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, kind))))
