"""Rendering of the pages from their templates."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from figures import generalisation_table
from figures.report import studies
from figures.report.effects import factor
from figures.report.material import LEAD, Material, saved_studies
from figures.report.svg import inline
from figures.report.verdicts import TONES, verdicts
from icl_theory.results import plain
from icl_theory.verification import Row
from icl_theory.verification.table import count, error_text, measured_text, predicted_text

TEMPLATES = Path(__file__).parent / "templates"
PAGES = {  # file and title
    "index.html": "What linear attention learns first: the report",
    "statements.html": "All statements",
    "comparisons.html": "Generalisation: the methods side by side",
    "made.html": "How it was made",
}


HEADINGS = {  # short headings of the other results; a figure without one has its title
    "loss_plateaus": "Order and plateaus",
    "feature_strengths": "Feature strengths",
    "random_starts": "Random starts, one by one",
    "merged_model": "Merged keys and queries",
    "phase_diagram": "Phase diagram and step size",
    "sam_by_data": "Upsampling in SAM's place",
    "generalisation_map": "Generalisation, every setting",
    "low_rank": "Heads of rank R",
    "principal_components": "Regression on principal components",
    "context_lengths": "Context lengths",
    "in_weight_learning": "In context or in weights",
    "softmax": "Softmax attention",
    "weights": "What the flow conserves",
    "many_features": "Thirty-two features",
    "adaptive_optimizers": "Adam, Muon and batch size",
    "language_models_details": "The smallest decoder, by kind of problem",
    "batch_sizes": "A small decoder, by batch size and optimizer",
}


def pages(material: Material) -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"subscripts": subscripts, "breakable": breakable, "panels": panels}
    environment.globals |= _words(material)
    texts = {name: environment.get_template(f"{name}.jinja").render(page=name) for name in PAGES}
    return {name: _polished(name, text) for name, text in texts.items()}


def _polished(name: str, text: str) -> str:
    """Keep marks with the word before them, and make links of a page to itself independent of its name."""
    return re.sub(r'\s+(?=<span class="checks">)', "\u00a0", text).replace(f'href="{name}#', 'href="#')


def _words(material: Material) -> dict[str, Any]:
    """Return what templates can name."""
    rows = {row.statement.name: row for row in material.rows}
    place = {group.claim.name: group for group in material.groups}
    claim_d = material.studies_figure
    return {
        "pages": PAGES,
        "style": Markup((TEMPLATES / "style.css").read_text()),
        "script": Markup((TEMPLATES / "page.js").read_text()),
        "groups": material.groups,
        "group": place,
        "first": material.groups[0].about,
        "created": max(group.about["created"] for group in material.groups),
        "data_seconds": sum(group.about["seconds"] for group in material.groups),
        "seconds": material.seconds,
        "commit": material.commit,
        "settings": lambda about: json.dumps(plain(about["config"]), ensure_ascii=False, indent=1),
        "pictures": material.pictures,
        "headings": HEADINGS,
        "others": [name for name in material.pictures if name not in (*LEAD, claim_d)],
        "claim_d_figure": claim_d,
        "drawing": lambda name: inline(material.pictures[name].svg, name, material.pictures[name].spec.title),
        "saved_studies": saved_studies,
        "explorer": Markup(material.explorer),
        "verdicts": verdicts(material.rows, material.features, material.studies, claim_d),
        "tones": TONES,
        "gains": (gains := studies.table(material.studies)),
        "column": lambda heading: studies.column(gains, heading),
        "halved": studies.half_the_steps(material.studies),
        "gain_headings": list(studies.COMPARED),
        "tables": material.tables,
        "table_headings": generalisation_table.HEADINGS,
        "summary": count(material.rows),
        "failing": [row for row in material.rows if not row.holds],
        "after": [row.statement for row in material.rows if row.statement.after_measurement],
        "factor": lambda name: subscripts(str(factor(rows[name].statement))),
        "check": lambda *names: checks([rows[name] for name in names]),
        "figure": lambda name: figure_link(material, name),
        "predicted": predicted_text,
        "measured": measured_text,
        "error": error_text,
    }


def subscripts(text: str) -> Markup:
    """Return text with subscripts, such as the 2 of `t_2`, and numbers kept on one line with their signs and units."""
    text = re.sub(r"(?<=\d) (?=[M%±])|(?<=[×±≥]) (?=\d)| (?=≥)", "\u00a0", str(escape(text)))
    return Markup(re.sub(r"(?<=[^\W_])_([A-Za-z0-9]+)", r"<sub>\1</sub>", text))


def breakable(name: str) -> Markup:
    """Return a name that may be broken after its dots or, where it has none, after underscores."""
    mark = "." if "." in name else "_"
    return Markup("{}<wbr>").format(mark).join(name.split(mark))


def panels(caption: str) -> Markup:
    """Return a caption with subscripts, and the letters of its panels (`a: …; b, c: …`) in bold."""
    return Markup(re.sub(r"(^|[.;] )([a-h](?:(?:,| and| to) [a-h])*):", r"\1<b>\2:</b>", str(subscripts(caption))))


def checks(rows: list[Row]) -> Markup:
    """Return a mark for each statement that says whether it holds and leads to it."""
    marks = [
        Markup('<a class="{}" href="statements.html#{}" title="{}" aria-label="{}: {}">{}</a>').format(
            "yes" if row.holds else "no",
            row.statement.name,
            row.statement.text,
            "holds" if row.holds else "does not hold",
            row.statement.text,
            "✓" if row.holds else "✗",
        )
        for row in rows
    ]
    return Markup('<span class="checks">{}</span>').format(Markup("").join(marks))


def figure_link(material: Material, name: str) -> Markup:
    """Return a link to a figure on the page as `figure n`."""
    picture = material.pictures[name]
    return Markup('<a href="index.html#figure-{}" title="{}">figure {}</a>').format(
        name, picture.spec.title, picture.number
    )
