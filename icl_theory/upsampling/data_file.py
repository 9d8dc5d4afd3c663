"""A fine-tuning set on disk: what a pass over it finds, and what every kind of file can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from icl_theory.errors import InputError

LINES = (".jsonl", ".ndjson", ".json")
TABLES = (".csv", ".tsv")
FORMS = (*LINES, *TABLES, *(f"{suffix}.gz" for suffix in (*LINES, *TABLES)), ".parquet")

Progress = Callable[[int, int], None]


Versions = Callable[[int], list[dict[str, Any]]]  # of a row number: the changed fields of each version


class Scan(NamedTuple):
    """Ids, fields and number of rows, found in one pass over a data file.

    Attributes:
        num_rows: Number of rows P.
        ids: The ids as texts, (P,), or None if no field holds them.
        id_field: The field that holds the ids, or None.
        fields: The fields of all rows, in the order of first occurrence.
    """

    num_rows: int
    ids: pa.Array | None
    id_field: str | None
    fields: tuple[str, ...]


@runtime_checkable
class DataFile(Protocol):
    """A fine-tuning set on disk."""

    path: Path

    @property
    def files(self) -> list[Path]:
        """The files that hold the rows, in order."""

    def scan(self, id_field: str | None, *, with_ids: bool = True, progress: Progress | None = None) -> Scan:
        """Check every row and read the ids, if wanted, from `id_field` (default `id`, if the first row has it)."""

    def rows(self, wanted: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        """Yield rows as dictionaries, in order: all, or those whose numbers are in `wanted` (ascending)."""

    def write(
        self, out: Path, copies: np.ndarray, versions: Versions | None = None, progress: Progress | None = None
    ) -> None:
        """Write row p `copies[p]` times, in the order and the form of the input.

        With `versions`, the copies of a row cycle through the original and its versions.
        """


def form_of(path: Path) -> str:
    """Return the form that a name ends in, or an empty text.

    Examples:
        >>> form_of(Path("train.v2.jsonl.gz"))
        '.jsonl.gz'
        >>> form_of(Path("train.txt"))
        ''
    """
    packed = ".gz" if path.name.endswith(".gz") else ""
    form = Path(path.name.removesuffix(packed)).suffix + packed
    return form if form in FORMS else ""


def check_form(path: Path, out: Path) -> None:
    """Raise `InputError` unless `out` has a name that ends in the form of the data."""
    form = form_of(path)
    if form_of(out) != form or not out.name:
        remedy = f"end it in {form}" if form else "DATA is a folder, so give the name of a new one"
        raise InputError("--out", str(out), f"the set keeps the form of DATA; {remedy}")


def check_outside(path: Path, out: Path) -> None:
    """Raise `InputError` if `out` is in the folder of the data, where it would be taken for data."""
    if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        raise InputError("--out", str(out), f"it is in the folder of the data, {path}; give a place outside")


def check_unchanged(path: Path, count: int, expected: int) -> None:
    if count != expected:
        raise InputError(
            "data", str(path), f"it had {expected} rows and now has {count}; leave it alone until this ends"
        )


def places(data: DataFile, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each file of a set with its place in a copy at `out`, and make the folders between."""
    for file in data.files:
        place = out / file.relative_to(data.path) if data.path.is_dir() else out
        place.parent.mkdir(parents=True, exist_ok=True)
        yield file, place


def first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
