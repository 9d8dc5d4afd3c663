"""Weights, row numbers or counts of an upsampling as files, for trainers that sample instead of reading copies.

    weights   κ or 1 for each example, in the order of the data, not rounded
    indices   the upsampled set as row numbers from 0, in order, a row as often as it occurs
    copies    how often each example occurs

`.npy` holds the numbers alone; `.csv` and `.parquet` have a column of that name, and for weights and copies one of the ids
before it, under the name of their field (`row` where there are none).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from icl_theory.errors import InputError
from icl_theory.finetuning.data_files import Scan
from icl_theory.finetuning.record_files import plain_ids
from icl_theory.finetuning.rule import Upsampling
from icl_theory.store import writing

SELECTIONS = ("weights", "indices", "copies")
SUFFIXES = (".npy", ".csv", ".parquet")


def check_selection(path: Path, what: str) -> None:
    """Raise `InputError` unless the suffix is one of those."""
    if path.suffix not in SUFFIXES:
        raise InputError("--out", str(path), f"{what} go into a file that ends in {', '.join(SUFFIXES)}")


def save_selection(path: Path, what: str, found: Upsampling, copies: np.ndarray, scan: Scan) -> None:
    """Write one of `SELECTIONS`; complete or not at all.

    Args:
        path: new; the suffix says the form.
        what: which.
        found: from `upsample`.
        copies: how often each example occurs, (P,).
        scan: of the data: its ids, or none for row numbers.

    Raises:
        InputError: the file exists, cannot be written, or has another suffix.
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
