"""Weights, copies and indices written by `icl-theory upsample` are read back as how often each row is trained on."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from helpers import run_command
from tiny_model import write_rows

import icl_theory as icl
from icl_theory.errors import InputError
from icl_theory.upsampling.selections import load_copies

ROWS = [{"id": f"00{row}", "question": str(row), "answer": "x"} for row in range(8)]


def losses(path, ids=None):
    pace = np.arange(1, 9)
    record = icl.LossRecord([0, 4, 8], np.exp(-np.array([[0], [4], [8]]) / pace), ids=ids)
    icl.save_loss_record(record, path)
    return path


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
@pytest.mark.parametrize("what", ["weights", "copies", "indices"])
def test_what_was_written_is_read(tmp_path, what, suffix, named):
    data = write_rows(tmp_path / "data.jsonl", ROWS)
    record = losses(tmp_path / "losses.npz", [row["id"] for row in ROWS] if named else None)
    out = tmp_path / f"chosen{suffix}"
    assert run_command("upsample", data, record, "--factor", 2, "--write", what, "--out", out, "--no-picture") == 0
    expected = icl.upsample(icl.load_loss_record(record), factor=2.0).copies()
    if what != "weights" and suffix == ".npy":
        with pytest.raises(InputError, match=r"as \.csv or \.parquet"):
            load_copies(out, ROWS)  # whole numbers that do not say what they are
        return
    np.testing.assert_array_equal(load_copies(out, ROWS), expected)
    if named and what != "indices" and suffix != ".npy":
        np.testing.assert_array_equal(load_copies(out, ROWS[::-1]), expected[::-1])


def test_weights_are_rounded_so_that_they_hold_on_average(tmp_path):
    weights = np.array([0.0, 0.25, 1.0, 1.5, 2.75, 0.5, 3.0, 1.0])
    np.save(tmp_path / "w.npy", weights)
    drawn = np.array([load_copies(tmp_path / "w.npy", ROWS, seed=seed) for seed in range(400)])
    assert np.all(drawn.sum(axis=1) == weights.sum())
    assert np.all((drawn == np.floor(weights)) | (drawn == np.ceil(weights)))
    error = np.sqrt((weights % 1) * (1 - weights % 1) / 400)
    assert np.all(np.abs(drawn.mean(axis=0) - weights) <= 4 * error)
    np.testing.assert_array_equal(drawn[3], load_copies(tmp_path / "w.npy", ROWS, seed=3))


@pytest.mark.parametrize(
    ("name", "table", "said"),
    [
        ("w.npy", np.ones(5), "the data have 8 rows"),
        ("w.npy", -np.ones(8), "give numbers from 0"),
        ("w.npy", np.zeros(8), "all are 0"),
        ("w.npy", np.full(8, 1e15), "from 0 to 1e"),
        ("w.npy", np.ones((2, 4)), "one weight for each row"),
        ("w.npy", np.array(["a"] * 8), "one weight for each row"),
        ("w.csv", {"row": [0, 1], "weights": [1.0, 2.0]}, "5 more rows of the data are not"),
        ("w.csv", {"row": [0, 1, 2, 3, 4, 5, 6, 6], "weights": [1.0] * 8}, "some twice"),
        ("w.csv", {"row": list(range(8)), "weights": ["a"] * 8}, "give numbers"),
        ("w.csv", {"name": [f"row{row}" for row in range(8)], "copies": [1] * 8}, "not in the file"),
        ("w.csv", {"id": [1], "loss": [2.0]}, "columns id, loss"),
        ("w.csv", {"indices": [0, 8]}, "whole numbers from 0 to 7"),
        ("w.parquet", {"indices": [0.5]}, "whole numbers from 0 to 7"),
        ("w.txt", None, "ends in .npy"),
    ],
)
def test_files_that_do_not_fit(tmp_path, name, table, said):
    path = tmp_path / name
    if isinstance(table, np.ndarray):
        np.save(path, table)
    elif table is None:
        path.write_text("1 2 3")
    elif path.suffix == ".csv":
        pa.csv.write_csv(pa.table(table), path)
    else:
        pyarrow.parquet.write_table(pa.table(table), path)
    with pytest.raises(InputError, match=said):
        load_copies(path, ROWS)


def test_files_that_are_damaged(tmp_path):
    for name in ("w.npy", "w.csv", "w.parquet"):
        (tmp_path / name).write_bytes(b"\x93NUMPY\x00" * 3)
        with pytest.raises(InputError, match=r"cannot be read|columns"):
            load_copies(tmp_path / name, ROWS)
    with pytest.raises(InputError, match="no such file"):
        load_copies(tmp_path / "nowhere.csv", ROWS)


def test_rows_that_are_not_used_need_no_weight(tmp_path):
    (tmp_path / "w.csv").write_text("id,copies\n" + "".join(f"00{row},2\n" for row in range(1, 8)))
    with pytest.raises(InputError, match="000"):
        load_copies(tmp_path / "w.csv", ROWS)
    used = np.arange(8) > 0
    assert load_copies(tmp_path / "w.csv", ROWS, used=used).tolist() == [0, *[2] * 7]
