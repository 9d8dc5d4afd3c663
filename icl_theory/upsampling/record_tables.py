"""Loss records as tables, `.parquet` and `.csv`: a column for each checkpoint, or a row for each loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from icl_theory.errors import InputError
from icl_theory.upsampling.loss_record import LossRecord, id_array

Arrays = tuple[Any, Any, Any]  # steps, losses and ids (or None), as a file holds them


def plain_ids(ids: pa.Array) -> np.ndarray:
    """Return ids as whole numbers if all are such, else as texts."""
    values = np.array(ids.to_pylist(), dtype=str)
    try:
        numbers = values.astype(np.int64)
    except (ValueError, OverflowError):
        return values
    return numbers if np.array_equal(numbers.astype(str), values) else values


def read_parquet(path: Path) -> Arrays:
    file = pa.parquet.ParquetFile(path)
    names = file.schema_arrow.names
    if set(names) == LONG:
        return _from_long(file.iter_batches)
    return _from_table(names, lambda name: file.read(columns=[name]).column(0), file.metadata.num_rows)


def read_csv(path: Path) -> Arrays:
    # Ids are texts, whatever they look like: 007 is not 7.
    options = pa.csv.ConvertOptions(column_types={"id": pa.large_string()})
    with pa.csv.open_csv(path, convert_options=options) as reader:
        long = set(reader.schema.names) == LONG
    if long:
        return _from_long(lambda: pa.csv.open_csv(path, convert_options=options))
    table = pa.csv.read_csv(path, convert_options=options)
    return _from_table(table.column_names, table.column, table.num_rows)


def _from_table(names: list[str], column: Callable[[str], pa.ChunkedArray], rows: int) -> Arrays:
    steps, columns = [], []
    for name in names:
        if name == "id":
            continue
        try:
            steps.append(float(name))
            columns.append(name)
        except ValueError:
            remedy = "columns are id and one for each checkpoint, named by its step; or step, id and loss"
            remedy += "" if name else " (an index without a name is to be named id, or left out)"
            raise InputError("column", name, remedy) from None
    if not steps:
        raise InputError("columns", ", ".join(names), "there is none named by a step")
    order = np.argsort(steps, kind="stable")
    kinds = {_number_kind(columns[i], column(columns[i]).type) for i in order}
    losses = np.empty((len(steps), rows), np.float32 if kinds == {np.dtype(np.float32)} else np.float64)
    for row, i in enumerate(order):
        losses[row] = _floats(columns[i], column(columns[i]))
    return np.array(steps)[order], losses, column("id") if "id" in names else None


def _from_long(batches: Callable[[], Iterable[pa.RecordBatch]]) -> Arrays:
    """Read a table with a row for each loss in two passes, so that only the losses have to fit into memory."""
    steps, names = np.empty(0), pa.array([], pa.large_string())
    for batch in batches():
        steps = np.union1d(steps, _floats("step", batch.column("step")))
        ids = id_array("id", batch.column("id")).unique()
        new = pc.filter(ids, pc.invert(pc.is_in(ids, value_set=names)))
        names = pa.concat_arrays([names, new]) if len(new) else names
    if not len(names):
        raise InputError("table", "no rows", "give a row for each loss")
    losses, count = np.zeros((len(steps), len(names))), np.zeros((len(steps), len(names)), np.int32)
    for batch in batches():
        row = np.searchsorted(steps, _floats("step", batch.column("step")))
        example = pc.index_in(id_array("id", batch.column("id")), value_set=names).to_numpy()
        losses[row, example] = _floats("loss", batch.column("loss"))
        np.add.at(count, (row, example), 1)
    if np.any(count != 1):
        place, which = (int(axis) for axis in np.argwhere(count != 1)[0])
        often = "missing" if count[place, which] == 0 else f"there {count[place, which]} times"
        loss = f"loss of {names[which].as_py()!r} at step {steps[place]:g}"
        raise InputError(loss, often, "every example needs one loss at every step")
    return steps, losses, names


def _number_kind(name: str, kind: pa.DataType) -> np.dtype:
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise InputError(f"column {name}", str(kind), "give numbers")
    return np.dtype(np.float32 if kind in (pa.float32(), pa.float16()) else np.float64)


def _floats(name: str, values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    _number_kind(name, values.type)
    return np.asarray(values, dtype=float)  # a missing value is NaN, which is refused later with its place


def write_parquet(record: LossRecord, path: Path) -> None:
    pa.parquet.write_table(_wide_table(record), path)


def write_csv(record: LossRecord, path: Path) -> None:
    pa.csv.write_csv(_wide_table(record), path, pa.csv.WriteOptions(quoting_style="needed"))


def _wide_table(record: LossRecord) -> pa.Table:
    columns: dict[str, Any] = {} if record.ids is None else {"id": plain_ids(record.ids)}
    columns |= {
        np.format_float_positional(s, trim="-"): row for s, row in zip(record.steps, record.stored, strict=True)
    }
    return pa.table(columns)


LONG = {"step", "id", "loss"}  # columns of a table with a row for each loss
