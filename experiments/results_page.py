"""The page of results, `icl_theory/verification/RESULTS.md`, written from the statements of a reproduction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from icl_theory.verification import NAMES, Row
from icl_theory.verification.statements import Statement
from icl_theory.verification.table import count, error_text, measured_text, predicted_text, verdict

PAGE = Path(__file__).parents[1] / "icl_theory" / "verification" / "RESULTS.md"
NEGATIVE = {  # findings against a claim of the paper, or against a rule derived here, with their statements
    "Claim A does not extend to merged keys and queries: SAM delays the one drop and changes little else.": (
        "sam_simplicity_bias/merged_bias_does_not_fall",
        "sam_simplicity_bias/merged_bias_hardly_changes",
    ),
    "SAM learns the slow features later in absolute time, not sooner.": (
        "sam_simplicity_bias/slow_features_are_learned_later",
    ),
    "SAM hardly improves generalisation at equal training loss, and is behind at equal steps and at equal gradient "
    "evaluations. It leaves more runs without a feature.": (
        "generalisation/sam_changes_little_at_matched_loss",
        "generalisation/sam_is_behind_at_equal_steps",
        "generalisation/sam_is_a_tenth_behind_at_equal_evaluations",
        "generalisation/sam_misses_features_more_often",
    ),
    "Upsampling late gains nothing in distribution at equal steps, and kept on to the end it raises the final loss.": (
        "generalisation/upsampling_late_gains_little_at_equal_steps",
        "generalisation/upsampling_late_hurts_at_the_end",
        "generalisation/upsampling_late_hurts_on_other_spectra",
        "generalisation/upsampling_late_hurts_on_shorter_contexts",
    ),
    "Gradient descent that trains twice as long is as good as upsampling late with its pilot paid for.": (
        "generalisation/training_twice_as_long_is_as_good",
    ),
    "From random starts the ratio does not divide by κ as it does for aligned heads.": (
        "upsampling/ratios_fall_less_than_the_rule",
        "upsampling/ratio_falls_more_than_drives_say",
        "sam_by_data/factor_falls_short_of_sam",
    ),
    "In full batches upsampling does nothing under Adam and sign descent where groups share no feature.": (
        "adaptive_optimizers/upsampling_does_nothing_in_full_batches_adam",
        "adaptive_optimizers/upsampling_does_nothing_in_full_batches_sign",
    ),
    "The factor that equals SAM's first step does worse than none.": (
        "sam_by_data/initial_factor_does_worse_than_none",
        "sam_by_data/initial_factor_overshoots",
    ),
}


def results_page(rows: Sequence[Row], code: str) -> str:
    """Return the page: verdict, negative findings, bounds set after a first measurement, all statements by group."""
    lines = ["# Results of verification", "", count(rows).replace("float64;", "double precision;"), ""]
    lines += [f"Written by `python -m experiments results-page` from the numbers of icl_theory {code}.", ""]
    lines += ["## Negative findings", ""]
    lines += [f"- {text} ({', '.join(_link(name) for name in names)})" for text, names in NEGATIVE.items()]
    lines += ["", "## Bounds set after a first measurement", ""]
    lines += ["A tolerance is fixed before the first full run. These were not:", ""]
    after = sorted((row.statement for row in rows if row.statement.after_measurement), key=_reason)
    for reason, some in groupby(after, key=_reason):
        lines.append(f"- {reason}: {', '.join(_link(statement.name) for statement in some)}.")
    for group, of_group in groupby(rows, key=lambda row: row.statement.name.partition("/")[0]):
        lines += ["", f"## {group}: {NAMES[group]}", ""]
        lines += ["| statement | predicted | measured | error | verdict |", "| --- | --- | --- | --- | --- |"]
        lines += [_row(row) for row in of_group]
    return "\n".join(lines) + "\n"


def _reason(statement: Statement) -> str:
    return statement.after_measurement


def _link(name: str) -> str:
    group, _, short = name.partition("/")
    return f"[{short}](#{group}-{NAMES[group].lower().replace(' ', '-').replace(',', '')})"


def _row(row: Row) -> str:
    cells = (predicted_text(row), measured_text(row), error_text(row), verdict(row.holds))
    text = row.statement.text.replace("|", "\\|")
    return f"| `{row.statement.name.partition('/')[2]}`<br>{text} | {' | '.join(cells)} |"
