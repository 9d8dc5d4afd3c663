"""Fine-tuning sets as text, compressed or not: each row is copied byte for byte, as it stands in the file."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from icl_theory.errors import InputError
from icl_theory.results import writing
from icl_theory.upsampling.data_file import Progress, Scan, Versions, check_unchanged, first_line

REPORT_EVERY = 2**14  # rows
BOM = b"\xef\xbb\xbf"
NOT_UTF8 = "it is not UTF-8; save it as that"


class Entry(NamedTuple):
    """A row as it stands in a file.

    Attributes:
        number: Number of its line or, in an array, of the row.
        text: Its bytes, as they are copied.
        row: Returns its fields.
        done: Returns how much of the file has been read by now.
    """

    number: int
    text: bytes
    row: Callable[[], dict[str, Any]]
    done: Callable[[], int]


class TextRows(ABC):
    """A file of rows that are text. The kinds differ in how rows are told apart, read and written.

    Attributes:
        path: Path of the file.
        unit: What `Entry.number` counts, for error messages.
        head: What precedes the rows of a file that is written.
        between: What stands between two rows.
        tail: What follows the rows.
    """

    unit = "line"
    head = between = tail = b""

    def __init__(self, path: Path):
        self.path = path

    @property
    def files(self) -> list[Path]:
        return [self.path]

    @property
    def size(self) -> int:
        """The last `Entry.done`, approximately."""
        return self.path.stat().st_size

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Yield the rows in order."""

    @abstractmethod
    def written(self, row: dict[str, Any]) -> bytes:
        """Return a changed row as `Entry.text` would hold it."""

    def scan(self, id_field: str | None, *, with_ids: bool = True, progress: Progress | None = None) -> Scan:
        parts, some, count = [], [], 0
        fields: dict[str, Any] = {}
        for entry in self.entries():
            row = entry.row()
            if not count and id_field is None and with_ids:
                id_field = "id" if "id" in row else None
            if row.keys() != fields.keys():
                fields |= dict.fromkeys(row)
            count += 1
            if id_field is not None:
                some.append(self._id(entry.number, row, id_field))
            if count % REPORT_EVERY == 0:
                parts.append(pa.array(some, pa.large_string()))
                some = []
                if progress is not None:
                    progress(entry.done(), self.size)
        if not count:
            raise InputError("data", str(self.path), "it holds no rows")
        if progress is not None:
            progress(self.size, self.size)
        parts.append(pa.array(some, pa.large_string()))
        return Scan(count, None if id_field is None else pa.concat_arrays(parts), id_field, tuple(fields))

    def rows(self, wanted: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        left = None if wanted is None else set(wanted.tolist())
        for place, entry in enumerate(self.entries()):
            if left is None:
                yield entry.row()
            elif place in left:
                left.remove(place)
                yield entry.row()
            if left is not None and not left:
                return

    def write(
        self, out: Path, copies: np.ndarray, versions: Versions | None = None, progress: Progress | None = None
    ) -> None:
        count, before = 0, b""
        with writing(out) as partial, _packed(partial) as file:
            file.write(self.head)
            for entry in self.entries():
                often = int(copies[count]) if count < len(copies) else 0
                others = versions(count) if versions is not None and often > 1 else []
                if others:
                    row = entry.row()
                    turns = [entry.text, *(self.written({**row, **other}) for other in others)]
                    texts = [turns[turn % len(turns)] for turn in range(often)]
                else:
                    texts = [entry.text] * often
                if texts:
                    file.write(before + self.between.join(texts))
                    before = self.between
                count += 1
                if progress is not None and count % REPORT_EVERY == 0:
                    progress(count, len(copies))
            file.write(self.tail)
            check_unchanged(self.path, count, len(copies))
        if progress is not None:
            progress(count, count)

    def refused(self, number: int, remedy: str) -> InputError:
        """Return the error that names a line or row."""
        return InputError("data", f"{self.path}, {self.unit} {number}", remedy)

    def _id(self, number: int, row: dict[str, Any], field: str) -> str:
        if field not in row:
            raise self.refused(number, f"it has no field {field!r}; its fields are {', '.join(row)}")
        value, place = row[field], f"{field} in {self.unit} {number}"
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise InputError(place, json.dumps(value), "an id is a whole number or a text")
        text = str(value)
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputError(place, json.dumps(value), "it holds half of a surrogate pair")
        return text


@contextmanager
def reading(path: Path) -> Iterator[tuple[io.BufferedReader, Callable[[], int]]]:
    """Open a file, of gzip if it ends in .gz, and yield it with a function that says how much of it has been read.

    Raises:
        InputError: The file cannot be read, then or while it is being read.
    """
    try:
        with path.open("rb") as raw:
            packed: Any = gzip.GzipFile(fileobj=raw)
            yield io.BufferedReader(packed) if path.suffix == ".gz" else raw, raw.tell
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError("data", str(path), f"cannot be read ({reason})") from None


def numbered(file: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each line that is not blank, without the file's byte order mark."""
    for number, line in enumerate(file, start=1):
        line = line.removeprefix(BOM) if number == 1 else line
        if line and not line.isspace():
            yield number, line


def line_end(line: bytes) -> bytes:
    """Return the end of a line: CR LF if it ends so, else LF."""
    return b"\r\n" if line.endswith(b"\r\n") else b"\n"


@contextmanager
def _packed(path: Path) -> Iterator[io.BufferedWriter]:
    """Open a file for writing, as gzip if it ends in .gz. The same rows give the same bytes at any time."""
    with path.open("wb") as raw:
        if path.suffix != ".gz":
            yield raw
            return
        packed: Any = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0)
        with io.BufferedWriter(packed) as file:
            yield file
