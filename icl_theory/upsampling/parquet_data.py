"""Fine-tuning sets in Parquet, a file or a folder: read in batches, written with the schema and codecs of the input."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from icl_theory.errors import InputError
from icl_theory.results import writing
from icl_theory.upsampling.data_file import Progress, Scan, Versions, check_unchanged, first_line, places
from icl_theory.upsampling.loss_record import id_array

BATCH = 2**14  # rows of Parquet held at a time, fewer if they are long
BATCH_BYTES = 2**28
NUMBERED = re.compile(r"(.+)-(\d+)-of-(\d+)(?:-[0-9a-f]+)?\.parquet")  # how the hub names its files
BARE = re.compile(r"(train|test|validation|valid|val|dev|eval)\.parquet", re.IGNORECASE)


class ParquetData:
    """A Parquet file, or a folder of such files with one schema, which are taken in the order of their names.

    A folder holds the files itself, or in a single folder inside it, such as `data`. Other files are ignored. It is
    written as a folder with the same names, and each file keeps its own rows. Files of two splits, or a part of the
    files that are named `train-00000-of-00003.parquet` and so on, are refused.
    """

    def __init__(self, path: Path):
        self.path = path
        self.files = _shards(path) if path.is_dir() else [path]
        abouts = [_about(file) for file in self.files]
        self._schema = abouts[0][0]
        self._num_rows = sum(rows for _, rows in abouts)
        for file, (schema, _) in zip(self.files, abouts, strict=True):
            if not schema.equals(self._schema):
                remedy = f"its fields differ from those of {self.files[0].name} ({_difference(schema, self._schema)})"
                raise InputError("data", str(file), f"{remedy}; one schema is wanted")

    def scan(self, id_field: str | None, *, with_ids: bool = True, progress: Progress | None = None) -> Scan:
        names, count = tuple(self._schema.names), self._num_rows
        if not count:
            raise InputError("data", str(self.path), "it holds no rows")
        id_field = "id" if id_field is None and with_ids and "id" in names else id_field
        if id_field is None:
            return Scan(count, None, None, names)
        if id_field not in names:
            raise InputError("data", str(self.path), f"it has no field {id_field!r}; its fields are {', '.join(names)}")
        parts: list[pa.Array] = []
        for path in self.files:
            with _opened(path) as file:
                parts += file.read(columns=[id_field]).column(0).chunks
        column = pa.chunked_array(parts, self._schema.field(id_field).type)
        return Scan(count, id_array(id_field, column), id_field, names)

    def rows(self, wanted: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        first = 0
        for path in self.files:
            for batch in _batches(path):
                if wanted is not None:
                    inside = wanted[(wanted >= first) & (wanted < first + len(batch))] - first
                    first += len(batch)
                    yield from _taken(pa.Table.from_batches([batch]), inside).to_pylist()
                else:
                    yield from batch.to_pylist()

    def write(
        self, out: Path, copies: np.ndarray, versions: Versions | None = None, progress: Progress | None = None
    ) -> None:
        count = 0
        with writing(out) as partial:
            for path, place in places(self, partial):
                with _writer(path, place) as writer:
                    for batch in _batches(path):
                        often = copies[count : count + len(batch)]
                        for table in _repeated(pa.Table.from_batches([batch], writer.schema), count, often, versions):
                            writer.write_table(table)
                        count += len(batch)
                        if progress is not None:
                            progress(count, len(copies))
            check_unchanged(self.path, count, len(copies))


def _repeated(table: pa.Table, first: int, often: np.ndarray, versions: Versions | None) -> Iterator[pa.Table]:
    """Yield parts of a table whose first row has number `first`, with row p `often[p]` times, or in versions."""
    turns = np.repeat(np.arange(len(often)), often)
    if versions is not None:
        table, turns = _with_versions(table, first, often, versions)
    size = max(1, BATCH_BYTES * len(table) // max(table.nbytes, 1))
    for start in range(0, len(turns), size):
        yield _taken(table, turns[start : start + size])


def _with_versions(table: pa.Table, first: int, often: np.ndarray, versions: Versions) -> tuple[pa.Table, np.ndarray]:
    """Return a table of the rows and then the versions of some, and which of its rows to write, in order."""
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
            reason = f"its rows do not fit the fields of the data ({first_line(error)})"
            raise InputError("--augment", "a row of the table", reason) from None
        table = pa.concat_tables([table, more])
    return table, np.array(turns, dtype=np.int64)


@contextmanager
def _opened(path: Path) -> Iterator[pa.parquet.ParquetFile]:
    """Open a Parquet file.

    Raises:
        InputError: It cannot be read, then or while it is being read.
    """
    try:
        with pa.parquet.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise InputError("data", str(path), f"cannot be read ({first_line(error)})") from None


def _about(path: Path) -> tuple[pa.Schema, int]:
    """Return schema and number of rows of a file."""
    with _opened(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with _opened(path) as file:
        about = file.metadata
        total = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
        fitting = int(BATCH_BYTES * about.num_rows / max(total, 1))
        yield from file.iter_batches(batch_size=min(BATCH, max(1, fitting)))


def _writer(path: Path, place: Path) -> pa.parquet.ParquetWriter:
    """Open a file at `place` with the schema and the compression of each column of the one at `path`."""
    with _opened(path) as file:
        schema, about = file.schema_arrow, file.metadata
    columns = [about.row_group(0).column(column) for column in range(about.num_columns if about.num_row_groups else 0)]
    codecs = {c.path_in_schema: "NONE" if c.compression == "UNCOMPRESSED" else c.compression for c in columns}
    return pa.parquet.ParquetWriter(place, schema, compression=codecs)


def _shards(folder: Path) -> list[Path]:
    """Return the Parquet files of a folder, or of the one folder in it that holds some.

    Raises:
        InputError: There are none, several folders hold some, or they belong to several splits.
    """
    try:
        holders = [folder, *(path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] not in "._")]
        found = {holder: sorted(path for path in holder.glob("[!._]*.parquet") if path.is_file()) for holder in holders}
    except OSError as error:
        raise InputError("data", str(folder), f"cannot be read ({error.strerror})") from None
    filled = {holder: files for holder, files in found.items() if files}
    if not filled:
        remedy = "it is a folder without .parquet files; `dataset.to_parquet(FILE)` writes one from `datasets`"
        raise InputError("data", str(folder), remedy)
    if len(filled) > 1:
        names = " and ".join(holder.name or "." for holder in filled)
        raise InputError("data", str(folder), f"the folders {names} hold Parquet files; give one that holds all")
    files = next(iter(filled.values()))
    _check_one_split(folder, [path.name for path in files])
    return files


def _check_one_split(folder: Path, names: list[str]) -> None:
    """Raise `InputError` unless the files that name a split are all of one; train.parquet is file 0 of 1 of train."""
    numbered = [found.groups() for name in names if (found := NUMBERED.fullmatch(name))]
    bare = [(found[1], "0", "1") for name in names if (found := BARE.fullmatch(name))]
    numbers: dict[str, list[tuple[int, int]]] = {}
    for split, number, count in [*numbered, *bare]:
        numbers.setdefault(split, []).append((int(number), int(count)))
    if len(numbers) > 1:
        remedy = f"it holds the splits {' and '.join(sorted(numbers))}; give a folder with the files of one"
        raise InputError("data", str(folder), remedy)
    for split, pairs in numbers.items():
        present, count = {number for number, _ in pairs}, pairs[0][1]
        if len({total for _, total in pairs}) > 1 or not len(pairs) == len(present) <= count:
            remedy = f"its files of {split} belong to several sets; give a folder with the files of one"
            raise InputError("data", str(folder), remedy)
        first = 1 if count in present else 0
        missing = next((number for number in range(first, first + count) if number not in present), None)
        if missing is not None:
            remedy = f"it holds {len(present)} of the {count} files of {split}, not number {missing:05}; add the others"
            raise InputError("data", str(folder), remedy)


def _difference(schema: pa.Schema, other: pa.Schema) -> str:
    """Return in words the first field in which two schemas differ."""
    for name in dict.fromkeys([*schema.names, *other.names]):
        here, there = (str(one.field(name).type) if name in one.names else "missing" for one in (schema, other))
        if here != there:
            return f"{name} is {here} here, {there} there"
    return "in their order, or in what may be null"


def _taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Return rows by number, for columns of any type."""
    try:
        return table.take(pa.array(rows))
    except pa.ArrowNotImplementedError:  # views of texts
        return pa.concat_tables([table.slice(0, 0), *(table.slice(row, 1) for row in rows)])
