"""Fine-tuning sets as files, JSON lines or Parquet: read once for their ids, once more to write each row as often as
asked.

Both passes stream. Rows of JSON lines are copied byte for byte; Parquet keeps its schema and the metadata in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from icl_theory.errors import InputError
from icl_theory.results import exists, writing
from icl_theory.upsampling.loss_record import id_array

LINES = (".jsonl", ".ndjson", ".json")
ONE_A_LINE = "one JSON object a line is wanted; `jq -c '.[]' FILE` makes that of an array"
BATCH = 2**14  # rows of Parquet held at a time
REPORT_EVERY = 2**14  # rows
Progress = Callable[[int, int], None]
Versions = Callable[[int], list[dict[str, Any]]]  # of a row of the data, what stands in for its further copies


class Scan(NamedTuple):
    """Ids and number of rows, found in one pass over a data file.

    Attributes:
        num_rows: P.
        ids: (P,) as texts; None where no field holds them.
        id_field: the field that does.
        fields: of all rows, in the order in which they first come.
    """

    num_rows: int
    ids: pa.Array | None
    id_field: str | None
    fields: tuple[str, ...]


@runtime_checkable
class DataFile(Protocol):
    """A fine-tuning set on disk."""

    path: Path

    def scan(self, id_field: str | None, *, with_ids: bool = True, progress: Progress | None = None) -> Scan:
        """Check every row; read ids, if asked for, from `id_field` (default `id`, where the first row has it)."""

    def rows(self, wanted: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries, all or those numbered in `wanted` (ascending), in their order."""

    def write(
        self, out: Path, copies: np.ndarray, versions: Versions | None = None, progress: Progress | None = None
    ) -> None:
        """Write row p `copies[p]` times in the order of the input; with `versions`, further copies take turns with
        them.
        """


def open_data(path: str | Path) -> DataFile:
    """The data file of the kind that its suffix says.

    Raises:
        InputError: no such file, another suffix, no Parquet file in spite of its name.
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
    """One JSON object a line."""

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
        _check_form(self.path, out, LINES)
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
            _check_unchanged(self.path, count, len(copies))
        if progress is not None:
            progress(count, count)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of each line that is not empty, each with its end."""
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


class ParquetData:
    """A Parquet file."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = pa.parquet.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise InputError("data", str(path), f"cannot be read ({_first_line(error)})") from None

    def scan(self, id_field: str | None, *, with_ids: bool = True, progress: Progress | None = None) -> Scan:
        names, count = tuple(self._file.schema_arrow.names), self._file.metadata.num_rows
        if not count:
            raise InputError("data", str(self.path), "it holds no rows")
        id_field = "id" if id_field is None and with_ids and "id" in names else id_field
        if id_field is None:
            return Scan(count, None, None, names)
        if id_field not in names:
            raise InputError("data", str(self.path), f"it has no field {id_field!r}; its fields are {', '.join(names)}")
        try:
            column = self._file.read(columns=[id_field]).column(0)
        except (OSError, pa.ArrowException) as error:
            raise InputError("data", str(self.path), f"cannot be read ({_first_line(error)})") from None
        return Scan(count, id_array(id_field, column), id_field, names)

    def rows(self, wanted: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        first = 0
        for batch in self._batches():
            if wanted is not None:
                inside = wanted[(wanted >= first) & (wanted < first + len(batch))] - first
                first += len(batch)
                batch = batch.take(pa.array(inside))
            yield from batch.to_pylist()

    def write(
        self, out: Path, copies: np.ndarray, versions: Versions | None = None, progress: Progress | None = None
    ) -> None:
        _check_form(self.path, out, (".parquet",))
        schema, count = self._file.schema_arrow, 0
        packed = self._file.metadata.row_group(0).column(0).compression
        with writing(out) as partial, pa.parquet.ParquetWriter(partial, schema, compression=packed) as writer:
            for batch in self._batches():
                often = copies[count : count + len(batch)]
                turns = np.repeat(np.arange(len(often)), often)
                table = pa.Table.from_batches([batch], schema)
                if versions is not None:
                    table, turns = self._with_versions(table, count, often, versions)
                if len(turns):
                    writer.write_table(table.take(pa.array(turns)))
                count += len(batch)
                if progress is not None:
                    progress(count, len(copies))
            _check_unchanged(self.path, count, len(copies))

    def _with_versions(
        self, table: pa.Table, first: int, often: np.ndarray, versions: Versions
    ) -> tuple[pa.Table, np.ndarray]:
        """The rows followed by what stands in for some of them, and which to write, in order."""
        further: list[dict[str, Any]] = []
        turns: list[int] = []
        for row, times in enumerate(often):
            others = versions(first + row) if times > 1 else []
            start = len(table) + len(further)
            if others:
                original = table.slice(row, 1).to_pylist()[0]
                further += [{**original, **other} for other in others]
            choice = [row, *range(start, start + len(others))]
            turns += [choice[turn % len(choice)] for turn in range(times)]
        if further:
            try:
                more = pa.Table.from_pylist(further, schema=table.schema)
            except (pa.ArrowException, TypeError) as error:
                reason = f"its rows do not fit the fields of the data ({_first_line(error)})"
                raise InputError("--augment", "a row of the table", reason) from None
            table = pa.concat_tables([table, more])
        return table, np.array(turns, dtype=np.int64)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._file.iter_batches(batch_size=BATCH)
        except (OSError, pa.ArrowException) as error:
            raise InputError("data", str(self.path), f"cannot be read ({_first_line(error)})") from None


def copy_unchanged(path: Path, out: Path) -> None:
    """The same bytes under another name.

    Raises:
        InputError: it exists or cannot be written.
    """
    with writing(out) as partial:
        shutil.copyfile(path, partial)


def _check_form(path: Path, out: Path, forms: tuple[str, ...]) -> None:
    if out.suffix not in forms:
        raise InputError("--out", str(out), f"the set is written in the form of {path.name}; end it in {forms[0]}")


def _check_unchanged(path: Path, count: int, expected: int) -> None:
    if count != expected:
        raise InputError(
            "data", str(path), f"it had {expected} rows and now has {count}; leave it alone until this ends"
        )


def _as_line(row: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return (json.dumps(row) + "\n").encode()


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
