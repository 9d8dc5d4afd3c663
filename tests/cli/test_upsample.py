"""`icl-theory upsample`: files of every shape come back upsampled, in order, by the rule that was asked for."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from helpers import refused, run_command
from late_rows import (
    COUNT,
    IDS,
    LATE,
    LOSSES,
    SHAPES,
    STEPS,
    expected,
    printed_by,
    read_data,
    rows,
    upsample,
    write_data,
)

import icl_theory as icl
from icl_theory.upsampling import parquet_data
from icl_theory.upsampling.conversations import texts_of
from icl_theory.upsampling.noise_scale import save_noise_scale, sparse


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
    assert "AdamW in batches of 1, if late and early share no feature: R 4 →" in found["one"][1]
    assert found["all"][0] == COUNT
    assert "no factor up to 2 lowers R by a tenth" in found["all"][1]
    assert found["noisy"][0] == COUNT + 3 * 4  # as under SGD: each late row four times
    assert "the measured noise: R 4 → 1" in found["noisy"][1]
    assert "the set has 12 examples" in refused(capsys, *command, "--optimizer", "adamw", "--batch-size", 13)
    assert "no law says" in refused(capsys, *command, "--optimizer", "muon")
    assert "belongs to an optimizer" in refused(capsys, *command, "--noise-scale", tmp_path / "noise.npz")
    options = ["--optimizer", "sgd", "--noise-scale", data]
    assert "finetune --noise-scale" in refused(capsys, *command, *options)
