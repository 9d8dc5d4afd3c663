"""Fine-tuning sets in the forms that people have: read, and written in the same form."""

import csv
import gzip
import io
import json

import numpy as np
import pytest
from set_rows import COPIES, LINES, ROWS, UPSAMPLED, table

from icl_theory.upsampling.data_files import copy_unchanged, open_data

TEXTS = {
    "data.jsonl": LINES,
    "data.json": json.dumps(ROWS, indent=4),
    "line.json": json.dumps(ROWS),
    "lines.json": LINES,
    "data.csv": table(","),
    "crlf.csv": table(",", "\r\n"),
    "semicolons.csv": table(";"),
    "data.tsv": table("\t"),
}


def read(path):
    """The rows of a file, by other readers than ours."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text, name = text.decode("utf-8-sig"), path.name.removesuffix(".gz")
    if name.endswith("sv"):
        mark = max("\t;,", key=text.partition("\n")[0].count)
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=mark))
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", TEXTS)
def test_texts_of_every_form(tmp_path, name, packed, bom):
    path, out, same = tmp_path / (name + packed), tmp_path / f"out-{name}{packed}", tmp_path / f"same-{name}{packed}"
    content = bom + TEXTS[name].encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    data = open_data(path)
    assert list(data.rows()) == ROWS
    assert list(data.rows(np.array([0, 2]))) == [ROWS[0], ROWS[2]]
    scan = data.scan(None)
    assert (scan.num_rows, scan.id_field, scan.fields) == (3, "id", ("id", "question", "answer"))
    assert scan.ids.to_pylist() == ["007", "8", "x"]
    data.write(out, COPIES)
    assert read(out) == UPSAMPLED
    assert list(open_data(out).rows()) == UPSAMPLED
    copy_unchanged(data, same)
    assert same.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["data.jsonl", "line.json", "data.csv", "crlf.csv", "semicolons.csv", "data.tsv"])
def test_versions_take_turns_in_every_form(tmp_path, name):
    (tmp_path / name).write_bytes(TEXTS[name].encode())
    other = {"question": 'a "new",; \t one\n'}
    open_data(tmp_path / name).write(tmp_path / f"out-{name}", COPIES, lambda row: [other])
    turns = [ROWS[0], ROWS[0] | other, ROWS[2], ROWS[2] | other, ROWS[2]]
    assert read(tmp_path / f"out-{name}") == turns
    if name == "crlf.csv":
        assert (tmp_path / "out-crlf.csv").read_bytes().count(b"\r\n") == 1 + len(turns)


BOM = b"\xef\xbb\xbf"
HEADERS = {
    "index.csv": (",question,answer\n0,a,b\n", {"column 1": "0", "question": "a", "answer": "b"}),
    "last.csv": ("question,answer,\na,b,\n", {"question": "a", "answer": "b", "column 3": ""}),
    "blanks.csv": ("question, answer\na, b\n", {"question": "a", "answer": "b"}),
    "quoted.csv": ('"question", "answer"\n"a", "b, c"\n', {"question": "a", "answer": "b, c"}),
    "slip.csv": ("id,question, answer \n1, a,b\n", {"id": "1", "question": " a", "answer": "b"}),
    "text.csv": ("text\n a\n", {"text": " a"}),
    "bars.csv": ("question|answer\na, b|c\n", {"question": "a, b", "answer": "c"}),
    "prices.csv": ("Preis, EUR;Name\n2;x\n", {"Preis, EUR": "2", "Name": "x"}),
    "commas.csv": ("question,answer (a|b)\nx,a\n", {"question": "x", "answer (a|b)": "a"}),
    "inside.csv": ('"a, b";"c|d"\n"1";x\n', {"a, b": "1", "c|d": "x"}),
    "lines.csv": ('"a\n(1)";b\nx, y;z\n', {"a\n(1)": "x, y", "b": "z"}),
    "odd.csv": ('Preis, EUR;Name\n"1,5";"x"\n', {"Preis, EUR": "1,5", "Name": "x"}),
    "excel.csv": ("sep=;\r\nquestion, if any;answer\r\na;b\r\n", {"question, if any": "a", "answer": "b"}),
    "colons.csv": ('"sep=:"\nquestion:answer\na:b\n', {"question": "a", "answer": "b"}),
}


@pytest.mark.parametrize("bom", [b"", BOM])
@pytest.mark.parametrize("name", HEADERS)
def test_headers_as_people_have_them(tmp_path, name, bom):
    text, row = HEADERS[name]
    (tmp_path / name).write_bytes(bom + text.encode())
    data = open_data(tmp_path / name)
    assert list(data.rows()) == [row]
    assert data.scan(None).fields == tuple(row)
    *head, last = (bom + text.encode()).splitlines(keepends=True)
    data.write(tmp_path / f"out-{name}", np.array([2]))
    assert (tmp_path / f"out-{name}").read_bytes() == b"".join([*head, last, last])
    changed = {list(row)[-1]: "new"}
    data.write(tmp_path / f"new-{name}", np.array([2]), lambda row: [changed])
    assert list(open_data(tmp_path / f"new-{name}").rows()) == [row, row | changed]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,x\r\n1,a\r\n2,b"),
        ("a.jsonl", '{"x": "a"}\r\n{"x": "b"}'),
        ("a.json", '[{"x": "a"},\r\n{"x": "b"}]'),
    ],
)
@pytest.mark.parametrize("versions", [None, lambda row: [{"x": "c"}]])
def test_rows_that_are_added_end_like_the_others(tmp_path, name, text, versions):
    (tmp_path / name).write_bytes(text.encode())
    open_data(tmp_path / name).write(tmp_path / f"out-{name}", np.array([1, 2]), versions)
    made = (tmp_path / f"out-{name}").read_bytes()
    assert made.endswith(b"\r\n")
    assert made.count(b"\n") == made.count(b"\r\n") == text.count("\n") + (4 if name == "a.json" else 2)


def test_rows_are_copied_as_they_stand(tmp_path):
    first, second, header = '{"id" : 1,\n  "x": 1e5}', '{"x": "\\u00e9"}', b'\xef\xbb\xbf"id",x\r\n'
    (tmp_path / "a.json").write_text(f"[ {first} ,{second}]")
    open_data(tmp_path / "a.json").write(tmp_path / "b.json", np.array([2, 1]))
    assert (tmp_path / "b.json").read_text() == f"[\n{first},\n{first},\n{second}\n]\n"
    (tmp_path / "a.csv").write_bytes(header + b'"1",x\r\n\r\n2,"y\nz"')
    open_data(tmp_path / "a.csv").write(tmp_path / "b.csv", np.array([2, 2]))
    assert (tmp_path / "b.csv").read_bytes() == header + b'"1",x\r\n' * 2 + b'2,"y\nz"\r\n' * 2


def test_gzip_holds_the_lines_and_no_time(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    made = []
    for second in (1e9, 2e9):
        monkeypatch.setattr("time.time", lambda second=second: second)
        open_data(tmp_path / "a.jsonl.gz").write(tmp_path / f"{second}.jsonl.gz", np.array([1, 1, 2]))
        made.append((tmp_path / f"{second}.jsonl.gz").read_bytes())
    assert made[0] == made[1]
    assert gzip.decompress(made[0]).decode() == LINES + LINES.splitlines(keepends=True)[-1]


def test_values_may_be_long(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1," + "a" * 200_000 + "\n")
    assert len(next(open_data(tmp_path / "a.csv").rows())["text"]) == 200_000
