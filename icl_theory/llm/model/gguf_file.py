"""GGUF files: their metadata and tensors, read with the `gguf` library."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from icl_theory.errors import InputError, error_text
from icl_theory.results import exists

UNKNOWN = gguf.GGMLQuantizationType.__name__  # occurs in the library's error for a quantisation that it does not know
BUFFER = 1 << 24  # numbers that are dequantised at once


class GgufFile:
    """An open GGUF file. Its tensors stay on disk until they are dequantised.

    Args:
        path: the file.

    Attributes:
        path: the file.
        architecture: architecture of the model, by its name in GGUF files.

    Raises:
        InputError: the file is missing, damaged, incomplete or one of several parts, or has an unknown quantisation.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not exists(self.path) or self.path.is_dir():
            raise InputError("model", str(path), "there is no such file")
        try:
            self._reader = _Reader(self.path)
            self.architecture = str(self.get("general.architecture"))
        except Exception as error:  # the reader raises many types
            raise InputError("model", str(path), _reason(self.path, error)) from None
        parts = self.get("split.count", 1)
        if parts > 1:
            remedy = f"it is one of {parts} files of a model; join them with llama-gguf-split --merge"
            raise InputError("model", str(path), remedy)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an entry of the metadata, or the default if there is none.

        Raises:
            InputError: text that is not UTF-8.
        """
        field = self._reader.get_field(name)
        try:
            return default if field is None else field.contents()
        except UnicodeDecodeError as error:
            raise InputError(name, str(self.path), f"it is damaged ({error_text(error)}); fetch it again") from None

    def own(self, name: str, default: Any = None) -> Any:
        """Return an entry of the metadata of the architecture, or the default if there is none."""
        return self.get(f"{self.architecture}.{name}", default)

    def number(self, name: str, default: float | None = None) -> float:
        """Return a number of the metadata of the architecture; of a float32, the shortest decimal that rounds to it.

        Raises:
            InputError: there is none and no default, or it differs between layers.
        """
        found, full = self.own(name, default), f"{self.architecture}.{name}"
        if isinstance(found, list) and len(set(found)) == 1:
            found = found[0]
        if found is None:
            raise InputError(full, "none", "the file lacks it; fetch it again")
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            raise InputError(full, found, "one number for all layers is supported; give another model")
        return found if isinstance(found, int) else float(str(np.float32(found)))

    def count(self, name: str) -> int | None:
        """Return the number of entries of a list of strings in the metadata; None if there is none."""
        field = self._reader.get_field(name)
        return None if field is None else len(field.data)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the tensors, by name, with the rows first."""
        return {tensor.name: tuple(map(int, tensor.shape[::-1])) for tensor in self._reader.tensors}

    def tensor(self, name: str) -> np.ndarray:
        """Return a tensor, dequantised to float32. Beside the result only a few rows are in memory at a time.

        Raises:
            InputError: a quantisation that the `gguf` library cannot undo.
        """
        (tensor,) = [one for one in self._reader.tensors if one.name == name]
        shape = self.shapes[name]
        found, stored = np.empty(shape, np.float32), tensor.data
        step = max(1, BUFFER // int(np.prod(shape[1:])))
        try:
            for begin in range(0, len(found), step):
                rows = slice(begin, begin + step)
                with np.errstate(invalid="ignore", over="ignore"):  # damaged scales; `build_decoder` looks for them
                    found[rows] = gguf.quants.dequantize(stored[rows], tensor.tensor_type)
        except NotImplementedError:
            remedy = f"it cannot be undone; supported are {', '.join(dequantised())}"
            raise InputError(f"quantisation of {name}", tensor.tensor_type.name, remedy) from None
        return found


class _Reader(gguf.GGUFReader):
    """Reads an array of the metadata in one pass.

    The library makes two arrays of each string by a recursive call, which takes 8 s and 600 MiB for the tokens of
    Gemma 3.
    """

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        array = raw_type == gguf.GGUFValueType.ARRAY and self.byte_order == "I"
        kind = gguf.GGUFValueType(int(self._get(orig_offs, np.uint32)[0])) if array else gguf.GGUFValueType.ARRAY
        if kind == gguf.GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        count = int(self._get(orig_offs + 4, np.uint64)[0])
        parts, begin = [], orig_offs + 12
        if kind == gguf.GGUFValueType.STRING:
            stored = np.asarray(self.data)
            for _ in range(count):
                (length,) = struct.unpack_from("=Q", stored.data, begin)
                parts.append(stored[begin + 8 : begin + 8 + length])
                begin += 8 + length
        else:
            parts.append(self._get(begin, self.gguf_scalar_to_np[kind], count))
            begin += parts[0].nbytes
        return begin - orig_offs, parts, list(range(len(parts))), [gguf.GGUFValueType.ARRAY, kind]


def dequantised() -> list[str]:
    """Return the names of the number types and quantisations that the `gguf` library dequantises."""
    found = []
    for kind, (_, size) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
        except NotImplementedError:
            continue
        found.append(kind.name)
    return found


def _reason(path: Path, error: Exception) -> str:
    """Return why a file cannot be opened."""
    text = error_text(error)
    if UNKNOWN in text:
        return f"it has an unknown quantisation ({text}); supported are {', '.join(dequantised())}"
    size = path.stat().st_size
    remedy = f"at {size:,} bytes it is cut off, lacks a part, or is damaged; fetch or join it again"
    return f"cannot be read as GGUF ({text}); {remedy}"
