"""Weights, row numbers or counts of an upsampling as files, for trainers that sample rows themselves.

    weights   κ or 1 for each example, in the order of the data, not rounded
    indices   the upsampled set as row numbers from 0, in order, each repeated as often as it occurs
    copies    how often each example occurs

`.npy` holds the numbers alone. `.csv` and `.parquet` have a column named after the kind of numbers. For weights and
copies a column of ids precedes it, named like their field (`row`, with row numbers, if there are no ids).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from icl_theory.errors import InputError, as_floats
from icl_theory.results import exists, writing
from icl_theory.upsampling.data_file import Scan
from icl_theory.upsampling.factor import LARGEST_COPIES, rounded_weights
from icl_theory.upsampling.record_tables import plain_ids
from icl_theory.upsampling.rule import Upsampling

SELECTIONS = ("weights", "indices", "copies")
SUFFIXES = (".npy", ".csv", ".parquet")


def check_selection(path: Path, what: str, field: str = "--out") -> None:
    """Raise `InputError` unless the suffix is one of `SUFFIXES`."""
    if path.suffix not in SUFFIXES:
        raise InputError(field, str(path), f"{what} are held by a file that ends in {', '.join(SUFFIXES)}")


def save_selection(path: Path, what: str, found: Upsampling, copies: np.ndarray, scan: Scan) -> None:
    """Write one of `SELECTIONS`, completely or not at all.

    Args:
        path: Path of a new file. The suffix says the format.
        what: Which of `SELECTIONS`.
        found: The result of `upsample`.
        copies: How often each example occurs, (P,).
        scan: The scan of the data. Without ids, row numbers are written.

    Raises:
        InputError: The file exists, cannot be written, or has another suffix.
    """
    check_selection(path, what)
    values = {
        "weights": lambda: found.weights,
        "copies": lambda: copies,
        "indices": lambda: np.repeat(np.arange(len(copies)), copies),
    }[what]()
    with writing(path) as partial:
        if path.suffix == ".npy":
            np.save(partial, values)
            return
        named: dict[str, Any] = {}
        if what != "indices":
            named = {"row": np.arange(len(copies))} if scan.ids is None else {str(scan.id_field): plain_ids(scan.ids)}
        table = pa.table({**named, what: values})
        if path.suffix == ".csv":
            pa.csv.write_csv(table, partial, pa.csv.WriteOptions(quoting_style="needed"))
        else:
            pa.parquet.write_table(table, partial)


def load_copies(path: Path, rows: Sequence[Mapping[str, Any]], *, used: Any = None, seed: int = 0) -> np.ndarray:
    """Read a file of `SELECTIONS` and return the count of each row of a set, (P,).

    Weights are rounded down or up at random, so that counts equal them on average and the total is right to within 1.

    Args:
        path: A `.npy` file of one weight for each row, or a table whose last column is one of `SELECTIONS`.
        rows: The rows of the data, with the field that names them in the table, unless that is `row`.
        used: True for rows that a table with names must contain, (P,). Others that it lacks get count 0. None for all.
        seed: Seed of the rounding.

    Raises:
        InputError: There is no such file, its format is another, or the numbers do not fit the data.
    """
    if not exists(path):
        raise InputError("weights", str(path), "there is no such file")
    what, names, values = _read_selection(path)
    if what == "indices":
        if values.size and not (values.dtype.kind in "iu" and 0 <= values.min() <= values.max() < len(rows)):
            raise InputError("indices", str(path), f"give whole numbers from 0 to {len(rows) - 1}")
        return np.bincount(values, minlength=len(rows))
    values = as_floats("weights", values)
    if not np.all(np.isfinite(values)) or values.min(initial=0.0) < 0 or values.max(initial=0.0) > LARGEST_COPIES:
        raise InputError("weights", str(path), f"give numbers from 0 to {LARGEST_COPIES:g}")
    if names is not None:
        values = _by_name(*names, values, rows, np.ones(len(rows), bool) if used is None else np.asarray(used))
    if len(values) != len(rows):
        raise InputError("weights", f"{len(values)} of them", f"the data have {len(rows)} rows; give one for each")
    if not values.sum():
        raise InputError("weights", str(path), "all are 0; give a row that is trained on")
    return rounded_weights(values, np.random.default_rng(seed))


def _read_selection(path: Path) -> tuple[str, tuple[str, list[str]] | None, np.ndarray]:
    """Return the kind of numbers in a file, the name and ids of the examples if it has any, and the numbers."""
    check_selection(path, "weights", field="--weights")
    try:
        if path.suffix == ".npy":
            found = np.load(path, allow_pickle=False)
            if found.ndim != 1 or found.dtype.kind != "f":
                remedy = "give one weight for each row; copies and indices as .csv or .parquet, which say what they are"
                raise InputError("weights", f"{found.dtype} of shape {found.shape}", remedy)
            return "weights", None, found
        table = _read_csv(path) if path.suffix == ".csv" else pa.parquet.read_table(path)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError("weights", str(path), f"cannot be read ({reason})") from None
    columns = table.column_names
    if not columns or columns[-1] not in SELECTIONS or len(columns) != (1 if columns[-1] == "indices" else 2):
        remedy = "give a name and weights or copies, or indices alone"
        raise InputError("weights", f"columns {', '.join(columns)}", remedy)
    values = table.column(columns[-1]).to_numpy()
    if values.dtype.kind not in "iuf":
        raise InputError("weights", f"column {columns[-1]}", "give numbers")
    if columns[-1] == "indices":
        return "indices", None, values
    return columns[-1], (columns[0], table.column(columns[0]).cast(pa.string()).to_pylist()), values


def _read_csv(path: Path) -> pa.Table:
    """Read a table with names as texts, whatever they look like: 007 is not 7."""
    with pa.csv.open_csv(path) as reader:
        names = {name: pa.string() for name in reader.schema.names if name not in SELECTIONS}
    return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=names))


def _by_name(
    field: str, ids: Sequence[str], values: np.ndarray, rows: Sequence[Mapping[str, Any]], used: np.ndarray
) -> np.ndarray:
    """Return the weight or count of each row of the data."""
    known = {name: place for place, name in enumerate(ids)}
    if len(known) < len(ids):
        raise InputError(field, "some twice", "every example needs its own weight")
    wanted = [
        str(place) if field == "row" and field not in row else str(row.get(field)) for place, row in enumerate(rows)
    ]
    lacking = [name for name, needed in zip(wanted, used, strict=True) if needed and name not in known]
    if lacking:
        remedy = f"it and {len(lacking) - 1} more rows of the data are not in the file of weights; give theirs"
        raise InputError(field, lacking[0], remedy)
    return np.array([values[known[name]] if name in known else 0.0 for name in wanted])
