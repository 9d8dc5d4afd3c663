"""The table names every claim and statement once, restores the precision, and is printed and written."""

import json
import re
from pathlib import Path

import jax

from icl_theory.verification import NAMES, all_claims, load_claim, verify
from icl_theory.verification.table import as_json, count, print_table

ROOT = Path(__file__).parents[2]


def test_precision_is_restored_after_a_claim():
    before = jax.config.jax_enable_x64
    load_claim("fixed_points").data("float32" if before else "float64")
    assert jax.config.jax_enable_x64 == before


def test_names_of_claims_are_those_of_their_modules():
    assert [claim.name for claim in all_claims()] == list(NAMES)
    for claim in all_claims():
        assert claim.takes
        assert claim.statements.group == claim.name
    names = [name for claim in all_claims() for name in claim.statements.names]
    assert len(set(names)) == len(names)


def test_the_changelog_has_the_old_and_the_new_name_of_every_statement():
    table = dict(re.findall(r"^\| ([A-P]\d+) \| `([\w/]+)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE))
    assert len(table) == len(set(table.values())) == 157
    assert set(table.values()) <= {name for claim in all_claims() for name in claim.statements.names}


def test_verify_reports_both_precisions(capsys):
    rows = verify([load_claim("fixed_points")], float32=True)
    assert all(row.holds for row in rows)
    assert {row.holds_float32 for row in rows} == {True, False}
    print_table(rows)
    printed = capsys.readouterr().out
    assert "merged_gradient_vanishes_nowhere_else" in printed
    assert count(rows) in printed
    document = json.loads(as_json(rows))
    assert document["statements"][0]["holds"] is True
    assert document["code"].startswith("0.")
