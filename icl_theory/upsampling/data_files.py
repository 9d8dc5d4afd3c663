"""Fine-tuning sets as JSON lines or Parquet files.

One pass reads the ids, another writes each row as often as asked; both stream. Rows of JSON lines are copied byte for
byte. Parquet keeps its schema and the metadata in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from icl_theory.errors import InputError
from icl_theory.results import exists, writing
from icl_theory.upsampling.data_file import DataFile, Progress, Scan, Versions, check_form, check_unchanged
from icl_theory.upsampling.parquet_data import ParquetData

LINES = (".jsonl", ".ndjson", ".json")
ONE_A_LINE = "one JSON object a line is wanted; `jq -c '.[]' FILE` makes that of an array"
REPORT_EVERY = 2**14  # rows


def open_data(path: str | Path) -> DataFile:
    """Return the data file, of the format that the suffix says.

    Raises:
        InputError: There is no such file, the suffix is another, or a `.parquet` file is not Parquet.
    """
    path = Path(path)
    if path.suffix not in (*LINES, ".parquet"):
        raise InputError("data", str(path), "give a file of JSON lines (.jsonl) or a Parquet file (.parquet)")
    if not exists(path):
        raise InputError("data", str(path), "there is no such file")
    if path.is_dir():
        raise InputError("data", str(path), "it is a folder; give one file")
    return ParquetData(path) if path.suffix == ".parquet" else JsonLines(path)


class JsonLines:
    """A file of JSON lines, one object per line."""

    def __init__(self, path: Path):
        self.path = path

    def scan(self, id_field: str | None, *, with_ids: bool = True, progress: Progress | None = None) -> Scan:
        size, read, parts, some = self.path.stat().st_size, 0, [], []
        fields: dict[str, Any] = {}
        count = 0
        for number, line in self._lines():
            row = self._parse(number, line)
            if not count and id_field is None and with_ids:
                id_field = "id" if "id" in row else None
            if row.keys() != fields.keys():
                fields |= dict.fromkeys(row)
            count += 1
            if id_field is not None:
                some.append(self._id(number, row, id_field))
            read += len(line)
            if count % REPORT_EVERY == 0:
                parts.append(pa.array(some, pa.large_string()))
                some = []
                if progress is not None:
                    progress(read, size)
        if not count:
            raise InputError("data", str(self.path), "it holds no rows")
        if progress is not None:
            progress(size, size)
        parts.append(pa.array(some, pa.large_string()))
        return Scan(count, None if id_field is None else pa.concat_arrays(parts), id_field, tuple(fields))

    def rows(self, wanted: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        left = None if wanted is None else set(wanted.tolist())
        for row, (number, line) in enumerate(self._lines()):
            if left is None:
                yield self._parse(number, line)
            elif row in left:
                left.remove(row)
                yield self._parse(number, line)
            if left is not None and not left:
                return

    def write(
        self, out: Path, copies: np.ndarray, versions: Versions | None = None, progress: Progress | None = None
    ) -> None:
        check_form(self.path, out, LINES)
        count = 0
        with writing(out) as partial, partial.open("wb") as file:
            for number, line in self._lines():
                often = int(copies[count]) if count < len(copies) else 0
                others = versions(count) if versions is not None and often > 1 else []
                if others:
                    row = self._parse(number, line)
                    turns = [line, *(_as_line({**row, **other}) for other in others)]
                    file.writelines(turns[turn % len(turns)] for turn in range(often))
                else:
                    file.write(line * often)
                count += 1
                if progress is not None and count % REPORT_EVERY == 0:
                    progress(count, len(copies))
            check_unchanged(self.path, count, len(copies))
        if progress is not None:
            progress(count, count)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the bytes of each line that is not blank, with its line end."""
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                    if line and not line.isspace():
                        yield number, line if line.endswith(b"\n") else line + b"\n"
        except OSError as error:
            raise InputError("data", str(self.path), f"cannot be read ({error.strerror})") from None

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            opened = number == 1 and line.lstrip().startswith(b"[")
            reason = ONE_A_LINE if opened else f"it is no JSON ({getattr(error, 'msg', error)})"
            raise InputError("data", f"{self.path}, line {number}", reason) from None
        if not isinstance(row, dict):
            raise InputError("data", f"{self.path}, line {number}", ONE_A_LINE)
        return row

    def _id(self, number: int, row: dict[str, Any], field: str) -> str:
        if field not in row:
            remedy = f"it has no field {field!r}; its fields are {', '.join(row)}"
            raise InputError("data", f"{self.path}, line {number}", remedy)
        value = row[field]
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise InputError(f"{field} in line {number}", json.dumps(value), "an id is a whole number or a text")
        text = str(value)
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputError(f"{field} in line {number}", json.dumps(value), "it holds half of a surrogate pair")
        return text


def copy_unchanged(path: Path, out: Path) -> None:
    """Copy a file byte for byte.

    Raises:
        InputError: `out` exists or cannot be written.
    """
    with writing(out) as partial:
        shutil.copyfile(path, partial)


def _as_line(row: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return (json.dumps(row) + "\n").encode()
