"""`icl-theory upsample`: files of every shape come back upsampled, in order; bad input is one line and no file."""

import csv
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from helpers import one_line, refused, run_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import icl_theory as icl
from icl_theory.upsampling import parquet_data
from icl_theory.upsampling.conversations import texts_of
from icl_theory.upsampling.noise_scale import save_noise_scale, sparse
from icl_theory.upsampling.record_files import SUFFIXES

COUNT = 12
STEPS = np.arange(0.0, 101.0, 10.0)
HALF_TIMES = np.where(np.arange(COUNT) % 3 == 0, 80.0, 20.0)  # every third is late
LATE = HALF_TIMES == 80.0
LOSSES = np.clip(1.0 - STEPS[:, None] / (2 * HALF_TIMES), 0, None)
IDS = [f"example-{row}" for row in range(COUNT)]
SHAPES = {
    "instruction": lambda row: {"instruction": f"Add {row} and 1.", "input": "", "output": str(row + 1)},
    "question": lambda row: {"question": f"What is {row} + 1? It costs $5 and $x_1$.", "answer": f"#### {row + 1}"},
    "prompt": lambda row: {"prompt": f"{row} + 1 =", "completion": f" {row + 1}"},
    "messages": lambda row: {
        "messages": [{"role": "user", "content": f"{row} + 1?"}, {"role": "assistant", "content": str(row + 1)}]
    },
    "unknown": lambda row: {"left": row, "right": {"ü": [1, row]}},
}


def rows(shape="question", ids=True):
    return [({"id": IDS[row]} if ids else {}) | SHAPES[shape](row) for row in range(COUNT)]


def write_data(path, entries):
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(entries).replace_schema_metadata({"huggingface": '{"info": 1}'})
        pa.parquet.write_table(table, path)
    else:
        path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
    return path


def read_data(path):
    if path.suffix == ".parquet" or path.is_dir():
        return pa.parquet.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path):
    write_data(tmp_path / "train.jsonl", rows())
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES, IDS), tmp_path / "losses.npz")
    return tmp_path


def upsample(folder, *options, data="train.jsonl", losses="losses.npz"):
    return run_command("upsample", folder / data, folder / losses, "--quiet", "--no-picture", *options)


def printed_by(capsys):
    """Lines on standard output, single blanks between words."""
    return "".join(" ".join(line.split()) + "\n" for line in capsys.readouterr().out.splitlines())


