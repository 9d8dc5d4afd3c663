"""The page of formulas names all of the theory, and code, statements, tests, figures and sections that exist."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import icl_theory.theory
from figures import FIGURES
from icl_theory.verification import CLAIMS

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
    names = re.findall(r"`([\w.]+)`", cell)
    assert cell == ", ".join(f"`{name}`" for name in names), cell
    return names


def statement_ids(cell):
    """`B1, D2–D4` as B1, D2, D3, D4."""
    ids = []
    for part in cell.split(", ") if cell else []:
        first, _, last = part.partition("–")
        last = last or first
        assert all(re.fullmatch(r"[A-Z][1-9]\d*", end) for end in (first, last)), part
        assert first[0] == last[0], part
        letter, low, high = first[0], first[1:], last[1:]
        assert int(low) < int(high) or first == last, part
        ids += [f"{letter}{number}" for number in range(int(low), int(high) + 1)]
    return ids


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
    assert {"theory.aligned.descend", "theory.aligned.AlignedFlow", "theory.hitting_time.hitting_time"} <= public
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
            text = (Path(__file__).parent / file).read_text()
            assert file.startswith("test_"), file
            for name in quoted(row["code"]):
                *_, owner, last = name.split(".")
                called = rf"\.{last}\b" if owner[0].isupper() else rf"\b{last}\b"  # of a method: after a dot
                assert re.search(called, text), f"{file} does not mention {last}"


def test_figures_exist():
    assert {name for row in ROWS for name in quoted(row["figure"])} - set(FIGURES) == set()


def test_statements_exist():
    """As far as each claim says how many it has; `test_verification.py` has the statements themselves."""
    last = {claim.letter: int(re.findall(rf"{claim.letter}(\d+)", claim.statements.__doc__)[-1]) for claim in CLAIMS}
    named = {name for row in ROWS for name in statement_ids(row["statements"])}
    assert {name for name in named if int(name[1:]) > last.get(name[0], 0)} == set()
    assert {name[0] for name in named} == set(last), "a claim that no formula leads to"


def test_sections_are_those_of_the_notes():
    notes = (THEORY / "NOTES.md").read_text()
    sections = [row["section"] for row in ROWS]
    assert sections == sorted(sections)
    assert {number for number in set(sections) if not re.search(rf"^## §{number} ", notes, re.MULTILINE)} == set()


@pytest.mark.parametrize("cell", ["A", "A0", "1", "A1-A3", "A3–A1", "A1–B3", "A1,A2", "a1"])
def test_a_malformed_id_is_refused(cell):
    with pytest.raises(AssertionError, match=cell[-1]):
        statement_ids(cell)
    assert statement_ids("A1, B2–B4") == ["A1", "B2", "B3", "B4"]
