"""`icl-theory upsample`: losses are matched to rows by id or place, and selections name the rows."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from late_rows import COUNT, IDS, LATE, LOSSES, STEPS, expected, read_data, rows, upsample, write_data

import icl_theory as icl
from icl_theory.upsampling.record_files import SUFFIXES


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


def test_ids_that_are_not_needed_are_not_looked_at(folder):
    write_data(folder / "train.jsonl", [entry | {"id": None} for entry in rows()])
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES), folder / "rows.npz")
    assert upsample(folder, "--factor", 2, losses="rows.npz") == 0
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES, np.arange(COUNT)), folder / "named.npz")
    assert upsample(folder, "--factor", 2, "--by-row", "--out", folder / "by-row.jsonl", losses="named.npz") == 0