def expected(entries, often):
    return [entry for entry, late in zip(entries, LATE, strict=True) for _ in range(often if late else 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_late_come_more_often_in_order_and_whole(folder, capsys, shape, suffix):
    data = write_data(folder / f"data{suffix}", rows(shape))
    assert upsample(folder, "--factor", 3, "--out", folder / f"out{suffix}", data=data.name) == 0
    assert read_data(folder / f"out{suffix}") == expected(rows(shape), 3)
    printed = printed_by(capsys)
    assert "late 4 (33.3%)" in printed
    assert "epoch 1.67 times as long" in printed
    if suffix == ".parquet":
        assert pa.parquet.read_schema(folder / "out.parquet") == pa.parquet.read_schema(data)
        assert pa.parquet.read_schema(folder / "out.parquet").metadata[b"huggingface"] == b'{"info": 1}'


def test_lines_are_copied_byte_for_byte(folder):
    lines = [b'{"id" : "example-%d",\t"text": "\\u00e9 1e5"}' % row for row in range(COUNT)]
    (folder / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines[:6]) + b"\r\n\n" + b"\n".join(lines[6:]))
    assert upsample(folder, "--factor", 2, "--out", folder / "out.jsonl") == 0
    ends = [b"\r\n"] * 6 + [b"\n"] * 5 + [b"\r\n"]
    whole = [line + end for line, end in zip(lines, ends, strict=True)]
    assert (folder / "out.jsonl").read_bytes() == b"".join(expected(whole, 2))


def test_the_set_keeps_its_form_and_name(folder, capsys, monkeypatch):
    lines = "".join(json.dumps(entry) + "\n" for entry in rows())
    (folder / "train.v1.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert upsample(folder, "--factor", 2, "--picture", data="train.v1.jsonl.gz") == 0
    made = gzip.decompress((folder / "train.v1-upsampled.jsonl.gz").read_bytes()).decode()
    assert [json.loads(line) for line in made.splitlines()] == expected(rows(), 2)
    assert (folder / "train.v1-upsampled-picture.png").is_file()
    (folder / "shards").mkdir()
    for part in range(2):
        write_data(folder / "shards" / f"part-{part}.parquet", rows()[6 * part : 6 * part + 6])
    assert upsample(folder, "--factor", 2, data="shards") == 0
    assert read_data(folder / "shards-upsampled") == expected(rows(), 2)
    monkeypatch.chdir(folder / "shards")
    command = ("upsample", ".", folder / "losses.npz", "--factor", 2, "--quiet", "--no-picture")
    assert run_command(*command, "--write", "weights") == 0
    assert (folder / "shards-weights.csv").is_file()
    capsys.readouterr()
    for out, said in (
        (folder / "out.parquet", "give the name of a new one"),
        (".", "give the name of a new one"),
        ("out", "it is in the folder of the data"),
        (folder / "shards" / "new" / "out", "it is in the folder of the data"),
        (folder / "none" / ".." / "shards", "it is in the folder of the data"),
    ):
        assert said in refused(capsys, *command, "--out", out)
    said = refused(capsys, *command, "--write", "weights", "--out", "weights.parquet")
    assert "it is in the folder of the data" in said
    assert sorted(path.name for path in (folder / "shards").iterdir()) == ["part-0.parquet", "part-1.parquet"]


def test_csv_tables_of_data_and_of_paraphrases(folder):
    entries = [{name: str(value) for name, value in entry.items()} for entry in rows()]
    (folder / "train.csv").write_text(
        "id,question,answer\n" + "".join('{id},"{question}",{answer}\n'.format(**entry) for entry in entries)
    )
    (folder / "table.csv").write_text('id,question,answer\nexample-3,"Three, and one?",\n')
    assert upsample(folder, "--factor", 2, "--augment", folder / "table.csv", data="train.csv") == 0
    with (folder / "train-upsampled.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    wanted = expected(entries, 2)
    second = [row for row, entry in enumerate(wanted) if entry["id"] == "example-3"][1]
    wanted[second] = entries[3] | {"question": "Three, and one?"}
    assert found == wanted


def test_the_factor_is_the_measured_ratio(folder, capsys):
    assert upsample(folder) == 0
    printed = printed_by(capsys)
    assert "ratio R 4\n" in printed
    assert "R / target = 4 / 1" in printed
    assert read_data(folder / "train-upsampled.jsonl") == expected(rows(), 4)


def test_same_seed_same_bytes_another_seed_others(folder):
    for suffix in (".jsonl", ".parquet"):
        data = write_data(folder / f"data{suffix}", rows())
        for name, seed in (("a", 1), ("b", 1), *((f"c{seed}", seed) for seed in range(2, 8))):
            out = folder / f"{name}-{suffix[1:]}{suffix}"
            assert upsample(folder, "--factor", 2.5, "--seed", seed, "--out", out, data=data.name) == 0
        first = (folder / f"a-{suffix[1:]}{suffix}").read_bytes()
        assert (folder / f"b-{suffix[1:]}{suffix}").read_bytes() == first
        assert any((folder / f"c{seed}-{suffix[1:]}{suffix}").read_bytes() != first for seed in range(2, 8))


@pytest.mark.parametrize("shape", ["question", "unknown"])
def test_a_picture_is_drawn_the_same_each_time(folder, shape):
    write_data(folder / "train.jsonl", rows(shape))
    for name in ("a", "b"):
        assert upsample(folder, "--picture", "--out", folder / f"{name}.jsonl") == 0
    first = (folder / "a-picture.svg").read_bytes()
    assert first == (folder / "b-picture.svg").read_bytes()
    assert (folder / "a-picture.png").stat().st_size > 10_000


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_losses_of_every_form_in_another_order(folder, suffix):
    order = np.random.default_rng(0).permutation(COUNT)
    record = icl.LossRecord(STEPS, LOSSES[:, order], [IDS[row] for row in order])
    icl.save_loss_record(record, folder / f"shuffled{suffix}")
    assert upsample(folder, "--factor", 2, losses=f"shuffled{suffix}") == 0
    assert read_data(folder / "train-upsampled.jsonl") == expected(rows(), 2)


def test_rows_stand_for_ids_where_there_are_none(folder, capsys):
    write_data(folder / "plain.jsonl", rows(ids=False))
    for name, ids in (("none.npz", None), ("rows.npz", np.arange(COUNT))):
        icl.save_loss_record(icl.LossRecord(STEPS, LOSSES, ids), folder / name)
        out = folder / f"{name[:4]}.jsonl"
        assert upsample(folder, "--factor", 2, "--out", out, data="plain.jsonl", losses=name) == 0
        assert read_data(out) == expected(rows(ids=False), 2)
    assert upsample(folder, "--factor", 2, "--by-row", "--out", folder / "by.jsonl", losses="rows.npz") == 0
    assert read_data(folder / "by.jsonl") == expected(rows(), 2)


def test_ids_may_be_in_any_field(folder):
    entries = [{"uid": 100 + row, **entry} for row, entry in enumerate(rows())]
    write_data(folder / "uid.jsonl", entries)
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES, np.arange(100, 100 + COUNT)), folder / "uid.npz")
    assert upsample(folder, "--factor", 2, "--id-field", "uid", data="uid.jsonl", losses="uid.npz") == 0
    assert read_data(folder / "uid-upsampled.jsonl") == expected(entries, 2)


def test_weights_indices_and_copies(folder):
    copies = np.where(LATE, 3, 1)
    wanted = {"weights": np.where(LATE, 3.0, 1.0), "copies": copies, "indices": np.repeat(np.arange(COUNT), copies)}
    for what, values in wanted.items():
        for suffix in (".npy", ".csv", ".parquet"):
            out = folder / f"{what}{suffix}"
            assert upsample(folder, "--factor", 3, "--write", what, "--out", out) == 0
            if suffix == ".npy":
                np.testing.assert_array_equal(np.load(out), values)
                continue
            table = pa.csv.read_csv(out) if suffix == ".csv" else pa.parquet.read_table(out)
            np.testing.assert_array_equal(table[what].to_numpy(), values)
            assert what == "indices" or table["id"].to_pylist() == IDS


def test_selections_name_rows_by_their_field_and_kind(folder):
    entries = [{"uid": 100 + row, **entry} for row, entry in enumerate(rows(ids=False))]
    write_data(folder / "uid.jsonl", entries)
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES, np.arange(100, 100 + COUNT)), folder / "uid.npz")
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES), folder / "rows.npz")
    for name, options in (("uid", ("--id-field", "uid")), ("row", ())):
        out = folder / f"{name}.parquet"
        losses = "uid.npz" if name == "uid" else "rows.npz"
        assert upsample(folder, "--write", "weights", "--out", out, *options, data="uid.jsonl", losses=losses) == 0
        found = pa.parquet.read_table(out)
        assert found.schema.field(name).type == pa.int64()
        assert found[name].to_pylist() == [
            entry["uid"] if name == "uid" else place for place, entry in enumerate(entries)
        ]


