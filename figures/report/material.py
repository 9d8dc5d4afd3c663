"""All that the pages show, read from the results folder and from the saved studies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from figures import FIGURES, explorer, generalisation_table
from figures.figure import FORMATS, FigureSpec
from figures.report.studies import FILES, ROOT, Studies, load_studies
from figures.report.verdicts import RATIOS
from icl_theory.environment import commit
from icl_theory.errors import InputError
from icl_theory.verification import Row, all_claims, rows_of
from icl_theory.verification.changes import worst_of
from icl_theory.verification.claim import Claim
from icl_theory.verification.saved import load_all, manifest

LEAD = ("overview", "schematic", "simplicity_bias", "generalisation", "upsampling")  # figures of the story, in order
STUDIES = "experiments/language_models"  # the first figure drawn from here shows claim D


class Group(NamedTuple):
    """A claim of the verification table with its judged statements and the manifest of its data."""

    claim: Claim
    rows: list[Row]
    about: dict[str, Any]


class Picture(NamedTuple):
    """A figure with its place on the page, the text of its SVG, and the formats in which it is drawn."""

    spec: FigureSpec
    number: int
    svg: str
    formats: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Material:
    """All that the pages show.

    Attributes:
        groups: claims in the order of the verification table.
        pictures: figures by name, in the order of the page.
        features: the feature whose ratio changes least, for each statement of `RATIOS`.
        studies: the saved studies of language models.
        tables: comparisons of methods on held-out loss.
        seconds: seconds that this reproduction took so far.
        explorer: interactive explorer as HTML.
        commit: git commit of the sources; empty outside a checkout.
    """

    groups: list[Group]
    pictures: dict[str, Picture]
    features: Mapping[str, int]
    studies: Studies
    tables: list[generalisation_table.Table]
    seconds: float
    explorer: str
    commit: str = ""

    @property
    def rows(self) -> list[Row]:
        """All statements, in the order of the table."""
        return [row for group in self.groups for row in group.rows]

    @property
    def studies_figure(self) -> str:
        """Name of the figure that shows claim D."""
        return next(name for name, picture in self.pictures.items() if picture.spec.saved.startswith(STUDIES))


def read_material(results: Path, seconds: float) -> Material:
    """Read claims, figures and studies.

    Raises:
        InputError: data or a figure are missing, or belong to another version.
    """
    groups: list[Group] = []
    features: dict[str, int] = {}
    for claim in all_claims():
        data = load_all(claim, results)
        groups.append(Group(claim, rows_of(claim, *data), manifest(claim, results)))
        features |= {
            name: least_changed(claim, data[0], name) for name in RATIOS if name.partition("/")[0] == claim.name
        }
        if claim.name == "generalisation":
            tables, fragment = generalisation_table.tables(data[0]), explorer.fragment(data[0])
    pictures = {
        spec.name: _picture(spec, number, results / "figures") for number, spec in enumerate(page_order(), start=1)
    }
    return Material(groups, pictures, features, load_studies(), tables, seconds, fragment, commit())


def page_order() -> list[FigureSpec]:
    """Return the figures in the order of the page: those of the story, then the others."""
    studies = next(name for name, spec in FIGURES.items() if spec.saved.startswith(STUDIES))
    lead = [name for name in (*LEAD, studies) if name in FIGURES]
    return [FIGURES[name] for name in dict.fromkeys([*lead, *FIGURES])]


def least_changed(claim: Claim, data: xr.Dataset, name: str) -> int:
    """Return the feature whose ratio changes least: the one that the statement is judged by."""
    (entry,) = (entry for entry in claim.statements if name == f"{claim.name}/{entry.name}")
    changes = entry.read(data)
    return RATIOS[name][changes.index(worst_of(changes, upper=True))]


def saved_studies(spec: FigureSpec) -> dict[str, dict[str, Any]]:
    """Return what a figure's saved measurements say of themselves, such as `command` and `date`, by file name."""
    path = ROOT / spec.saved
    paths = [path] if path.is_file() else [path / f"{name}.json" for name in FILES]
    return {each.name: json.loads(each.read_text()) for each in paths} if spec.saved else {}


def _picture(spec: FigureSpec, number: int, folder: Path) -> Picture:
    path = folder / f"{spec.name}.svg"
    if not path.is_file():
        raise InputError("figure", str(path), f"not drawn yet; run `{spec.command}`")
    formats = tuple(suffix for suffix in FORMATS if path.with_suffix(f".{suffix}").is_file())
    return Picture(spec, number, path.read_text(), formats)
