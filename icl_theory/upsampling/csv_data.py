"""Fine-tuning sets as tables of text with a header. All values are texts: an id 007 stays 007."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from icl_theory.errors import InputError
from icl_theory.upsampling.text_rows import BOM, NOT_UTF8, Entry, TextRows, line_end, numbered, reading

LONGEST = 2**31 - 1  # characters of a value
MARKS = ",;\t|"
PROBED = 100  # rows that are to tell which of several marks separates values
DECLARED = re.compile(r'"?sep=([^\s"]|\t)"?\r?\n?')  # a first line that tells Excel the separator


class _Record(NamedTuple):
    line: int  # number of its first line
    text: bytes
    values: list[str]


class CsvData(TextRows):
    """A `.csv` or `.tsv` file.

    Columns of `.csv` are separated as a first line such as `sep=;` says, else by the one of comma, semicolon, tab and
    vertical bar that splits the header outside quotes. If several do, it is the one by which the first rows have as
    many values as the header; a file is refused where that leaves none or several. If a blank follows each separator
    of the header, blanks after separators count as part of them. Values that hold the separator, quotes or line ends
    are quoted.

    Names of columns are read without blanks around them. A column without a name, such as the index that pandas writes,
    is called `column 1`, by its place.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        with reading(path) as (file, _):
            first = [line.decode(errors="replace") for _, line in islice(numbered(file), 2)]
        declared = DECLARED.fullmatch(first[0]) if first else None
        self._ahead = 2 if declared else 1  # records before the rows
        if len(first) < self._ahead:
            raise InputError("data", str(path), "it holds no rows")
        names = first[self._ahead - 1]
        if declared:
            self._mark = declared[1]
        else:
            self._mark = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else _mark_of(path, names)
        self._blanks = _blanks_follow(self._mark, names)
        with reading(path) as (file, _):
            ahead = list(islice(self._records(file), self._ahead))
        self.head = b"".join(record.text for record in ahead)
        if b"\0" in self.head:  # UTF-16 without its mark
            raise self.refused(1, NOT_UTF8)
        self._end = line_end(self.head)
        self.fields = [name.strip() or f"column {place}" for place, name in enumerate(ahead[-1].values, start=1)]
        twice = [name for name in self.fields if self.fields.count(name) > 1]
        if twice:
            raise InputError("data", str(path), f"its header names {twice[0]!r} twice; give each column its own name")

    def entries(self) -> Iterator[Entry]:
        with reading(self.path) as (file, done):
            for line, text, values in islice(self._records(file), self._ahead, None):
                if len(values) != len(self.fields):
                    wanted = f"it has {len(values)} values, the header {len(self.fields)}"
                    raise self.refused(line, f"{wanted}; values that hold {self._mark!r} are to be quoted")
                ended = text if text.endswith(b"\n") else text + self._end
                yield Entry(line, ended, partial(dict, zip(self.fields, values, strict=True)), done)

    def written(self, row: dict[str, Any]) -> bytes:
        for name, value in row.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                reason = f"its rows do not fit the fields of the data ({name} is no text)"
                raise InputError("--augment", "a row of the table", reason)
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self._mark, lineterminator=self._end.decode()).writerow(row.values())
        try:
            return text.getvalue().encode()
        except UnicodeEncodeError:
            raise InputError("--augment", "a row of the table", "it holds half of a surrogate pair") from None

    def _records(self, file: io.BufferedReader) -> Iterator[_Record]:
        csv.field_size_limit(LONGEST)
        lines: list[bytes] = []
        reader = csv.reader(_decoded(file, lines), delimiter=self._mark, skipinitialspace=self._blanks, strict=True)
        number = 1
        while True:
            try:
                values = next(reader, None)
            except UnicodeDecodeError:
                raise self.refused(number + len(lines) - 1, NOT_UTF8) from None
            except csv.Error as error:
                raise self.refused(number, f"it is no CSV ({error})") from None
            if values is None:
                return
            if values:
                yield _Record(number, b"".join(lines), values)
            number += len(lines)
            lines.clear()


def _mark_of(path: Path, names: str) -> str:
    """Return the mark that separates the values of a `.csv` file, given the first line of its header.

    Raises:
        InputError: Several marks split the header, and the first rows fit none or several of them.
    """
    counts = {mark: _counts(path, mark, names) for mark in MARKS}
    splitting = [mark for mark, (first, *_) in counts.items() if first > 1]
    if len(splitting) < 2:
        return next(iter(splitting), MARKS[0])
    fitting = [mark for mark in splitting if len(set(counts[mark])) == 1]
    if len(fitting) != 1:
        remedy = "and its first rows do not tell which is meant; name the right one in a first line such as sep=;"
        raise InputError("data", str(path), f"{' and '.join(map(repr, splitting))} split its header, {remedy}")
    return fitting[0]


def _counts(path: Path, mark: str, names: str) -> list[int]:
    """Return the number of values in the header and in the first rows, split by a mark; 0 for one that is no CSV."""
    csv.field_size_limit(LONGEST)
    found: list[int] = []
    with reading(path) as (file, _):
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
        rows = csv.reader(text, delimiter=mark, skipinitialspace=_blanks_follow(mark, names), strict=True)
        try:
            for row in islice(filter(None, rows), PROBED + 1):
                found.append(len(row))
        except csv.Error:
            found.append(0)
    return found


def _blanks_follow(mark: str, names: str) -> bool:
    """Return whether a blank follows each mark of a header."""
    return 0 < names.count(mark) == names.count(f"{mark} ")


def _decoded(file: io.BufferedReader, lines: list[bytes]) -> Iterator[str]:
    """Yield lines as text, and add the bytes of each to `lines` before."""
    for number, line in enumerate(file):
        lines.append(line)
        yield (line if number else line.removeprefix(BOM)).decode()