def test_paraphrases_stand_in_for_copies(folder, capsys):
    table = [
        {"id": "example-3", "question": "Three and one?", "source": "x"},
        {"id": "example-0", "question": "Nought and one?", "answer": "one"},
        {"id": "example-0", "question": "Add one to nothing.", "answer": "1"},
        {"id": "example-1", "question": "not late"},
    ]
    for suffix in (".jsonl", ".parquet"):
        data = write_data(folder / f"data{suffix}", rows())
        for kind in (".jsonl", ".parquet"):
            augment = write_data(folder / f"table{kind}", table)
            out = folder / f"{suffix[1:]}-by-{kind[1:]}{suffix}"
            assert upsample(folder, "--factor", 3, "--augment", augment, "--out", out, data=data.name) == 0
            found = read_data(out)
            questions = [entry["question"] for entry in found if entry["id"] == "example-0"]
            assert questions == [rows()[0]["question"], "Nought and one?", "Add one to nothing."]
            three = [entry for entry in found if entry["id"] == "example-3"]
            assert [entry["question"] for entry in three] == [
                rows()[3]["question"],
                "Three and one?",
                rows()[3]["question"],
            ]
            assert [entry["id"] for entry in found] == [entry["id"] for entry in expected(rows(), 3)]
            assert all(list(entry) == ["id", "question", "answer"] for entry in found)
            assert three[1]["answer"] == rows()[3]["answer"]  # a Parquet table without it holds a null
    printed = printed_by(capsys)
    assert "3 of the examples have fewer than copies" in printed
    assert "ignored: source" in printed


