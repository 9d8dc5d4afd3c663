"""`icl-theory finetune`: training by weights, given or chosen by upsampling."""

import json

import numpy as np
import pytest
from finetune_command import QUICK
from helpers import refused, run_command

import icl_theory as icl


def test_what_finetune_chose_can_be_trained_by(tmp_path, model, digits, capsys):
    """The weights of the rows that fit, given again with the data that hold one more."""
    options = ["--recorded-steps", 6, "--record-every", 2, "--steps", 6, "--factor", 2, "--remaining", 0.95, *QUICK]
    assert run_command("finetune", model, digits, "--out", tmp_path / "first", "--upsample", *options) == 0
    weights_file = tmp_path / "first" / "warmup" / "weights.csv"
    options = ["--weights", weights_file, "--steps", 6, *QUICK]
    assert run_command("finetune", model, digits, "--out", tmp_path / "second", *options) == 0
    rows = [
        json.loads((tmp_path / name / "report.json").read_text())["examples"]["rows"] for name in ("first", "second")
    ]
    assert rows[0] == rows[1] == 30


def test_weights_from_a_file_are_trained_by(tmp_path, model, digits, capsys):
    np.save(tmp_path / "weights.npy", np.r_[np.zeros(10), np.full(10, 2.0), 1.0])
    options = ["--weights", tmp_path / "weights.npy", "--epochs", 1, "--record-every", 5, *QUICK]
    assert run_command("finetune", model, digits, "--out", tmp_path / "out", *options) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["examples"]["rows"] == 20
    assert report["steps"] == 5
    record = icl.load_loss_record(tmp_path / "out" / "losses.zarr")
    assert record.steps.tolist() == [0, 5]
    assert record.num_examples == 20  # those without weight are looked at too

    np.save(tmp_path / "weights.npy", np.r_[np.zeros(10), np.full(10, 2.0), 0.0])
    error = refused(capsys, "finetune", model, digits, "--out", tmp_path / "out", *options)
    assert "holds another job" in error


@pytest.mark.parametrize(("equal", "steps"), [("epochs", 20), ("steps", 10)])
def test_weights_at_equal_epochs_or_equal_steps(tmp_path, model, digits, capsys, equal, steps):
    """20 examples fit, in rows of 4, and all are doubled: two epochs take 20 steps, those of the plain run 10."""
    np.save(tmp_path / "weights.npy", np.full(21, 2.0))
    options = ["--weights", tmp_path / "weights.npy", "--epochs", 2, "--equal", equal, "--dry-run", *QUICK]
    assert run_command("finetune", model, digits, *options) == 0
    assert f"{steps} steps of 4 rows\n" in capsys.readouterr().out


def test_upsampling_at_equal_steps(tmp_path, model, digits, capsys):
    out = tmp_path / "out"
    options = ["--upsample", "--factor", 3, "--remaining", 0.9, "--recorded-steps", 8, "--record-every", 2]
    options += ["--epochs", 1, "--equal", "steps", *QUICK]
    assert run_command("finetune", model, digits, "--out", out, *options) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["examples"]["rows"] > 20
    assert report["steps"] == 5
    assert run_command("finetune", model, digits, "--dry-run", *options) == 0
    assert "5 steps of 4 rows\n" in capsys.readouterr().out


def test_settings_of_upsampling_may_change_until_something_was_chosen(tmp_path, model, digits, capsys, monkeypatch):
    options = [
        "--out",
        tmp_path / "out",
        "--steps",
        4,
        "--recorded-steps",
        2,
        "--record-every",
        2,
        "--upsample",
        *QUICK,
    ]
    options[-2] = 1e-4  # next to nothing is learned
    assert run_command("finetune", model, digits, *options) == 2
    said = capsys.readouterr()
    assert "no example is learned" in said.out
    assert "change --late or --remaining" in said.err
    assert run_command("finetune", model, digits, *options, "--remaining", 0.999, "--factor", 2) == 0
    capsys.readouterr()
    error = refused(capsys, "finetune", model, digits, *options, "--remaining", 0.999, "--factor", 3)
    assert "holds another job (factor was 2.0, now 3.0)" in error
