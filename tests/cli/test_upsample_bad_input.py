"""`icl-theory upsample`: whatever is wrong is one line, and no file is left half written."""

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
from late_rows import COUNT, IDS, LOSSES, STEPS, printed_by, upsample

import icl_theory as icl

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
