"""The page of formulas names all of the theory, and code, statements, tests, figures and sections that exist."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import icl_theory.theory
from figures import FIGURES
from icl_theory.verification import all_claims

THEORY = Path(icl_theory.theory.__file__).parent
COLUMNS = ["formula", "what it says", "code", "statements", "test", "figure"]


def read_page(text):
    """Rows as dictionaries, each with its section's number."""
    rows, section = [], None
    for line in text.splitlines():
        if heading := re.fullmatch(r"## §(\d+) \S.*", line):
            section = int(heading[1])
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            assert len(cells) == len(COLUMNS), f"{len(cells)} cells: {line}"
            if cells != COLUMNS and set(line) != set("| -"):
                rows.append({"section": section, **dict(zip(COLUMNS, cells, strict=True))})
    return rows


ROWS = read_page((THEORY / "FORMULAS.md").read_text())


def quoted(cell):
    """The names in a cell that holds nothing but names in backticks, commas between them."""
    names = re.findall(r"`([\w./]+)`", cell)
    assert cell == ", ".join(f"`{name}`" for name in names), cell
    return names


def statement_names(cell):
    """The names in a cell of statements, `group/name` in backticks with commas between them."""
    names = re.findall(r"`(\w+/\w+)`", cell)
    assert cell == ", ".join(f"`{name}`" for name in names), cell
    return names


def public_names():
    """What the modules of the theory define without an underscore: functions, compiled ones too, and classes."""
    found = set()
    for module in pkgutil.iter_modules([str(THEORY)]):
        name = f"icl_theory.theory.{module.name}"
        for attribute, value in vars(importlib.import_module(name)).items():
            if not attribute.startswith("_") and callable(value) and getattr(value, "__module__", "") == name:
                found.add(f"theory.{module.name}.{attribute}")
    return found


def resolve(name):
    """The object of a dotted name below icl_theory, and how many of its parts are a module's."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module("icl_theory." + ".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[count:]:
            found = getattr(found, attribute)
        return found, count
    raise ModuleNotFoundError(name)


def test_rows_are_whole_and_none_is_there_twice():
    assert len(ROWS) > 100
    for row in ROWS:
        assert row["formula"], row
        assert 1 <= len(row["what it says"].split()) <= 12, row["what it says"]
        assert row["formula"].count("`") % 2 == 0, row
    codes = [name for row in ROWS for name in quoted(row["code"])]
    assert len(codes) == len(ROWS), "one code a row"
    assert [code for code in set(codes) if codes.count(code) > 1] == []


def test_every_public_name_of_the_theory_is_listed():
    public = public_names()
    assert {
        "theory.aligned_dynamics.descend",
        "theory.aligned_dynamics.AlignedFlow",
        "theory.hitting_time.hitting_time",
    } <= public
    assert public - {name for row in ROWS for name in quoted(row["code"])} == set()


def test_code_exists():
    for row in ROWS:
        for name in quoted(row["code"]):
            found, count = resolve(name)
            assert not inspect.ismodule(found), f"{name} is a module"
            assert len(name.split(".")) - count <= 2, name


def test_tests_exist_and_mention_the_code():
    for row in ROWS:
        for file in quoted(row["test"]):
            text = (Path(__file__).parents[1] / file).read_text()
            assert file.rpartition("/")[2].startswith("test_"), file
            for name in quoted(row["code"]):
                *_, owner, last = name.split(".")
                called = rf"\.{last}\b" if owner[0].isupper() else rf"\b{last}\b"  # of a method: after a dot
                assert re.search(called, text), f"{file} does not mention {last}"


def test_figures_exist():
    assert {name for row in ROWS for name in quoted(row["figure"])} - set(FIGURES) == set()


def test_statements_exist():
    known = {name for claim in all_claims() for name in claim.statements.names}
    named = {name for row in ROWS for name in statement_names(row["statements"])}
    assert named - known == set()
    groups = {claim.name for claim in all_claims() if claim.statements.entries}
    assert {name.partition("/")[0] for name in named} == groups, "a claim that no formula leads to"


def test_sections_are_those_of_the_notes():
    notes = (THEORY / "NOTES.md").read_text()
    sections = [row["section"] for row in ROWS]
    assert sections == sorted(sections)
    assert {number for number in set(sections) if not re.search(rf"^## §{number} ", notes, re.MULTILINE)} == set()


@pytest.mark.parametrize("cell", ["A1", "`group`", "group/name", "`group/name`; `group/other`"])
def test_a_malformed_name_is_refused(cell):
    with pytest.raises(AssertionError):
        statement_names(cell)
    assert statement_names("`group/name`, `group/other`") == ["group/name", "group/other"]
