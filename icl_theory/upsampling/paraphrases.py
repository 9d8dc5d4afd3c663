"""Tables of paraphrases by example id, which replace copies of an example (augmenting; theory notes, §8)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from icl_theory.errors import InputError
from icl_theory.upsampling.csv_data import CsvData
from icl_theory.upsampling.data_file import Scan
from icl_theory.upsampling.data_files import open_data
from icl_theory.upsampling.loss_record import check_unique


class Paraphrases:
    """Paraphrases that replace further copies of some rows.

    The table is of any form that `open_data` reads. Each row names its example, by the data's id field, or by a field
    `id` with the row number if the data have no ids. Its other fields replace those of the original; a null keeps the
    original, and so does an empty value of a CSV table. An example may have any number of rows.

    Args:
        path: Path of the table.
        scan: The scan of the data.
        chosen: True for the rows of the data to be upsampled, (P,). Paraphrases of others are dropped.

    Raises:
        InputError: `open_data` refuses the table, a row has no id or that of no example, or the rows share no field
            with the data.
    """

    def __init__(self, path: Path, scan: Scan, chosen: np.ndarray):
        field = scan.id_field or "id"
        try:
            table = open_data(path)
            found = table.scan(field)
        except InputError as error:
            raise InputError("--augment", str(error.value), error.remedy) from None
        assert found.ids is not None
        if scan.ids is not None:
            check_unique(f"field {field}", scan.ids)
        data_ids = scan.ids if scan.ids is not None else pa.array(map(str, range(scan.num_rows)), pa.large_string())
        rows = pc.index_in(found.ids, value_set=data_ids)
        if rows.null_count:
            first = int(np.argmax(rows.is_null().to_numpy(zero_copy_only=False)))
            where = f"it and {rows.null_count - 1} more of {found.num_rows} are no examples of the data"
            raise InputError("--augment: id", found.ids[first].as_py(), f"{where}; every row names one of them")
        wanted = set(scan.fields) - {field}
        missing = (None, "") if isinstance(table, CsvData) else (None,)
        seen: dict[str, None] = {}  # an ordered set
        self._of: dict[int, list[bytes]] = {}
        for example, row in zip(rows.to_pylist(), table.rows(), strict=True):
            given = {name: value for name, value in row.items() if value not in missing and name != field}
            seen |= dict.fromkeys(given)
            kept = {name: value for name, value in given.items() if name in wanted}
            if kept and chosen[example]:
                self._of.setdefault(example, []).append(json.dumps(kept, default=str).encode())
        self.fields = [name for name in seen if name in wanted]
        self.ignored = [name for name in seen if name not in wanted]
        if not self.fields:
            fields = ", ".join(scan.fields)
            raise InputError("--augment", str(path), f"its rows have none of the fields of the data ({fields})")

    def __call__(self, example: int) -> list[dict[str, Any]]:
        """Return the replaced fields of each paraphrase of an example, in the order of the table."""
        return [json.loads(text) for text in self._of.get(example, ())]

    def lacking(self, copies: np.ndarray) -> int:
        """Return the number of repeated rows that have fewer paraphrases than copies beyond the first."""
        repeated = np.flatnonzero(copies > 1)
        return sum(len(self._of.get(int(row), ())) < int(copies[row]) - 1 for row in repeated)
