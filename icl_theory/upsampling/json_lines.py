"""Fine-tuning sets as JSON lines: one object per line, streamed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from icl_theory.upsampling.text_rows import NOT_UTF8, Entry, TextRows, line_end, numbered, reading

ONE_A_LINE = "one JSON object a line is wanted; `jq -c '.[]' FILE` makes that of an array, or let its name end in .json"

COMMA_TOO_MANY = re.compile(r".?,\s*([\]}])")


class JsonLines(TextRows):
    """A file of JSON lines."""

    def __init__(self, path: Path):
        super().__init__(path)
        with reading(path) as (file, _):
            self._end = line_end(file.readline())

    def entries(self) -> Iterator[Entry]:
        with reading(self.path) as (file, done):
            for number, line in numbered(file):
                ended = line if line.endswith(b"\n") else line + self._end
                yield Entry(number, ended, partial(self._parse, number, line), done)

    def written(self, row: dict[str, Any]) -> bytes:
        return json_bytes(row) + self._end

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            opened = number == 1 and line.lstrip().startswith(b"[")
            raise self.refused(number, ONE_A_LINE if opened else json_problem(error)) from None
        if not isinstance(row, dict):
            raise self.refused(number, ONE_A_LINE)
        return row


def json_problem(error: ValueError | RecursionError) -> str:
    """Say in plain words why a text was not read as JSON."""
    if isinstance(error, UnicodeDecodeError):
        return NOT_UTF8
    if isinstance(error, RecursionError):
        return "its lists or objects are nested too deeply to be read"
    if not isinstance(error, json.JSONDecodeError):
        return "it holds a number with too many digits; write it as a text, in quotes"
    before, after = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip()
    if "\0" in error.doc:  # UTF-16 without its mark
        return NOT_UTF8
    if not after:
        return "it is no JSON (it breaks off)"
    if found := COMMA_TOO_MANY.match(before[-1:] + after):
        return f"it is no JSON (a comma before the closing {found[1]}); remove the comma"
    if after.startswith("'"):
        return f"it is no JSON (a single quote at column {error.colno}); write double quotes"
    return f"it is no JSON (at column {error.colno}, where {after[:12]!r} stands: {error.msg})"


def json_bytes(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return json.dumps(row).encode()
