"""`icl-theory upsample --augment`: paraphrases stand in for copies."""

import csv

from helpers import refused
from late_rows import LOSSES, STEPS, expected, printed_by, read_data, rows, upsample, write_data

import icl_theory as icl


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
