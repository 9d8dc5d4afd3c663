"""Saved data of claims: made if they are missing, reused if they are complete.

`results/NAME/data_float64.zarr` opens with `xarray.open_zarr`. Its attributes and the manifest of the folder record the
settings, the code version and the machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from icl_theory.environment import code_version
from icl_theory.errors import InputError
from icl_theory.results import check_place, is_complete, plain, read_manifest, write_result
from icl_theory.verification.claim import Claim

RESULTS = Path("results")
REMEDY = "run `make fresh` (it sets older results aside), or remove that folder"


def make(claim: Claim, results: Path, progress: Callable[[str, int, int], None]) -> bool:
    """Measure a claim and save its data, unless they are complete; return whether they were made now.

    Raises:
        InputError: the folder is incomplete, or belongs to another version or other settings.
    """
    folder, code = results / claim.name, code_version()
    if is_complete(folder, config=claim.settings, code=code, remedy=REMEDY):
        return False
    check_place(folder)
    began = time.monotonic()
    measured: dict[str, xr.Dataset] = {}
    for precision in claim.precisions():
        data = claim.data(precision, partial(progress, f"{claim.name} ({precision})"))
        settings = json.dumps(plain(claim.settings), ensure_ascii=False)
        about = {"title": claim.title, "question": claim.question, "settings": settings, "code": code}
        measured[precision] = data.assign_attrs(about, precision=precision)

    def write(partial_folder: Path) -> None:
        for precision, data in measured.items():
            data.to_zarr(partial_folder / f"data_{precision}.zarr", zarr_format=2, consolidated=True)

    seconds = time.monotonic() - began
    write_result(folder, write, config=claim.settings, code=code, seconds=seconds, name=claim.name)
    return True


def load(claim: Claim, results: Path, precision: str = "float64") -> xr.Dataset:
    """Load the saved data of a claim in one precision.

    Raises:
        InputError: there are no data (the message gives the command that makes them), or they are damaged.
    """
    folder = results / claim.name
    if not is_complete(folder, config=claim.settings, code=code_version(), remedy=REMEDY):
        where = "" if results == RESULTS else f" --results {results}"
        raise InputError("data", str(folder), f"not made yet; run `{claim.command}{where}`")
    return xr.open_zarr(folder / f"data_{precision}.zarr").load()


def load_all(claim: Claim, results: Path) -> list[xr.Dataset]:
    """Load the saved data of a claim in every precision in which it is measured; the first one decides."""
    return [load(claim, results, precision) for precision in claim.precisions()]


def manifest(claim: Claim, results: Path) -> dict[str, Any]:
    """Return the record of when, where and with which settings the data were made."""
    return read_manifest(results / claim.name, remedy=REMEDY)
