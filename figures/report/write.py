"""Writing of the report into the results folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from figures.report.material import read_material
from figures.report.pages import pages
from icl_theory.errors import InputError
from icl_theory.verification import Row
from icl_theory.verification.table import as_json


def write_report(results: Path, seconds: float) -> tuple[Path, list[Row]]:
    """Write the pages, `verification.json` and copies of the figures to the folder `report`.

    Args:
        results: folder with complete data and all figures.
        seconds: seconds that the reproduction took so far.

    Returns:
        Path of `index.html`, and all statements.

    Raises:
        InputError: data or a figure are missing, or a file cannot be written.
    """
    material = read_material(results, seconds)
    files = pages(material) | {"verification.json": as_json(material.rows)}
    folder = results / "report"
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        for name, picture in material.pictures.items():
            for suffix in picture.formats:
                shutil.copyfile(results / "figures" / f"{name}.{suffix}", folder / "figures" / f"{name}.{suffix}")
    except OSError as error:
        raise InputError("report", str(folder), f"cannot be written ({error.strerror})") from error
    return folder / "index.html", material.rows
