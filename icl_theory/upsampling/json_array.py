"""Fine-tuning sets as a JSON array of objects. The text of the file is held in memory; its rows are not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

from icl_theory.errors import InputError
from icl_theory.upsampling.data_file import DataFile
from icl_theory.upsampling.json_lines import JsonLines, json_bytes, json_problem
from icl_theory.upsampling.row_fields import PAIRS, as_text, is_turns, pair_of, whole_of
from icl_theory.upsampling.text_rows import NOT_UTF8, Entry, TextRows, numbered, reading

BLANK = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()
ONE_ROW = "`jq -c . FILE` puts a single row on a line"
BY_NAME = "`jq -c '.[]' FILE` writes the objects in it as JSON lines"
COLUMNS = "pandas.DataFrame(json.load(open(FILE))).to_json(OTHER, orient='records', lines=True) makes lines of columns"


class JsonArray(TextRows):
    """A file of one JSON array; a copy keeps the text of each row, and each row starts a line."""

    unit = "row"
    head, between, tail = b"[\n", b",\n", b"\n]\n"

    def __init__(self, path: Path):
        super().__init__(path)
        self._text = _text_of(path)
        if "\r\n" in self._text:
            self.head, self.between, self.tail = b"[\r\n", b",\r\n", b"\r\n]\r\n"

    @property
    def size(self) -> int:
        return len(self._text)

    def entries(self) -> Iterator[Entry]:
        text, end = self._text, self._text.index("[") + 1
        for number in count():
            start = _skip(text, end)
            if number == 0 and text[start : start + 1] == "]":
                end = start
            else:
                row, end = self._parse(number, start)
                yield Entry(number, text[start:end].encode(), partial(dict, row), partial(int, end))
                end = _skip(text, end)
            if text[end : end + 1] == "]":
                break
            if text[end : end + 1] != ",":
                raise self._refused(number, end, "neither a comma nor a closing bracket follows the row")
            end += 1
        if _skip(text, end + 1) != len(text):
            raise InputError("data", str(self.path), "something follows the array; one array is wanted")

    def written(self, row: dict[str, Any]) -> bytes:
        return json_bytes(row)

    def _parse(self, number: int, start: int) -> tuple[dict[str, Any], int]:
        try:
            row, end = DECODER.raw_decode(self._text, start)
        except (ValueError, RecursionError) as error:
            place = error.pos if isinstance(error, json.JSONDecodeError) else start
            raise self._refused(number, place, json_problem(error)) from None
        if not isinstance(row, dict):
            raise self.refused(number, "an array of objects is wanted, one for each row")
        return row, end

    def _refused(self, number: int, place: int, remedy: str) -> InputError:
        """Return the error that names a row, and the line of a place in the text."""
        line = self._text.count("\n", 0, place) + 1
        return self.refused(number, f"line {line}: {remedy}")


def open_json(path: Path) -> DataFile:
    """Return the rows of a `.json` file, which holds an array or JSON lines.

    Raises:
        InputError: It holds one object that is no row, such as one of columns, or one row on several lines.
    """
    with reading(path) as (file, _):
        start = [line for _, line in islice(numbered(file), 2)]
    if start and start[0].lstrip().startswith(b"["):
        return JsonArray(path)
    if start and (len(start) == 1 or start[0].strip() == b"{"):
        _check_rows(path)
    return JsonLines(path)


def _check_rows(path: Path) -> None:
    """Raise `InputError` if a file is one object, unless it is a row on a single line."""
    text = _text_of(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(found, dict):
        return
    remedy = _remedy(found)
    if remedy != ONE_ROW or "\n" in text.strip():
        raise InputError("data", str(path), f"it is one object and no list of rows; {remedy}")


def _remedy(found: dict[str, Any]) -> str:
    """Return how to make JSON lines of an object: it is a row, or holds rows in a list, rows by name, or columns."""
    if not found or _is_row(found):
        return ONE_ROW
    values = [[] if is_turns(value) else value for value in found.values()]
    for name, value in zip(found, values, strict=True):
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return f"`jq -c '.{json.dumps(name)}[]' FILE` writes what {name} holds as JSON lines"
    if all(isinstance(value, dict) for value in values):
        by_number = all(name.isdigit() for value in values for name in value)
        return COLUMNS if by_number or any(found.keys() >= set(pair) for pair in PAIRS) else BY_NAME
    lists = all(isinstance(value, list) and value for value in values)
    return COLUMNS if lists and len({len(value) for value in values}) == 1 else ONE_ROW


def _is_row(found: dict[str, Any]) -> bool:
    """Return whether an object is a row of a usual format, and not columns under the same names."""
    try:
        pair = pair_of(found)
        if pair is None:
            return whole_of(found) is not None
        if not is_turns(pair.asked):
            as_text(pair.asked)
    except InputError:
        return False
    return True


def _text_of(path: Path) -> str:
    with reading(path) as (file, _):
        data = file.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError("data", f"{path}, line {line}", NOT_UTF8) from None


def _skip(text: str, start: int) -> int:
    """Return the place of the next character that is not blank."""
    found = BLANK.match(text, start)
    return start if found is None else found.end()