def test_paraphrases_may_give_fields_that_the_first_row_lacks(folder):
    entries = [({} if row in (0, 1) else {"system": "old"}) | entry for row, entry in enumerate(rows())]
    write_data(folder / "train.jsonl", entries)
    table = write_data(folder / "table.jsonl", [{"id": "example-3", "question": "?", "system": "new"}])
    assert upsample(folder, "--factor", 2, "--augment", table) == 0
    assert [row["system"] for row in read_data(folder / "train-upsampled.jsonl") if row["id"] == "example-3"] == [
        "old",
        "new",
    ]


def test_paraphrases_of_an_id_that_occurs_twice(folder, capsys):
    write_data(folder / "train.jsonl", [entry | {"id": "same"} for entry in rows()])
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES), folder / "rows.npz")
    table = write_data(folder / "table.jsonl", [{"id": "same", "question": "?"}])
    command = ("upsample", folder / "train.jsonl", folder / "rows.npz", "--factor", 2, "--augment", table, "--quiet")
    assert "it occurs 12 times" in refused(capsys, *command)


def test_ids_that_are_not_needed_are_not_looked_at(folder):
    write_data(folder / "train.jsonl", [entry | {"id": None} for entry in rows()])
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES), folder / "rows.npz")
    assert upsample(folder, "--factor", 2, losses="rows.npz") == 0
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES, np.arange(COUNT)), folder / "named.npz")
    assert upsample(folder, "--factor", 2, "--by-row", "--out", folder / "by-row.jsonl", losses="named.npz") == 0


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
def test_parquet_keeps_its_compression_and_kinds_of_text(folder, codec, kind):
    table = pa.Table.from_pylist(rows())
    table = table.cast(pa.schema([(name, kind) for name in table.schema.names]))
    pa.parquet.write_table(table, folder / "data.parquet", compression=codec)
    assert upsample(folder, "--factor", 2, data="data.parquet") == 0
    made = pa.parquet.ParquetFile(folder / "data-upsampled.parquet")
    packed = {made.metadata.row_group(0).column(place).compression for place in range(made.metadata.num_columns)}
    assert packed == {codec.upper() if codec != "none" else "UNCOMPRESSED"}
    assert made.schema_arrow == table.schema
    assert [row["id"] for row in made.read().to_pylist()] == [
        name for row, name in enumerate(IDS) for _ in range(1 + LATE[row])
    ]


def test_long_rows_of_parquet_are_written_in_small_parts(folder, monkeypatch):
    write_data(folder / "data.parquet", rows())
    assert upsample(folder, "--factor", 3, "--out", folder / "whole.parquet", data="data.parquet") == 0
    sizes = []
    monkeypatch.setattr(parquet_data, "BATCH_BYTES", 300)
    monkeypatch.setattr(
        parquet_data,
        "_taken",
        lambda table, turns, take=parquet_data._taken: sizes.append(len(turns)) or take(table, turns),
    )
    assert upsample(folder, "--factor", 3, "--out", folder / "parts.parquet", data="data.parquet") == 0
    assert len(sizes) > 4
    assert read_data(folder / "parts.parquet") == read_data(folder / "whole.parquet")


