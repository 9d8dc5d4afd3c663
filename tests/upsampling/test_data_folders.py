"""Folders of Parquet files: shards of one split are one set, and anything else is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from set_rows import COPIES, ROWS

from icl_theory.errors import InputError
from icl_theory.upsampling.data_files import copy_unchanged, open_data


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
