"""Fine-tuning sets in the forms that people have: read, written in the same form, refused in one line."""

import csv
import gzip
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest

from icl_theory.errors import InputError
from icl_theory.upsampling.data_files import copy_unchanged, open_data

ROWS = [
    {"id": "007", "question": "one,\n two?", "answer": '"3"; é'},
    {"id": "8", "question": "", "answer": "\t5"},
    {"id": "x", "question": "six", "answer": "1e5"},
]
COPIES = np.array([2, 0, 3])
UPSAMPLED = [row for row, often in zip(ROWS, COPIES, strict=True) for _ in range(often)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def table(delimiter, end="\n"):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


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


def write_shards(folder, names=("part-0.parquet", "part-1.parquet", "part-10.parquet"), **options):
    folder.mkdir(parents=True)
    for name, row in zip(names, ROWS, strict=False):
        pa.parquet.write_table(pa.Table.from_pylist([row]), folder / name, **options)
    return folder


@pytest.mark.parametrize("inside", ["", "data"])
def test_shards_are_one_set_and_come_back_as_such(tmp_path, inside):
    write_shards(tmp_path / "set" / inside, compression="zstd")
    (tmp_path / "set" / "README.md").write_text("about")
    (tmp_path / "set" / ".cache").mkdir()
    for hidden in (tmp_path / "set" / ".cache" / "old.parquet", tmp_path / "set" / inside / "._part-0.parquet"):
        hidden.write_text("no Parquet")
    data = open_data(tmp_path / "set")
    assert list(data.rows()) == ROWS
    assert list(data.rows(np.array([0, 2]))) == [ROWS[0], ROWS[2]]
    assert data.scan("id").ids.to_pylist() == ["007", "8", "x"]
    other = {"question": "new"}
    data.write(tmp_path / "out", COPIES, lambda row: [other])
    names = ["part-0.parquet", "part-1.parquet", "part-10.parquet"]
    assert sorted(path.name for path in (tmp_path / "out" / inside).iterdir()) == names
    found = [pa.parquet.read_table(tmp_path / "out" / inside / name).to_pylist() for name in names]
    assert found == [[ROWS[0], ROWS[0] | other], [], [ROWS[2], ROWS[2] | other, ROWS[2]]]
    about = pa.parquet.read_metadata(tmp_path / "out" / inside / names[0])
    assert about.row_group(0).column(0).compression == "ZSTD"
    assert list(open_data(tmp_path / "out").rows()) == [row for rows in found for row in rows]
    copy_unchanged(data, tmp_path / "same")
    assert (tmp_path / "same" / inside / names[1]).read_bytes() == data.files[1].read_bytes()


def test_folders_that_are_no_set(tmp_path):
    (tmp_path / "empty").mkdir()
    write_shards(tmp_path / "splits", ("test-00000-of-00001.parquet", "train-00000-of-00001.parquet"))
    write_shards(tmp_path / "several" / "train")
    write_shards(tmp_path / "several" / "test")
    write_shards(tmp_path / "kinds")
    pa.parquet.write_table(pa.table({"id": [1], "answer": ["x"]}), tmp_path / "kinds" / "part-1.parquet")
    write_shards(tmp_path / "damaged")
    (tmp_path / "damaged" / "part-1.parquet").write_bytes(b"PAR1")
    for name, said in (
        ("empty", "a folder without .parquet files"),
        ("splits", "holds the splits test and train"),
        ("several", "the folders test and train hold Parquet files"),
        ("kinds", "part-1.parquet': its fields differ from those of part-0.parquet .id is int64 here, string there"),
        ("damaged", "part-1.parquet': cannot be read"),
    ):
        with pytest.raises(InputError, match=said):
            open_data(tmp_path / name)


def of(count, *numbers, split="train", end=""):
    return [f"{split}-{number:05}-of-{count:05}{end}.parquet" for number in numbers]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["test.parquet", "train.parquet", "validation.parquet"], "the splits test and train and validation"),
        (["Train.parquet", "dev.parquet"], "the splits Train and dev"),
        (["test.parquet", *of(1, 0)], "the splits test and train"),
        (of(1, 0, end="-0a1b2c3d4e5f6789") + of(1, 0, split="test", end="-9876543210abcdef"), "the splits test and"),
        (of(3, 1), "it holds 1 of the 3 files of train, not number 00000; add"),
        (of(3, 0, 2), "it holds 2 of the 3 files of train, not number 00001; add"),
        (of(3, 1, 3), "it holds 2 of the 3 files of train, not number 00002; add"),
        (["train.parquet", *of(1, 0)], "its files of train belong to several sets"),
        (of(1, 0) + of(2, 0, 1), "its files of train belong to several sets"),
        (of(2, 0, 1, 2), "its files of train belong to several sets"),
    ],
)
def test_splits_are_not_joined_and_no_part_is_missed(tmp_path, names, said):
    write_shards(tmp_path / "set", names)
    with pytest.raises(InputError, match=said):
        open_data(tmp_path / "set")


@pytest.mark.parametrize(
    "names",
    [
        of(3, 0, 1, 2),
        of(3, 1, 2, 3),
        of(3, 0, 1, 2, end="-0a1b2c3d4e5f6789"),
        ["train.parquet", "train2.parquet", "tutor.parquet"],
    ],
)
def test_all_files_of_one_split_are_one_set(tmp_path, names):
    assert list(open_data(write_shards(tmp_path / "set", names)).rows()) == ROWS


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