def test_controls_are_called_so(folder, capsys):
    for group, said in (
        ("random", "4 examples drawn at random (a control)"),
        ("early", "4 early examples (a control)"),
    ):
        assert upsample(folder, "--factor", 2, "--group", group, "--dry-run") == 0
        assert said in printed_by(capsys)


def test_no_late_group_copies_the_input(folder, capsys):
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES[:, :1].repeat(COUNT, axis=1), IDS), folder / "same.npz")
    (folder / "train.jsonl").write_text(
        (folder / "train.jsonl").read_text().rstrip()
    )  # byte for byte, so without an end
    assert upsample(folder, losses="same.npz") == 0
    assert (folder / "train-upsampled.jsonl").read_bytes() == (folder / "train.jsonl").read_bytes()
    printed = printed_by(capsys)
    assert "factor 1: all examples are learned at once" in printed
    assert "upsampled nothing" in printed


def test_a_dry_run_writes_nothing(folder, capsys):
    before = sorted(path.name for path in folder.iterdir())
    assert upsample(folder, "--dry-run") == 0
    assert "epoch" in printed_by(capsys)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_dry_run_looks_at_no_output(folder):
    assert upsample(folder) == 0
    assert upsample(folder, "--factor", 2, "--dry-run") == 0


def test_the_rules_of_two_records(folder, capsys):
    half = np.where(LATE, 40.0, 20.0)
    other = icl.LossRecord(STEPS, np.clip(1.0 - STEPS[:, None] / (2 * half), 0, None), IDS)
    icl.save_loss_record(other, folder / "other.npz")
    assert upsample(folder, "--rule", "match", "--other", folder / "other.npz", "--dry-run") == 0
    assert "factor 2: R / R' = 4 / 2" in printed_by(capsys)
    options = ("--rule", "secant", "--other", folder / "other.npz", "--tried-factor", 1.5, "--dry-run")
    assert upsample(folder, *options) == 0
    assert "factor 2: secant" in printed_by(capsys)


def test_the_floor_may_be_a_record(folder, capsys):
    noise = np.where(np.arange(COUNT) == 1, 5.0, 0.0)
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES + noise, IDS), folder / "noisy.npz")
    icl.save_loss_record(icl.LossRecord([9], noise[None], IDS), folder / "floor.npz")
    assert upsample(folder, "--dry-run", losses="noisy.npz") == 0
    assert "never learned 1" in printed_by(capsys)
    assert upsample(folder, "--dry-run", "--floor", folder / "floor.npz", losses="noisy.npz") == 0
    assert "never learned" not in printed_by(capsys)


def test_what_datasets_loads_has_the_fields_of_the_input(folder):
    import datasets

    assert upsample(folder, "--factor", 2) == 0
    files = {name: str(folder / f"{name}.jsonl") for name in ("train", "train-upsampled")}
    loaded = {
        name: datasets.load_dataset("json", data_files=path, split="train", cache_dir=str(folder / "cache"))
        for name, path in files.items()
    }
    assert loaded["train"].features == loaded["train-upsampled"].features
    assert loaded["train-upsampled"]["id"][:] == [entry["id"] for entry in expected(rows(), 2)]


