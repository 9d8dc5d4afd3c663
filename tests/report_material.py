"""A report of made-up figures and of the numbers that the page of results has, for tests."""

import math
import re
from pathlib import Path

import numpy as np

from figures import explorer, generalisation_table
from figures.report import material
from figures.report.studies import load_studies
from figures.report.verdicts import RATIOS
from icl_theory.verification import Row, all_claims
from icl_theory.verification.statements import Statement

RESULTS = (Path(__file__).parents[1] / "icl_theory" / "verification" / "RESULTS.md").read_text()
LEAST_CHANGED = dict(zip(RATIOS, (2, 3), strict=True))
SAM_RATIO, LATE_RATIO = RATIOS
MERGED = "sam_simplicity_bias/merged_bias_does_not_fall"
SAM_HALF, SAM_STEPS = "generalisation/sam_is_ahead_half_way", "generalisation/sam_is_behind_at_equal_steps"
LATE_HALF, LATE_END = (
    "generalisation/upsampling_late_is_ahead_half_way",
    "generalisation/upsampling_late_hurts_at_the_end",
)


def numbers(text):
    return [float(number) for number in re.findall(r"[+-]?\d+(?:\.\d+)?(?:e-?\d+)?", text.replace("−", "-"))]


def saved_rows():
    """All statements with the numbers that the page of results has, to four digits."""
    rows = []
    for claim in all_claims():
        section = RESULTS.partition(f"## {claim.name}: ")[2].partition("\n## ")[0]
        for entry in claim.statements:
            (cell,) = re.findall(rf"^\| `{entry.name}`<br>.*?\| [^|]* \| ([^|]*) \|", section, re.MULTILINE)
            found = numbers(cell) if "∞" not in cell else [math.inf]
            rows.append(
                Row(
                    Statement(
                        name=f"{claim.name}/{entry.name}",
                        text=entry.text,
                        source="notes §1",
                        predictor="icl_theory.theory.hitting_time.hitting_time",
                        relation="≤",
                        predicted=0.0,
                        measured=found[0],
                        error=0.0,
                        unit="excess",
                        tolerance=0.0,
                        interval=tuple(found[1:3]) if len(found) == 3 else None,
                        figure=entry.about.get("figure", ""),
                        after_measurement=entry.about.get("after_measurement", ""),
                    )
                )
            )
    return rows


ROWS = saved_rows()
SAVED_STUDIES = load_studies()


def drawing(size):
    """An SVG file of this size like those of matplotlib: the same ids in each, more digits than can be seen."""
    values = np.random.default_rng(0).uniform(0.0, 400.0, (size // 24, 2))
    path = "\n".join(f"L {x:.6f} {y:.6f} " for x, y in values)
    return f"""<?xml version="1.0"?>
<svg width="489.6pt" height="194.4pt" viewBox="0 0 489.6 194.4"><metadata>who</metadata><defs>
<style>*{{stroke-linecap: butt}}</style></defs><g id="figure_1"><defs><path id="m1" d="M 0 0"/><clipPath id="p1">
</clipPath></defs><path d="M 1 1 {path}" clip-path="url(#p1)"/><use xlink:href="#m1"/></g></svg>"""


def made(rows=ROWS, size=2000):
    machine = dict.fromkeys(("python", "platform", "device", "jax", "flax", "optax", "diffrax", "numpy"), "1.0")
    about = {"config": {"seed": 1}, "code": "0.0+abc", "seconds": 2.0, "created": "2026-01-01", "machine": machine}
    machine["cpus"] = 2
    cells = [generalisation_table.Cell("−1", clear=True, interval="[−2, −1]")] * len(generalisation_table.HEADINGS)
    groups = [
        material.Group(claim, [row for row in rows if row.statement.name.startswith(f"{claim.name}/")], about)
        for claim in all_claims()
    ]
    pictures = {
        spec.name: material.Picture(spec, number, drawing(size), ("png", "svg", "pdf"))
        for number, spec in enumerate(material.page_order(), start=1)
    }
    tables = [generalisation_table.Table("One group", [cells])]
    return material.Material(groups, pictures, LEAST_CHANGED, SAVED_STUDIES, tables, 3.0, explorer=explorer.fragment())
