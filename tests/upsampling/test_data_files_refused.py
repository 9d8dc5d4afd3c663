"""Files that are no fine-tuning set are refused in one line, and its remedy works."""

import gzip
import json
import re
import shutil
import subprocess

import pandas
import pytest
from set_rows import COPIES, LINES, ROWS, table

from icl_theory.errors import InputError
from icl_theory.upsampling.data_files import open_data

ARRAY = json.dumps(ROWS)
BAD = {
    "plain.jsonl.gz": (LINES, "cannot be read .Not a gzipped file"),
    "short.jsonl.gz": (gzip.compress(LINES.encode())[:-9], "cannot be read .Compressed file ended"),
    "damaged.csv.gz": (gzip.compress(table(",").encode())[:12] + b"x" * 40, "cannot be read .Error -3"),
    "short.json.gz": (gzip.compress(ARRAY.encode())[:-9], "cannot be read .Compressed file ended"),
    "empty.jsonl.gz": (b"", "it holds no rows"),
    "empty.csv": ("", "it holds no rows"),
    "header.csv": ("id,question\n", "it holds no rows"),
    "ragged.csv": ('id,x\n1,"a\nb"\n2,a,b\n', "line 4': it has 3 values, the header 2"),
    "few.csv": ("id,x\n1\n", "line 2': it has 1 values, the header 2"),
    "open.csv": ('id,x\n1,a\n2,"b\n3,c\n', "line 3': it is no CSV"),
    "twice.csv": ("id,id\n1,2\n", "names 'id' twice"),
    "both.csv": ("Preis, EUR;Name\n1,5;x\n", "',' and ';' split its header, .* in a first line such as sep=;"),
    "neither.csv": ("a,b;c\n1,2;3\n4\n", "',' and ';' split its header, and its first rows do not tell which"),
    "latin-prices.csv": ("Preis, EUR;Name\n2;é\n".encode("latin-1"), "line 2': it is not UTF-8"),
    "latin.csv": ("id,x\n1,a\n2,é\n".encode("latin-1"), "line 3': it is not UTF-8"),
    "wide.csv": ("id,x\n1,a\n".encode("utf-16"), "line 1': it is not UTF-8"),
    "bare.csv": ("id,x\n1,a\n".encode("utf-16-le"), "line 1': it is not UTF-8"),
    "none.json": (" [ ] ", "it holds no rows"),
    "half.json": (ARRAY[:-1], "row 2': line 1: neither a comma nor a closing bracket"),
    "comma.json": (ARRAY[:-1] + "\n, ]", "row 3': line 2: .*a comma before the closing ].; remove the comma"),
    "inner.json": ('[{"x": 1},\n{"x": 1,\n}]', "row 1': line 3: .*a comma before the closing }.; remove the comma"),
    "comma.jsonl": ('{}\n{"x": [1,]}', "line 2': .*a comma before the closing ].; remove the comma"),
    "cut.json": (ARRAY[:-1] + ",\n", "row 3': line 2: it is no JSON .it breaks off"),
    "digits.json": ('[{},\n{"x": %s}]' % ("1" * 5000), "row 1': line 2: it holds a number with too many digits"),
    "digits.jsonl": ('{}\n{"x": %s}' % ("1" * 5000), "line 2': it holds a number with too many digits"),
    "python.jsonl": ("{}\n{'x': 1}", "line 2': .*a single quote at column 2.; write double quotes"),
    "quotes.jsonl": ('{"x": "a"b"}', "line 1': .*at column 10, where 'b\"}' stands: Expecting ',' delimiter"),
    "wide.jsonl": (LINES.encode("utf-16"), "line 1': it is not UTF-8"),
    "bare.jsonl": (LINES.encode("utf-16-le"), "line 1': it is not UTF-8"),
    "wide.json": (ARRAY.encode("utf-16"), "line 1': it is not UTF-8"),
    "bare.json": (ARRAY.encode("utf-16-le"), "line 1: it is not UTF-8"),
    "after.json": (ARRAY + "[]", "something follows the array"),
    "numbers.json": ("[1, 2]", "row 0': an array of objects is wanted"),
    "deep.json": ("[" * 100_000, "row 0': line 1: .*nested too deeply"),
    "latin.json": ('[\n{"x": "é"}]'.encode("latin-1"), "line 2': it is not UTF-8"),
    "latin.jsonl": ('{}\n{"x": "é"}'.encode("latin-1"), "line 2': it is not UTF-8"),
    "pretty.json": ("{\n}\n{\n}", "line 1': it is no JSON"),
    "array.jsonl": (ARRAY, "let its name end in .json"),
}