BAD = [
    (("--factor", 1e9), "at most 1e+06"),
    (("--factor", 1000), "an epoch would be 334 times as long"),
    (("--factor", 0.5), "at least 1"),
    (("--factor", 2, "--max-factor", 3), "max_factor does nothing"),
    (("--late", "half"), "quantile=Q"),
    (("--rule", "match"), "needs it"),
    (("--seed", -1), "at least 0"),
    (("--id-field", "uid"), "no field 'uid'; its fields are id, question, answer"),
    (("--id-field", "answer"), "have no losses in the record, whose ids look like 'example-0'"),
    (("--id-field", "id", "--by-row"), "--id-field does nothing"),
    (("--by-row",), "row (from 0) = '0'"),
    (("--write", "weights", "--out", "w.txt"), "ends in .npy, .csv, .parquet"),
    (("--out", "out.parquet"), "end it in .jsonl"),
    (("--augment", "none.jsonl"), "--augment = 'none.jsonl': there is no such file"),
    (("--augment", "train.jsonl", "--write", "weights"), "it does nothing"),
    (("--out", "."), "end it in .jsonl"),
    (("--floor", "none.npz"), "there is no such file"),
    (("--floor", "first"), "ends in .npz"),
    (("--other", "losses.npz"), "does not use it"),
]


@pytest.mark.parametrize(("options", "said"), BAD)
def test_bad_options_are_one_line_and_no_file(folder, capsys, monkeypatch, options, said):
    monkeypatch.chdir(folder)
    before = sorted(path.name for path in folder.iterdir())
    assert said in refused(capsys, "upsample", "train.jsonl", "losses.npz", "--quiet", *options)
    assert sorted(path.name for path in folder.iterdir()) == before


DAMAGED = [
    (lambda lines: [*lines[:4], '{"id": "example-4", "question": ', *lines[5:]], "line 5"),
    (lambda lines: [*lines[:4], "[1, 2]", *lines[5:]], "line 5"),
    (lambda lines: ["[", *lines[1:]], "jq -c"),
    (lambda lines: [], "it holds no rows"),
    (lambda lines: ["", ""], "it holds no rows"),
    (lambda lines: lines[:-1], "'example-11': it and 0 more of 12 are no examples of the data"),
    (lambda lines: [*lines, lines[0]], "'example-0': it occurs 2 times"),
    (lambda lines: [*lines, '{"id": "new"}'], "'new': it and 0 more of 13 have no losses"),
    (lambda lines: [*lines, '{"question": "?"}'], "line 13': it has no field 'id'"),
    (lambda lines: [*lines, '{"id": 0.5}'], "id in line 13 = '0.5'"),
    (lambda lines: [*lines, '{"id": true}'], "whole number or a text"),
    (lambda lines: [*lines, "[" * 100_000], "line 13"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGED)
def test_bad_data_are_one_line_and_no_file(folder, capsys, damage, said):
    path = folder / "train.jsonl"
    path.write_text("\n".join(damage(path.read_text().splitlines())))
    assert said in refused(capsys, "upsample", path, folder / "losses.npz", "--quiet")
    assert sorted(found.name for found in folder.iterdir()) == ["losses.npz", "train.jsonl"]


def test_half_a_surrogate_pair(folder, capsys):
    (folder / "train.jsonl").write_text('{"id": "\\ud800"}\n')
    assert "half of a surrogate pair" in refused(
        capsys, "upsample", folder / "train.jsonl", folder / "losses.npz", "--quiet"
    )


def test_a_file_that_cannot_be_read(folder, capsys):
    (folder / "memory.jsonl").symlink_to("/proc/self/mem")
    said = refused(capsys, "upsample", folder / "memory.jsonl", folder / "losses.npz", "--quiet")
    assert "cannot be read" in said


def test_bytes_that_are_no_text(folder, capsys):
    (folder / "train.jsonl").write_bytes(b'{"id": "\xff"}\n')
    assert "line 1" in refused(capsys, "upsample", folder / "train.jsonl", folder / "losses.npz", "--quiet")


@pytest.mark.parametrize("name", ["train.txt", "none.jsonl", "folder.jsonl", "text.parquet", "empty.parquet"])
def test_what_is_no_data_file(folder, capsys, name):
    (folder / "train.txt").write_text("x")
    (folder / "folder.jsonl").mkdir()
    (folder / "text.parquet").write_text("PAR1")
    pa.parquet.write_table(pa.table({"id": pa.array([], pa.string())}), folder / "empty.parquet")
    assert "data = " in refused(capsys, "upsample", folder / name, folder / "losses.npz", "--quiet")


def test_bad_losses_are_named(folder, capsys):
    for change, said in (
        ({"losses": np.where(np.arange(COUNT) == 3, np.nan, LOSSES)}, "loss of 'example-3' at step 0 = nan"),
        ({"steps": STEPS[:1], "losses": LOSSES[:1]}, "1 checkpoint"),
        ({"ids": np.array([*IDS[:-1], IDS[0]])}, "it occurs 2 times"),
        ({"ids": np.array([*IDS[:-1], "other"])}, "'example-11': it and 0 more of 12 have no losses"),
    ):
        np.savez(folder / "bad.npz", **{"steps": STEPS, "losses": LOSSES, "ids": np.array(IDS), **change})
        assert said in refused(capsys, "upsample", folder / "train.jsonl", folder / "bad.npz", "--quiet")
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES[:, 1:]), folder / "short.npz")
    said = refused(capsys, "upsample", folder / "train.jsonl", folder / "short.npz", "--quiet")
    assert "the data have 12 rows" in said


