"""`icl-theory verify`: the table is printed and written, and a statement that fails is exit code 1."""

import json

import pytest
from helpers import refused, run_command

from icl_theory.verification import load_claim

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_verify_prints_and_writes_the_table(tmp_path, capsys):
    assert run_command("verify", "--only", "fixed_points", "--json", "table.json", "--quiet") == 0
    assert "statements hold in float64" in capsys.readouterr().out
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["name"] for row in table["statements"]] == load_claim("fixed_points").statements.names
    assert "exists" in refused(capsys, "verify", "--only", "fixed_points", "--json", "table.json")
    assert "existing folder" in refused(capsys, "verify", "--json", "nowhere/table.json")


def test_verify_exits_one_when_a_statement_does_not_hold(monkeypatch, capsys):
    from icl_theory.verification.claims import fixed_points

    monkeypatch.setattr(fixed_points, "plateau_loss", lambda features, subset: 1.0)
    assert run_command("verify", "--only", "fixed_points", "--no-float32", "--quiet") == 1
    assert "FAILS" in capsys.readouterr().out


def test_single_statements_are_printed_alone(capsys):
    assert run_command("verify", "--only", "fixed_points/gain_has_a_short_formula", "--no-float32", "--quiet") == 0
    printed = capsys.readouterr().out
    assert "1 of 1 statements hold" in printed
    assert "float32" not in printed


def test_groups_are_completed_in_a_list():
    from icl_theory.cli.verify import _complete

    found = [item.value for item in _complete(None, None, "dynamics,random_i")]
    assert found == ["dynamics,random_initialisation"]
    found = [item.value for item in _complete(None, None, "fixed_points/gain")]
    assert found == ["fixed_points/gain_has_a_short_formula"]