@pytest.mark.parametrize("name", BAD)
def test_content_that_is_not_what_the_suffix_says(tmp_path, name):
    content, said = BAD[name]
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=said) as found:
        open_data(tmp_path / name).scan(None)
    assert name in str(found.value)


COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
SINGLE = {
    "row": ROWS[0],
    "own-fields": {"frage": "a", "quellen": [1]},
    "with-objects": ROWS[0] | {"sources": [{"page": 1}]},
    "text-with-objects": {"text": "a", "sources": [{"page": 1}]},
    "turns": {"messages": [{"role": "user", "content": "Hi"}]},
    "own-turns": {"talk": [{"role": "user", "content": "Hi"}], "id": 1},
    "prompt-of-turns": {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant"}]},
    "choices": {"question": "?", "choices": ["a", "b"]},
}
SEVERAL = {
    "list": ({"data": ROWS}, ROWS),
    "list-and-more": ({"version": 1, "tags": [], "data": ROWS}, ROWS),
    "list-and-no-turns": ({"messages": "none", "data": ROWS}, ROWS),
    "by-name": ({row["id"]: row for row in ROWS}, ROWS),
    "columns": (COLUMNS, ROWS),
    "own-columns": (
        {"id": ["07", "08"], "date": ["2020-01-01"] * 2},
        [{"id": i, "date": "2020-01-01"} for i in ("07", "08")],
    ),
    "columns-by-number": ({name: dict(zip("012", values, strict=True)) for name, values in COLUMNS.items()}, ROWS),
    "columns-by-name": ({name: dict(zip("abc", values, strict=True)) for name, values in COLUMNS.items()}, ROWS),
}


def follow(remedy, source, made):
    """Do what a remedy says."""
    if found := re.search(r"pandas\..*\)", remedy):
        exec(found[0], {"pandas": pandas, "json": json, "FILE": source, "OTHER": made})
        return
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    command = re.search(r"`jq -c '?(.*?)'? FILE`", remedy)
    made.write_bytes(subprocess.run(["jq", "-c", command[1], source], check=True, capture_output=True).stdout)


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_row_of_json_is_put_on_a_line(tmp_path, name):
    source, made = tmp_path / "a.json", tmp_path / "b.json"
    source.write_text(json.dumps(SINGLE[name]))
    assert list(open_data(source).rows()) == [SINGLE[name]]
    source.write_text(json.dumps(SINGLE[name], indent=1))
    with pytest.raises(InputError, match="it is one object and no list of rows; ") as found:
        open_data(source)
    follow(found.value.remedy, source, made)
    assert list(open_data(made).rows()) == [SINGLE[name]]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", SEVERAL)
def test_rows_within_an_object_are_made_lines_as_it_is_said(tmp_path, name, indent):
    source, made = tmp_path / "a.json", tmp_path / "b.json"
    content, rows = SEVERAL[name]
    source.write_text(json.dumps(content, indent=indent))
    with pytest.raises(InputError, match="it is one object and no list of rows; ") as found:
        open_data(source)
    follow(found.value.remedy, source, made)
    assert list(open_data(made).rows()) == rows


def test_what_a_csv_cannot_hold(tmp_path):
    (tmp_path / "a.csv").write_text(table(","))
    for value, said in ((["a"], "question is no text"), (True, "question is no text"), ("\ud800", "surrogate")):
        with pytest.raises(InputError, match=said):
            open_data(tmp_path / "a.csv").write(tmp_path / "b.csv", COPIES, lambda row, v=value: [{"question": v}])
    assert not (tmp_path / "b.csv").exists()


def test_names_that_are_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("openai/gsm8k", "there is no such file; of the hub, `finetune` reads hf://openai/gsm8k$"),
        ("hf://openai/gsm8k", "'hf://openai/gsm8k': only `finetune` reads from the hub; save it first"),
        ("data/train.jsonl", "there is no such file$"),
        ("/data/train", "there is no such file$"),
    ):
        with pytest.raises(InputError, match=said):
            open_data(name)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"\.jsonl, \.ndjson, \.json, \.csv.*\.jsonl\.gz.*\.parquet"):
        open_data("notes.txt")
