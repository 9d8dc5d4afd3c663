"""The source of each row of a fine-tuning set, read from one of its fields."""

from __future__ import annotations

import pyarrow as pa

from icl_theory.errors import InputError
from icl_theory.upsampling.data_file import DataFile, Progress, Scan
from icl_theory.upsampling.row_fields import has, names_in


def read_sources(data: DataFile, field: str, scan: Scan, progress: Progress) -> pa.Array:
    """Return the sources of the rows as texts, (P,).

    Raises:
        InputError: The data have no such field, a row lacks it, or a value is neither text, number nor truth value.
    """
    if field not in scan.fields:
        raise InputError("--by", field, f"the data have no such field; theirs are {names_in(scan.fields)}")
    found, lacking = [], []
    for place, row in enumerate(data.rows()):
        if not has(row, field):
            lacking.append(place)
        elif not isinstance(row[field], str | int | float):
            raise InputError("--by", field, f"in row {place} (from 0) it is no text or number; name a field of these")
        else:
            found.append(str(row[field]))
        if place % 1000 == 0:
            progress(place, scan.num_rows)
    if lacking:
        remedy = f"{len(lacking)} of {scan.num_rows} rows do not say it; fill it in or leave them out"
        raise InputError("--by", field, f"row {lacking[0]} (from 0) lacks it; {remedy}")
    return pa.array(found, pa.large_string())
