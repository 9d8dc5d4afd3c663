"""Fine-tuning sets as tables of text with a header. All values are texts: an id 007 stays 007."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from icl_theory.errors import InputError
from icl_theory.upsampling.text_rows import BOM, Entry, TextRows, reading

LONGEST = 2**31 - 1  # characters of a value


class _Record(NamedTuple):
    line: int  # number of its first line
    text: bytes
    values: list[str]


class CsvData(TextRows):
    """A `.csv` or `.tsv` file.

    Columns of `.csv` are separated by commas or, if the header has none, by semicolons or tabs. Values that hold the
    separator, quotes or line ends are quoted.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        with reading(path) as (file, _):
            first = file.readline().decode(errors="replace")
        marks = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ",;\t"
        self._mark = next((mark for mark in marks if mark in first), marks[0])
        with reading(path) as (file, _):
            header = next(self._records(file), None)
        if header is None:
            raise InputError("data", str(path), "it holds no rows")
        self.head, self.fields = header.text, header.values
        twice = [name for name in self.fields if self.fields.count(name) > 1]
        if twice:
            raise InputError("data", str(path), f"its header names {twice[0]!r} twice; give each column its own name")

    def entries(self) -> Iterator[Entry]:
        with reading(self.path) as (file, done):
            records = self._records(file)
            next(records, None)
            for line, text, values in records:
                if len(values) != len(self.fields):
                    wanted = f"it has {len(values)} values, the header {len(self.fields)}"
                    raise self.refused(line, f"{wanted}; values that hold {self._mark!r} are to be quoted")
                yield Entry(line, text, partial(dict, zip(self.fields, values, strict=True)), done)

    def written(self, row: dict[str, Any]) -> bytes:
        for name, value in row.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                reason = f"its rows do not fit the fields of the data ({name} is no text)"
                raise InputError("--augment", "a row of the table", reason)
        text = io.StringIO(newline="")
        end = "\r\n" if self.head.endswith(b"\r\n") else "\n"
        csv.writer(text, delimiter=self._mark, lineterminator=end).writerow(row.values())
        try:
            return text.getvalue().encode()
        except UnicodeEncodeError:
            raise InputError("--augment", "a row of the table", "it holds half of a surrogate pair") from None

    def _records(self, file: io.BufferedReader) -> Iterator[_Record]:
        csv.field_size_limit(LONGEST)
        lines: list[bytes] = []
        reader = csv.reader(_decoded(file, lines), delimiter=self._mark, strict=True)
        number = 1
        while True:
            try:
                values = next(reader, None)
            except UnicodeDecodeError:
                raise self.refused(number + len(lines) - 1, "it is not UTF-8; save it as that") from None
            except csv.Error as error:
                raise self.refused(number, f"it is no CSV ({error})") from None
            if values is None:
                return
            text = b"".join(lines)
            if values:
                yield _Record(number, text if text.endswith(b"\n") else text + b"\n", values)
            number += len(lines)
            lines.clear()


def _decoded(file: io.BufferedReader, lines: list[bytes]) -> Iterator[str]:
    """Yield lines as text, and add the bytes of each to `lines` before."""
    for number, line in enumerate(file):
        lines.append(line)
        yield (line if number else line.removeprefix(BOM)).decode()
