"""`icl-theory finetune`: a job that was stopped goes on to the same end, and one that failed is no model."""

import subprocess
import sys

import numpy as np
from finetune_command import QUICK, weights
from helpers import refused, run_command

import icl_theory as icl
from icl_theory.llm.training.run_checkpoints import Checkpoints
from icl_theory.upsampling.noise_scale import load_noise_scale


def test_a_job_that_was_stopped_goes_on_to_the_same_end(tmp_path, model, digits, monkeypatch):
    """Stopped in the first run, and in the other."""
    options = ["--upsample", "--recorded-steps", 8, "--record-every", 2, "--steps", 12, "--save-every", 4, *QUICK]
    options += ["--sharpness", "fsam", "--optimizer", "muon", "--packing", "--factor", 2, "--remaining", 0.9]
    options += ["--noise-scale"]
    whole, save = tmp_path / "whole", Checkpoints.save
    assert run_command("finetune", model, digits, "--out", whole, *options) == 0
    for saves in (1, 4):
        parts, count = tmp_path / f"stopped at {saves}", []

        def stopping(self, *arguments, saves=saves, count=count):
            save(self, *arguments)
            count.append(1)
            if len(count) == saves:
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoints, "save", stopping)
        assert run_command("finetune", model, digits, "--out", parts, *options) == 130
        assert not (parts / "report.json").exists()
        monkeypatch.undo()
        assert run_command("finetune", model, digits, "--out", parts, *options) == 0
        for name in ("loss.csv", "warmup/weights.csv"):
            assert (whole / name).read_bytes() == (parts / name).read_bytes()
        measured = [load_noise_scale(out / "warmup" / "noise.npz") for out in (whole, parts)]
        assert measured[0].steps.tolist() == [0, 1, 2, 8]
        for ours, theirs in zip(*measured, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(weights(whole / "model"), weights(parts / "model"), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        records = [icl.load_loss_record(folder / "warmup" / "losses.zarr") for folder in (whole, parts)]
        np.testing.assert_array_equal(records[0].losses, records[1].losses)


DISTURBED = """
import os, signal, sys, threading, time
from pathlib import Path
import orbax.checkpoint as ocp
from icl_theory.cli import main

kind, at = sys.argv.pop(1), int(sys.argv.pop(1))
save = ocp.CheckpointManager.save

def disturbed(self, step, **arguments):
    saved = threading.Event()

    def send():
        while not any(Path(self.directory).glob(f"{step}.orbax-checkpoint-tmp*")) and not saved.is_set():
            time.sleep(1e-4)
        for _ in range(50):
            for number in [signal.SIGKILL] if kind == "kill" else [signal.SIGTERM, signal.SIGINT]:
                os.kill(os.getpid(), number)
            time.sleep(1e-3)

    if step == at:
        threading.Thread(target=send, daemon=True).start()
    try:
        return save(self, step, **arguments)
    finally:
        saved.set()

ocp.CheckpointManager.save = disturbed
main()
"""


def disturbed(kind, step, *arguments):
    """A process that gets SIGKILL, or SIGTERM and Ctrl-C again and again, while it saves the checkpoint of a step."""
    command = [sys.executable, "-c", DISTURBED, kind, step, *arguments]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)


def test_signals_during_a_save_leave_whole_checkpoints(tmp_path, model, digits):
    options = ["--steps", 8, "--save-every", 2, *QUICK]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_command("finetune", model, digits, "--out", whole, *options) == 0
    arguments = ["finetune", model, digits, "--out", parts, *options]
    names = lambda: sorted(path.name for path in (parts / "run" / "checkpoints").iterdir())  # noqa: E731
    assert disturbed("kill", 4, *arguments).returncode == -9
    assert len([name for name in names() if "tmp" in name]) == 1
    (parts / ".model.abcdefgh").mkdir()  # as a process leaves it that was killed while it wrote the model
    stopped = disturbed("stop", 6, *arguments)
    assert stopped.returncode == 130
    assert stopped.stderr.strip() == "icl-theory: error: interrupted; the same command goes on from step 6"
    assert names() == ["4", "6"]
    assert not (parts / ".model.abcdefgh").exists()
    assert run_command(*arguments) == 0
    curves = [np.loadtxt(folder / "loss.csv", delimiter=",", skiprows=1) for folder in (whole, parts)]
    np.testing.assert_allclose(*curves, rtol=1e-4)  # parts of it in other processes, in another precision


def test_losses_recorded_before_a_stop_belong_to_their_job(tmp_path, model, digits, capsys, monkeypatch):
    """Stopped between checkpoints: the same command goes on, another is refused."""
    options = ["--record-every", 2, "--steps", 8, *QUICK]
    assert run_command("finetune", model, digits, "--out", tmp_path / "whole", *options) == 0
    add, count = icl.LossRecorder.add, []

    def stopping(self, *arguments):
        add(self, *arguments)
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(icl.LossRecorder, "add", stopping)
    assert run_command("finetune", model, digits, "--out", tmp_path / "parts", *options) == 130
    monkeypatch.undo()
    capsys.readouterr()
    error = refused(capsys, "finetune", model, digits, "--out", tmp_path / "parts", *options, "--seed", 1)
    assert "another job (seed was 0, now 1)" in error
    assert run_command("finetune", model, digits, "--out", tmp_path / "parts", *options) == 0
    assert (tmp_path / "whole" / "loss.csv").read_bytes() == (tmp_path / "parts" / "loss.csv").read_bytes()
    records = [icl.load_loss_record(tmp_path / name / "losses.zarr") for name in ("whole", "parts")]
    assert records[0].steps.tolist() == records[1].steps.tolist() == [0, 2, 4, 6, 8]
    np.testing.assert_array_equal(records[0].losses, records[1].losses)


def test_a_run_that_diverges_is_no_model(tmp_path, model, digits, capsys):
    options = [
        "--out",
        tmp_path / "out",
        "--length",
        16,
        "--steps",
        30,
        "--clip",
        0,
        "--learning-rate",
        1e30,
        "--quiet",
    ]
    assert "lower it, or clip" in refused(capsys, "finetune", model, digits, *options)
    assert not (tmp_path / "out" / "model").exists()
    assert not (tmp_path / "out" / "report.json").exists()
    options[options.index(1e30)] = 0.005  # nothing was kept of it, so that the folder is free
    assert run_command("finetune", model, digits, *options) == 0


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path, model, digits, capsys, monkeypatch):
    """And the same command goes on."""
    arguments = ["finetune", model, digits, "--out", tmp_path / "out", "--steps", 4, "--save-every", 2, *QUICK]

    def full(*_, **__):
        raise ValueError("OUT_OF_RANGE: File too large")

    with monkeypatch.context() as patched:
        patched.setattr("orbax.checkpoint.CheckpointManager.save", full)
        assert "free space, then give the same command" in refused(capsys, *arguments)
    assert run_command(*arguments) == 0