def test_bad_tables_of_paraphrases(folder, capsys):
    for entry, said in (
        ({"id": "example-99", "question": "?"}, "'example-99': it and 0 more of 1 are no examples"),
        ({"question": "?"}, "it has no field 'id'"),
        ({"id": "example-0", "text": "?"}, "none of the fields of the data"),
    ):
        table = write_data(folder / "table.jsonl", [entry])
        options = ("--augment", table, "--factor", 2, "--quiet")
        assert said in refused(capsys, "upsample", folder / "train.jsonl", folder / "losses.npz", *options)
    data = write_data(folder / "train.parquet", rows())
    table = write_data(folder / "table.jsonl", [{"id": "example-0", "question": ["a", "list"]}])
    before = sorted(path.name for path in folder.iterdir())
    for options in ((), ("--out", folder / "new" / "folder" / "out.parquet")):
        options = ("--augment", table, "--factor", 2, "--quiet", *options)
        assert "do not fit the fields" in refused(capsys, "upsample", data, folder / "losses.npz", *options)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_nothing_is_overwritten(folder, capsys):
    assert upsample(folder) == 0
    capsys.readouterr()
    before = (folder / "train-upsampled.jsonl").read_bytes()
    assert "it exists" in refused(capsys, "upsample", folder / "train.jsonl", folder / "losses.npz", "--factor", 2)
    assert "it exists" in refused(
        capsys, "upsample", folder / "train.jsonl", folder / "losses.npz", "--out", folder / "train.jsonl"
    )
    assert (folder / "train-upsampled.jsonl").read_bytes() == before


def test_a_full_disk_and_a_place_that_cannot_be_written(folder, capsys):
    command = [sys.executable, "-m", "icl_theory", "upsample", "train.jsonl", "losses.npz", "--quiet"]
    limit = 4 * 10**4  # of the size of a file: the set fits, its picture does not
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"MPLCONFIGDIR": str(folder.parent)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["losses.npz", "train.jsonl"]
    assert (
        run_command("upsample", folder / "train.jsonl", folder / "losses.npz", "--quiet", "--out", "/proc/x/o.jsonl")
        == 2
    )
    assert "cannot be written" in one_line(capsys)


