"""Figures of the benchmark on disk: saved after each row, resumed, and set aside if of another version or machine."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmarks.row import Row
from icl_theory.environment import code_version, machine
from icl_theory.errors import InputError
from icl_theory.results import exists, first_difference

RELEASE = Path(__file__).parent / "release.json"


class Place(NamedTuple):
    """A part of the benchmark in one precision; unless complete, it is measured again from its start."""

    part: str
    precision: str


class Results:
    """Figures by part and precision.

    Attributes:
        about: version of the code, machine, and whether the run was quick.
        rows: rows of each place, in the order in which they were measured.
        complete: places that were measured to their end.
    """

    def __init__(self, about: dict[str, Any]):
        self.about = about
        self.rows: dict[Place, list[Row]] = {}
        self.complete: set[Place] = set()

    def find(self, place: Place, row: Row) -> float | None:
        """Return the value of the same figure here, or None."""
        same = (one.value for one in self.rows.get(place, ()) if one[:2] == row[:2] and one.unit == row.unit)
        return next(same, None)

    def save(self, path: Path) -> None:
        """Write the file in one step; an older file stays whole until then.

        Raises:
            InputError: the file cannot be written.
        """
        rows = [
            {**place._asdict(), **row._asdict(), "verdict": row.verdict}
            for place, rows in self.rows.items()
            for row in rows
        ]
        saved = {**self.about, "complete": sorted(self.complete), "rows": rows}
        partial = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n")
            partial.replace(path)
        except OSError as error:
            raise InputError("--out", str(path), f"cannot be written ({error.strerror}); give another") from None

    def release(self, path: Path) -> None:
        """Save the figures as those of the last release, without the platform, which says nothing about speed."""
        kept = Results(self.about | {"machine": {k: v for k, v in self.about["machine"].items() if k != "platform"}})
        kept.rows, kept.complete = self.rows, self.complete
        kept.save(path)


def read(path: Path, field: str) -> Results | None:
    """Read a file that `save` wrote; None where there is no file.

    Raises:
        InputError: the file is damaged or of another kind; the error names `field`.
    """
    if not exists(path):
        return None
    try:
        saved = json.loads(path.read_text())
        results = Results({name: saved[name] for name in ("code", "machine", "quick")})
        results.complete = {Place(*place) for place in saved["complete"]}
        for row in saved["rows"]:
            figure = Row(**{name: row[name] for name in Row._fields})
            if figure.verdict != row["verdict"]:
                raise ValueError("a figure was changed")
            results.rows.setdefault(Place(row["part"], row["precision"]), []).append(figure)
        if not results.complete <= results.rows.keys():
            raise ValueError("rows are missing")
    except OSError as error:
        raise InputError(field, str(path), f"cannot be read ({error.strerror}); give another") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        remedy = "it holds no figures of this benchmark, or is damaged; remove it or give another"
        raise InputError(field, str(path), remedy) from None
    return results


def about(quick: bool) -> dict[str, Any]:
    """Describe this code, machine and mode; only figures with the same description are resumed."""
    try:
        torch = {"torch": version("torch")}
    except PackageNotFoundError:
        torch = {}
    return {"code": code_version(Path(__file__).parent), "machine": machine() | torch, "quick": quick}


def open_results(path: Path, now: dict[str, Any], *, fresh: bool) -> tuple[Results, str]:
    """Return saved results to resume, or new ones where none fit, and a line about results that were set aside.

    Raises:
        InputError: the file is damaged or of another kind, or cannot be written.
    """
    results, said = read(path, "--out"), ""
    if results is not None:
        difference = first_difference(results.about, now, "setting")
        if fresh or difference:
            why = difference or "--fresh"
            results, said = None, f"{path} is set aside as {set_aside(path)} ({why}); everything is measured again"
    results = results or Results(now)
    results.save(path)
    return results, said


def set_aside(path: Path) -> Path:
    """Rename the file to the first free `NAME.old-1`, `NAME.old-2`, …"""
    number = 1
    while (target := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    return path.rename(target)
