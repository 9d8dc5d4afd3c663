"""Cells of the benchmark of full-size steps: a file that is saved after each, and goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.benchmarks.fine_tuning import Case, Measured
from experiments.benchmarks.results import set_aside
from icl_theory.errors import InputError
from icl_theory.results import exists, first_difference

ABOUT, CELLS = "about", "cells"


class Cells:
    """Measured cells, by case.

    Args:
        path: file of the cells; one of other code, machine or sizes is set aside.
        about: what all cells have in common; only cells with the same description are kept.

    Attributes:
        found: what was measured of each case, or the reason why it could not be.
        said: a line about a file that was set aside; empty if none was.

    Raises:
        InputError: the file is damaged or of another kind.
    """

    def __init__(self, path: Path, about: dict[str, Any]):
        self.path, self.about, self.said = path, about, ""
        self.found: dict[Case, Measured | str] = {}
        if not exists(path):
            return
        try:
            saved = json.loads(path.read_text())
            difference = first_difference(saved[ABOUT], about, "setting")
            cells = [_cell(one) for one in saved[CELLS]]
        except OSError as error:
            raise InputError("--out", str(path), f"cannot be read ({error.strerror}); give another") from None
        except (ValueError, KeyError, TypeError):
            raise InputError("--out", str(path), "it holds no cells of this benchmark; give another") from None
        if difference:
            self.said = f"{path} is set aside as {set_aside(path)} ({difference})"
        else:
            self.found = dict(cells)

    def add(self, case: Case, measured: Measured | str, shown: list[dict[str, Any]]) -> None:
        """Save another cell, and the figures shown so far beside the cells.

        Raises:
            InputError: the file cannot be written.
        """
        self.found[case] = measured
        cells = [
            case._asdict() | ({"failed": one} if isinstance(one, str) else {"measured": one._asdict() | {"case": None}})
            for case, one in self.found.items()
        ]
        part = self.path.with_name(self.path.name + ".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({ABOUT: self.about, CELLS: cells, "rows": shown}, indent=1) + "\n")
            part.replace(self.path)
        except OSError as error:
            raise InputError("--out", str(self.path), f"cannot be written ({error.strerror}); give another") from None

    @property
    def measured(self) -> list[Measured]:
        """Return what was measured, without the cells that failed."""
        return [one for one in self.found.values() if isinstance(one, Measured)]


def _cell(saved: dict[str, Any]) -> tuple[Case, Measured | str]:
    case = Case(*(saved[name] for name in Case._fields))
    if "failed" in saved:
        return case, str(saved["failed"])
    numbers = saved["measured"] | {"case": case, "quartiles": tuple(saved["measured"]["quartiles"])}
    return case, Measured(**numbers)
