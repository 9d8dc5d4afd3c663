"""Fine-tuning sets in Parquet: read in batches, written with the schema and the codecs of the input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from icl_theory.errors import InputError
from icl_theory.results import writing
from icl_theory.upsampling.data_file import Progress, Scan, Versions, check_form, check_unchanged, first_line
from icl_theory.upsampling.loss_record import id_array

BATCH = 2**14  # rows of Parquet held at a time, fewer if they are long


BATCH_BYTES = 2**28


class ParquetData:
    """A Parquet file."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = pa.parquet.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise InputError("data", str(path), f"cannot be read ({first_line(error)})") from None

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
            raise InputError("data", str(self.path), f"cannot be read ({first_line(error)})") from None
        return Scan(count, id_array(id_field, column), id_field, names)

    def rows(self, wanted: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        first = 0
        for batch in self._batches():
            if wanted is not None:
                inside = wanted[(wanted >= first) & (wanted < first + len(batch))] - first
                first += len(batch)
                yield from _taken(pa.Table.from_batches([batch]), inside).to_pylist()
            else:
                yield from batch.to_pylist()

    def write(
        self, out: Path, copies: np.ndarray, versions: Versions | None = None, progress: Progress | None = None
    ) -> None:
        check_form(self.path, out, (".parquet",))
        schema, count = self._file.schema_arrow, 0
        with writing(out) as partial, pa.parquet.ParquetWriter(partial, schema, compression=self._codecs()) as writer:
            for batch in self._batches():
                often = copies[count : count + len(batch)]
                turns = np.repeat(np.arange(len(often)), often)
                table = pa.Table.from_batches([batch], schema)
                if versions is not None:
                    table, turns = self._with_versions(table, count, often, versions)
                size = max(1, BATCH_BYTES * len(table) // max(table.nbytes, 1))
                for start in range(0, len(turns), size):
                    writer.write_table(_taken(table, turns[start : start + size]))
                count += len(batch)
                if progress is not None:
                    progress(count, len(copies))
            check_unchanged(self.path, count, len(copies))

    def _with_versions(
        self, table: pa.Table, first: int, often: np.ndarray, versions: Versions
    ) -> tuple[pa.Table, np.ndarray]:
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

    def _codecs(self) -> dict[str, str]:
        """Return the compression of each column, named as the writer expects."""
        group = self._file.metadata.row_group(0)
        columns = [group.column(place) for place in range(group.num_columns)]
        return {c.path_in_schema: "NONE" if c.compression == "UNCOMPRESSED" else c.compression for c in columns}

    def _rows_in(self, size: int) -> int:
        """Return the approximate number of rows that take `size` bytes, at least one."""
        about = self._file.metadata
        total = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
        return max(1, int(size * about.num_rows / max(total, 1)))

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._file.iter_batches(batch_size=min(BATCH, self._rows_in(BATCH_BYTES)))
        except (OSError, pa.ArrowException) as error:
            raise InputError("data", str(self.path), f"cannot be read ({first_line(error)})") from None


def _taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Return rows by number, for columns of any type."""
    try:
        return table.take(pa.array(rows))
    except pa.ArrowNotImplementedError:  # views of texts
        return pa.concat_tables([table.slice(0, 0), *(table.slice(row, 1) for row in rows)])
