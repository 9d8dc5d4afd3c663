"""The report: one self-contained page with the verification table, the figures, and how each was made."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from experiments import EXPERIMENTS
from experiments.experiment import Experiment, load, manifest
from figures import FIGURES, generalisation_table
from icl_theory.errors import InputError
from icl_theory.store import plain
from icl_theory.verification import Row, combine
from icl_theory.verification.table import as_json, count, error_text, measured_text, predicted_text

TEMPLATE = Path(__file__).parent / "report.html.jinja"


def rows_of(experiment: Experiment, results: Path) -> list[Row]:
    """The statements of one experiment, read off its saved data (none where it feeds no claim)."""
    if experiment.claim is None:
        return []
    single = load(experiment, results, "float32") if experiment.claim.single else None
    return combine(experiment.claim, load(experiment, results), single)


def write_report(results: Path, seconds: float) -> tuple[Path, list[Row]]:
    """Write `report/index.html` and `report/verification.json`; the page's path and all statements."""
    sections: list[dict[str, Any]] = []
    all_rows: list[Row] = []
    for experiment in EXPERIMENTS.values():
        rows = rows_of(experiment, results)
        all_rows += rows
        about = manifest(experiment, results)
        sections.append(
            {"experiment": experiment, "rows": rows, "about": about, "settings": _settings(about["config"])}
        )
    figures = [
        {"figure": figure, "svg": _data_url(results / "figures" / f"{figure.name}.svg")} for figure in FIGURES.values()
    ]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["subscripts"] = _subscripts
    page = environment.from_string(TEMPLATE.read_text()).render(
        sections=sections,
        figures=figures,
        table_headings=generalisation_table.HEADINGS,
        tables=generalisation_table.tables(load(EXPERIMENTS["generalisation"], results)),
        figure=_figure_link,
        summary=count(all_rows),
        status=lambda *ids: _status(all_rows, ids),
        failing=[row.statement.id for row in all_rows if not row.holds],
        machine=sections[0]["about"]["machine"],
        code=sections[0]["about"]["code"],
        created=max(section["about"]["created"] for section in sections),
        data_seconds=sum(section["about"]["seconds"] for section in sections),
        seconds=seconds,
        predicted=predicted_text,
        measured=measured_text,
        error=error_text,
    )
    path = results / "report" / "index.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page)
        (path.parent / "verification.json").write_text(as_json(all_rows))
    except OSError as error:
        raise InputError("report", str(path), f"cannot be written ({error.strerror})") from error
    return path, all_rows


def _subscripts(text: str) -> Markup:
    """`t_2` with a lowered 2, everything else escaped."""
    return Markup(re.sub(r"(?<=[^\W_])_([A-Za-z0-9]+)", r"<sub>\1</sub>", str(escape(text))))


def _status(rows: list[Row], ids: tuple[str, ...]) -> str:
    """Whether all of these statements hold, in a word."""
    chosen = [row for row in rows if row.statement.id in ids]
    assert len(chosen) == len(ids), f"no such statements: {ids}"
    return "holds" if all(row.holds for row in chosen) else "does not hold"


def _figure_link(name: str) -> Markup:
    """`figure n`, n its place in the report, with a link to it."""
    return Markup('<a href="#{0}" title="{2}">figure {1}</a>').format(
        name, list(FIGURES).index(name) + 1, FIGURES[name].title
    )


def _data_url(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _settings(config: dict[str, Any]) -> str:
    return json.dumps(plain(config), ensure_ascii=False, indent=1)
