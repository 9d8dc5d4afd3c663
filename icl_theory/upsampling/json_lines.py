"""Fine-tuning sets as JSON lines: one object per line, streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from icl_theory.upsampling.text_rows import Entry, TextRows, numbered, reading

ONE_A_LINE = "one JSON object a line is wanted; `jq -c '.[]' FILE` makes that of an array, or let its name end in .json"


class JsonLines(TextRows):
    """A file of JSON lines."""

    def entries(self) -> Iterator[Entry]:
        with reading(self.path) as (file, done):
            for number, line in numbered(file):
                ended = line if line.endswith(b"\n") else line + b"\n"
                yield Entry(number, ended, partial(self._parse, number, line), done)

    def written(self, row: dict[str, Any]) -> bytes:
        return json_bytes(row) + b"\n"

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            opened = number == 1 and line.lstrip().startswith(b"[")
            reason = ONE_A_LINE if opened else f"it is no JSON ({getattr(error, 'msg', error)})"
            raise self.refused(number, reason) from None
        if not isinstance(row, dict):
            raise self.refused(number, ONE_A_LINE)
        return row


def json_bytes(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return json.dumps(row).encode()