def test_being_stopped_leaves_nothing_half_written(folder, monkeypatch, capsys):
    """As a batch system does it, when all rows are written and none is in place yet."""
    before = sorted(path.name for path in folder.iterdir())
    stop = lambda *_: signal.raise_signal(signal.SIGTERM)  # noqa: E731
    monkeypatch.setattr("icl_theory.upsampling.text_rows.check_unchanged", stop)
    out = folder / "new" / "out.jsonl"
    assert run_command("upsample", folder / "train.jsonl", folder / "losses.npz", "--quiet", "--out", out) == 130
    assert "nothing was left half written" in one_line(capsys)
    assert sorted(path.name for path in folder.iterdir()) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    options=st.lists(
        st.sampled_from(
            [
                ("--factor", "2"),
                ("--factor", "nan"),
                ("--late", "clusters"),
                ("--late", "quantile=0.9"),
                ("--seed", "7"),
            ]
            + [("--rule", rule) for rule in ("ratio", "match", "secant")]
            + [("--floor", floor) for floor in ("zero", "last", "losses.npz")]
            + [("--remaining", value) for value in ("0.3", "0", "2")]
            + [("--write", what) for what in ("weights", "indices", "data")]
            + [("--group", group) for group in ("late", "random", "early")]
            + [("--target", "1.5"), ("--max-factor", "2"), ("--other", "losses.npz"), ("--tried-factor", "2")]
            + [("--augment", "train.jsonl"), ("--id-field", "id"), ("--by-row",), ("--late", "threshold=0.9")]
        ),
        max_size=5,
    ),
    losses=st.sampled_from(["losses.npz", "rows.csv", "train.jsonl"]),
)
def test_any_options_end_well_or_in_one_line(folder, capsys, options, losses):
    here = Path.cwd()
    os.chdir(folder)
    try:
        if not (folder / "rows.csv").exists():
            icl.save_loss_record(icl.LossRecord(STEPS, LOSSES), folder / "rows.csv")
        words = [word for option in options for word in option]
        code = run_command("upsample", "train.jsonl", losses, "--dry-run", "--quiet", *words)
        if code:
            assert code == 2
            one_line(capsys)
        else:
            assert "factor" in printed_by(capsys)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"instruction": "Add", "input": "1, 2", "output": "3"}, "Add\n1, 2", "3"),
        ({"prompt": "1 + 1", "response": "2"}, "1 + 1", "2"),
        ({"problem": "1 + 1", "solution": 2}, "1 + 1", "2"),
        (
            {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Ho"}]},
            "Hi",
            "Ho",
        ),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}, "Hi", "Ho"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "Hi", ""),
        ({"text": "all"}, "all", ""),
    ],
)
def test_fields_of_the_usual_shapes(row, prompt, completion):
    found = texts_of(row)
    assert (found is None) == (prompt is None)
    assert found is None or found == (prompt, completion, "text" in row)


def test_an_optimizer_has_its_own_factor_or_none(tmp_path, capsys):
    """Of twelve rows four are late: in batches of one a factor helps AdamW, in batches of twelve one of 2 does not."""
    data = write_data(tmp_path / "train.jsonl", rows())
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES, IDS), tmp_path / "losses.npz")
    noisy = sparse(1 / 3, COUNT)._replace(variance=np.full((1, 1, 2, 2), 1e6))
    save_noise_scale(noisy, tmp_path / "noise.npz")
    command = ["upsample", data, tmp_path / "losses.npz", "--late", "quantile=0.67", "--quiet"]
    found = {}
    for name, options in {
        "one": ["1"],
        "all": ["12", "--max-factor", 2],
        "noisy": ["12", "--noise-scale", tmp_path / "noise.npz"],
    }.items():
        out = tmp_path / f"{name}.jsonl"
        assert run_command(*command, "--optimizer", "adamw", "--out", out, "--batch-size", *options) == 0
        found[name] = len(read_data(out)), capsys.readouterr().out
    assert found["one"][0] > COUNT
    assert "AdamW in batches of 1, by groups that share nothing: R 4 →" in found["one"][1]
    assert found["all"][0] == COUNT
    assert "no factor changes the pace" in found["all"][1]
    assert found["noisy"][0] == COUNT + 3 * 4  # as under SGD: each late row four times
    assert "the measured noise: R 4 → 1" in found["noisy"][1]
    assert "the set has 12 examples" in refused(capsys, *command, "--optimizer", "adamw", "--batch-size", 13)
    assert "no law says" in refused(capsys, *command, "--optimizer", "muon")
    assert "belongs to an optimizer" in refused(capsys, *command, "--noise-scale", tmp_path / "noise.npz")
    options = ["--optimizer", "sgd", "--noise-scale", data]
    assert "finetune --noise-scale" in refused(capsys, *command, *options)
