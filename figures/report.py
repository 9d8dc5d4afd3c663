"""The report: one self-contained page with the verification table, the figures, and how each was made."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from figures import FIGURES, generalisation_table
from icl_theory.errors import InputError
from icl_theory.results import plain
from icl_theory.verification import Row, all_claims, load_claim, rows_of
from icl_theory.verification.saved import load, load_all, manifest
from icl_theory.verification.table import as_json, count, error_text, measured_text, predicted_text

TEMPLATE = Path(__file__).parent / "report.html.jinja"


def write_report(results: Path, seconds: float) -> tuple[Path, list[Row]]:
    """Write `report/index.html` and `report/verification.json`; return the page's path and all statements."""
    sections: list[dict[str, Any]] = []
    all_rows: list[Row] = []
    for claim in all_claims():
        rows = rows_of(claim, *load_all(claim, results))
        all_rows += rows
        about = manifest(claim, results)
        sections.append({"claim": claim, "rows": rows, "about": about, "settings": _settings(about["config"])})
    figures = [
        {"figure": figure, "svg": _data_url(results / "figures" / f"{figure.name}.svg")} for figure in FIGURES.values()
    ]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"subscripts": _subscripts, "breakable": _breakable}
    page = environment.from_string(TEMPLATE.read_text()).render(
        sections=sections,
        figures=figures,
        table_headings=generalisation_table.HEADINGS,
        tables=generalisation_table.tables(load(load_claim("generalisation"), results)),
        figure=_figure_link,
        summary=count(all_rows),
        status=lambda *names: _status(all_rows, names),
        failing=[row.statement.name for row in all_rows if not row.holds],
        after=[row.statement for row in all_rows if row.statement.after_measurement],
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
    """Return text with subscripts, such as the 2 of `t_2`, and everything else escaped."""
    return Markup(re.sub(r"(?<=[^\W_])_([A-Za-z0-9]+)", r"<sub>\1</sub>", str(escape(text))))


def _breakable(name: str) -> Markup:
    """Return a name that may be broken after any underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _status(rows: list[Row], names: tuple[str, ...]) -> Markup:
    """Return `holds` if all of these statements hold, else `does not hold`, with a numbered link to each."""
    by_name = {row.statement.name: row for row in rows}
    chosen = [by_name[name] for name in names]
    links = [
        Markup('<a href="#{}" title="{}">{}</a>').format(row.statement.name, row.statement.text, place)
        for place, row in enumerate(chosen, start=1)
    ]
    word = "holds" if all(row.holds for row in chosen) else "does not hold"
    return Markup("{}<sup>{}</sup>").format(word, Markup(" ").join(links))


def _figure_link(name: str) -> Markup:
    """Return a link to a figure as `figure n`, where n is its place in the report."""
    return Markup('<a href="#{0}" title="{2}">figure {1}</a>').format(
        name, list(FIGURES).index(name) + 1, FIGURES[name].title
    )


def _data_url(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _settings(config: dict[str, Any]) -> str:
    return json.dumps(plain(config), ensure_ascii=False, indent=1)
