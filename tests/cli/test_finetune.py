"""`icl-theory finetune`: the whole job in a folder, the same after a stop, and one line for whatever is wrong."""

import csv
import json
import os
import shutil
import subprocess
import sys

import click
import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from flax import nnx
from helpers import refused, run_command
from safetensors.numpy import load_file
from tiny_model import write_rows, write_tiny_model

import icl_theory as icl
from icl_theory.cli import finetune as command
from icl_theory.llm.job import job as jobs
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.training.run_checkpoints import Checkpoints
from icl_theory.upsampling.noise_scale import load_noise_scale

QUICK = ["--length", 16, "--batch-size", 4, "--learning-rate", 0.005, "--quiet"]


def weights(folder):
    return jax.tree.leaves(nnx.state(load_decoder(folder), nnx.Param))


@pytest.fixture
def digits(tmp_path):
    """Always the same answer, learned early; to double a digit, learned late; a row that is too long."""
    same = [{"question": f"say {letter}", "answer": "no", "kind": "same"} for letter in "abcdefghij"]
    double = [{"question": f"{digit}+{digit}=", "answer": f"{2 * digit}", "kind": "double"} for digit in range(10)]
    long = [{"question": "a" * 40, "answer": "1", "kind": "long"}]
    return write_rows(tmp_path / "digits.jsonl", same + double + long)


@pytest.fixture
def asked(tmp_path, digits):
    return write_rows(tmp_path / "asked.jsonl", [json.loads(line) for line in digits.read_text().splitlines()[:20]])


@pytest.fixture
def model(tmp_path):
    return write_tiny_model(tmp_path / "model", chat=True)


def test_a_whole_job(tmp_path, model, digits, asked, capsys):
    out = tmp_path / "out"
    arguments = ["finetune", model, digits, "--out", out, "--eval", asked, "--max-new", 4, *QUICK]
    arguments += ["--upsample", "--recorded-steps", 60, "--record-every", 6, "--steps", 100, "--max-factor", 3]
    arguments += ["--noise-scale"]
    assert run_command(*arguments) == 0
    said = capsys.readouterr().out
    assert "1 that are longer than --length; the longest has 44 tokens" in said
    report = json.loads((out / "report.json").read_text())
    assert "20 problems, 20 of them also in the data" in said
    after = report["after"]
    assert report["before"]["accuracy"] < 0.2
    assert after["by_kind"]["same"]["accuracy"] == 1
    assert after["accuracy"] >= 0.5
    assert list(after["by_kind"]) == ["double", "same"]
    low, high = after["interval"]
    assert low < after["accuracy"] <= high <= 1
    assert after["count"] == 20
    replies = [json.loads(line) for line in (out / "after.jsonl").read_text().splitlines()]
    assert np.mean([reply["right"] for reply in replies]) == after["accuracy"]
    assert all(reply["reply"] == reply["answer"] for reply in replies if reply["right"])

    record = icl.load_loss_record(out / "warmup" / "losses.zarr")
    assert record.steps.tolist() == list(range(0, 61, 6))
    assert record.num_examples == 20
    found = icl.upsample(record, max_factor=3.0)
    table = list(csv.DictReader((out / "warmup" / "weights.csv").open()))
    assert [row["row"] for row in table] == [str(row) for row in range(20)]
    np.testing.assert_allclose([float(row["weights"]) for row in table], found.weights)
    assert report["upsampling"]["factor"] == found.factor > 1
    assert found.late[10:].all()
    assert report["examples"] == {"given": 21, "used": 20, "rows": len(found.indices())}
    noise = load_noise_scale(out / "warmup" / "noise.npz")
    assert noise.steps.tolist() == [0, 3, 15, 60]  # the start, a sixteenth, a quarter, the end
    assert noise.counts.tolist() == [np.sum(~found.late), found.late.sum()]
    early, late = noise.critical_batch()[0, 0]
    assert f"step 0: early {early:.3g} (" in said
    assert f"late {late:.3g} (" in said
    assert "by adamw's law at batches of 4" in said
    assert f"factor {found.factor:.3g}: R × " in said
    again = icl.upsample(record, optimizer="adamw", batch_size=4, noise=noise)  # it goes into the rule
    assert "the measured noise" in again.why
    assert (out / "warmup" / "upsampling.png").stat().st_size > 10_000
    assert not (out / "warmup" / "run").exists()

    curve = np.loadtxt(out / "loss.csv", delimiter=",", skiprows=1)
    assert curve[:, 0].tolist() == list(range(100))
    assert curve[-10:, 1].mean() == pytest.approx(report["loss"]["last"], rel=1e-4)
    assert load_decoder(out / "model").config == load_decoder(model).config
    assert (out / "model" / "tokenizer.json").is_file()

    before = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file())
    assert run_command(*arguments) == 0
    assert "done already" in capsys.readouterr().out
    assert before == sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize("saves", [1, 4])  # in the first run, in the other
def test_a_job_that_was_stopped_goes_on_to_the_same_end(tmp_path, model, digits, capsys, monkeypatch, saves):
    options = ["--upsample", "--recorded-steps", 8, "--record-every", 2, "--steps", 12, "--save-every", 4, *QUICK]
    options += ["--sharpness", "fsam", "--optimizer", "muon", "--packing", "--factor", 2, "--remaining", 0.9]
    options += ["--noise-scale"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_command("finetune", model, digits, "--out", whole, *options) == 0
    save, count = Checkpoints.save, []

    def stopping(self, *arguments):
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


def test_adapters_are_saved_alone_and_merged(tmp_path, model, digits, capsys):
    """`model` plus `(α/r) B A` of `adapter` in the named matrices, and nothing else changed."""
    out = tmp_path / "out"
    options = ["--lora-rank", 2, "--lora-alpha", 6, "--lora-dropout", 0.1, "--lora-matrices", "key, down"]
    options += ["--epochs", 2, "--packing", *QUICK]
    assert run_command("finetune", model, digits, "--out", out, *options) == 0
    assert "rank 2 on key, down: 0.000576 million weights" in capsys.readouterr().out
    described = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == str(model)
    assert described["target_modules"] == ["down_proj", "k_proj"]
    adapter = load_file(out / "adapter" / "adapter_model.safetensors")
    before, after = (load_file(folder / "model.safetensors") for folder in (model, out / "model"))
    for name, weight in before.items():
        a, b = (adapter.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{x}.weight") for x in "AB")
        assert (a is not None) == ("k_proj" in name or "down_proj" in name)
        np.testing.assert_allclose(after[name], weight if a is None else weight + 3 * b @ a, rtol=1e-5, atol=1e-7)
        assert a is None or np.abs(b).max() > 1e-3


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


def test_ids_are_asked_for_only_where_they_are_used(tmp_path, model, capsys):
    twice = write_rows(tmp_path / "twice.jsonl", [{"id": 1, "question": f"a{n}", "answer": "b"} for n in range(4)])
    options = ["--steps", 2, *QUICK]
    assert run_command("finetune", model, twice, "--out", tmp_path / "plain", *options) == 0
    capsys.readouterr()
    options += ["--record-every", 1]
    assert "it occurs 4 times" in refused(capsys, "finetune", model, twice, "--out", tmp_path / "out", *options)
    assert run_command("finetune", model, twice, "--out", tmp_path / "out", *options, "--id-field", "row") == 0
    assert icl.load_loss_record(tmp_path / "out" / "losses.zarr").ids.to_pylist() == list("0123")


def test_replies_are_read_back_whatever_the_texts_hold(tmp_path, model, capsys, monkeypatch):
    rows = [{"question": "1\u20282\u0085", "answer": "b", "kind": "all"}, {"question": "a", "answer": "b", "kind": "b"}]
    data = write_rows(tmp_path / "data.jsonl", rows)
    options = ["--out", tmp_path / "out", "--steps", 2, "--eval", data, "--max-new", 2, *QUICK]
    monkeypatch.setattr("icl_theory.llm.job.job.save_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run_command("finetune", model, data, *options) == 130
    monkeypatch.undo()
    assert run_command("finetune", model, data, *options) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["after"]["count"] == 2
    assert report["after"]["by_kind"]["all"]["count"] == 1
    (tmp_path / "out" / "report.json").write_text("{")
    capsys.readouterr()
    assert "it is damaged" in refused(capsys, "finetune", model, data, *options)


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
    """Of 20 examples that fit, in rows of 4, all doubled: two epochs are 20 steps, and 10 of the plain run."""
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


def test_a_dry_run_writes_nothing(tmp_path, model, digits, capsys):
    options = ["--upsample", "--epochs", 2, *QUICK]
    assert run_command("finetune", model, digits, "--out", tmp_path / "out", "--dry-run", *options) == 0
    said = capsys.readouterr().out
    assert "5 steps, the losses of all examples each 1" in said
    assert "10 steps of 4 rows, more when upsampled" in said
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--late", "quantile=0.2"], "--late = 'quantile=0.2': it belongs to --upsample"),
        (["--upsample", "--late", "soon"], "late"),
        (["--upsample", "--weights", "w.npy"], "weights"),
        (["--steps", 3, "--epochs", 2], "--epochs"),
        (["--epochs", 0], "epochs"),
        (["--steps", 3, "--equal", "steps"], "equal = 'steps': it counts epochs"),
        (["--accumulate", 3], "accumulate"),
        (["--length", 3], "no example fits; the shortest has"),
        (["--weights", "nowhere.npy"], "there is no such file"),
        (["--recorded-steps", 5], "it belongs to upsampling"),
        (["--noise-scale"], "it belongs to upsampling"),
        (["--id-field", "name", "--record-every", 2], "none in row 0"),
        (["--shards", 3], "it must divide the number of devices"),
        (["--preconditioner", "current"], "it needs adamw"),
        (["--lora-alpha", 4], "lora_alpha = 4.0: it belongs to adapters; give lora_rank too"),
        (["--lora-rank", 2, "--lora-matrices", "query,w"], "lora_matrices = 'w': give one of query"),
        (["--eval", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--learning-rate", "nan"], "learning_rate"),
        (["--save-every", 0], "save_every"),
        (["--record-every", 0], "record_every"),
        (["--steps", 10**13], "num_steps"),
        (["--by", "kind"], "it belongs to an evaluation"),
        (["--max-new", 5], "it belongs to --eval"),
        (["--length", 65], "the model reads 64 tokens at most"),
        (["--shards", 0], "give a whole number at least 1"),
        (["--preconditioner", "past", "--dry-run"], "it needs adamw"),
    ],
)
def test_options_that_do_not_fit(tmp_path, model, digits, capsys, options, said):
    error = refused(capsys, "finetune", model, digits, "--out", tmp_path / "out", *QUICK, *options)
    assert said in error


def test_models_data_and_folders_that_do_not_fit(tmp_path, model, digits, capsys, monkeypatch):
    out = ["--out", tmp_path / "out", "--steps", 1, *QUICK]
    assert "no such folder or file" in refused(capsys, "finetune", tmp_path / "nowhere", digits, *out)
    described = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(described | {"model_type": "bert"}))
    error = refused(capsys, "finetune", model, digits, *out)
    assert "bert" in error
    assert "qwen3" in error
    (model / "config.json").write_text(json.dumps(described))
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": "abc"}])
    for dry in ([], ["--dry-run"]):
        assert "questions with answers" in refused(capsys, "finetune", model, digits, "--eval", texts, *out, *dry)
    long = write_rows(tmp_path / "long.jsonl", [{"question": "a" * 60, "answer": "b", "kind": "all"}])
    assert "with prompts of up to 62" in refused(
        capsys, "finetune", model, digits, "--eval", long, "--max-new", 9, *out
    )
    assert "no problem has it" in refused(capsys, "finetune", model, digits, "--eval", long, "--by", "colour", *out)
    half = write_rows(tmp_path / "half.jsonl", [{"question": "\ud800", "answer": "b"}])
    assert "row 0, text" in refused(capsys, "finetune", model, half, *out)
    silent = write_rows(tmp_path / "silent.jsonl", [{"question": "a", "answer": ""}])
    assert "none has an answer" in refused(capsys, "finetune", model, silent, *out)
    for broken in ({"num_attention_heads": 0}, {"hidden_size": "x"}, {"rope_scaling": "linear"}):
        (model / "config.json").write_text(json.dumps(described | broken))
        refused(capsys, "finetune", model, digits, *out)
    (model / "config.json").write_text(json.dumps(described))
    tokenizer = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text("{}")
    assert "tokenizer" in refused(capsys, "finetune", model, digits, *out)
    (model / "tokenizer.json").write_text(tokenizer)
    assert not (tmp_path / "out").exists()
    assert "give instruction/output" in refused(
        capsys, "finetune", model, write_rows(tmp_path / "odd.jsonl", [{"a": "b"}]), *out
    )
    spoken = [
        {"role": "system", "content": "x"},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"},
    ]
    refusing = write_rows(tmp_path / "spoken.jsonl", [{"messages": spoken}])
    assert "no system here" in refused(capsys, "finetune", model, refusing, *out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    options = ["--out", tmp_path / "full", *QUICK]
    assert "holds other things" in refused(capsys, "finetune", model, digits, *options)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


def test_the_hub_out_of_reach(tmp_path, digits, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    error = refused(capsys, "finetune", "nobody/nothing-of-this-name", digits, "--out", tmp_path / "out")
    assert "the hub" in error


def test_out_of_memory_says_what_to_lower(tmp_path, model, digits, capsys):
    described = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(described | {"max_position_embeddings": 10**9}))
    options = [
        "--out",
        tmp_path / "out",
        "--length",
        4_000_000,
        "--batch-size",
        4,
        "--steps",
        1,
        "--packing",
        "--quiet",
    ]
    error = refused(capsys, "finetune", model, digits, *options)
    assert "lower --batch-size or --length" in error


def test_a_job_knows_the_files_of_a_folder(tmp_path):
    for part in range(2):
        (tmp_path / "set").mkdir(exist_ok=True)
        table = pa.table({"question": ["a"], "answer": [str(part)]})
        pa.parquet.write_table(table, tmp_path / "set" / f"{part}.parquet")
    job = jobs.Job("model", str(tmp_path / "set"), evaluation="hf://some/set")
    files = job.described()["files"]
    assert list(files) == [str(tmp_path / "set" / f"{part}.parquet") for part in range(2)]
    shutil.copyfile(tmp_path / "set" / "0.parquet", tmp_path / "set" / "1.parquet")
    assert job.described()["files"] != files


def test_what_the_extra_brings_is_named_where_it_is_missing(tmp_path, model, digits, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "icl_theory.llm.job.job", None)
    assert "icl-theory[llm]" in refused(capsys, "finetune", model, digits, "--out", tmp_path / "out")


def test_a_tokenizer_that_ends_texts_otherwise_is_doubted(tmp_path, model, digits, capsys):
    options = ["finetune", model, digits, "--out", tmp_path / "out", "--dry-run", *QUICK]
    assert run_command(*options) == 0
    assert "doubt" not in capsys.readouterr().out
    described = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(described | {"eos_token_id": [3, 4]}))
    assert run_command(*options) == 0
    assert "ends texts by token 0, config.json by [3, 4]" in capsys.readouterr().out


def test_a_row_whose_text_is_none_is_named(tmp_path, model, capsys):
    rows = write_rows(tmp_path / "odd.jsonl", [{"question": "a", "answer": "b"}, {"question": "a", "answer": {"b": 1}}])
    assert "row 1, answer = " in refused(capsys, "finetune", model, rows, "--out", tmp_path / "out", *QUICK)


class TimedOut(Exception):
    """As libraries that carry bytes have them."""


@pytest.mark.parametrize("error", [TimedOut("timed out"), RuntimeError("cut"), OSError()])
def test_a_download_that_breaks_off_is_one_line(tmp_path, digits, capsys, monkeypatch, error):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("icl_theory.llm.model.pretrained.snapshot_download", broken)
    assert "some/model" in refused(capsys, "finetune", "some/model", digits, "--out", tmp_path / "out")


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path, model, digits, capsys, monkeypatch):
    """And the same command goes on."""
    arguments = ["finetune", model, digits, "--out", tmp_path / "out", "--steps", 4, "--save-every", 2, *QUICK]

    def full(*_, **__):
        raise ValueError("OUT_OF_RANGE: File too large")

    with monkeypatch.context() as patched:
        patched.setattr("orbax.checkpoint.CheckpointManager.save", full)
        assert "free space, then give the same command" in refused(capsys, *arguments)
    assert run_command(*arguments) == 0


def test_replies_that_are_cut_off_are_counted(tmp_path, model, digits, asked, capsys):
    arguments = ["finetune", model, digits, "--out", tmp_path / "out", "--eval", asked, "--max-new", 1]
    assert run_command(*arguments, "--steps", 1, *QUICK) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    replies = [json.loads(line) for line in (tmp_path / "out" / "before.jsonl").read_text().splitlines()]
    assert report["before"]["cut"] == sum(reply["cut"] for reply in replies) > 0
    assert f"{report['before']['cut']} replies before" in capsys.readouterr().out


def test_every_option_of_a_run_is_one_of_its_settings():
    options = {option.name for option in command.finetune_command.params}
    assert set(jobs.FinetuneConfig.__dataclass_fields__) - {"num_steps"} <= options
    context = click.Context(command.finetune_command)
    defaults = {option.name: option.get_default(context) for option in command.finetune_command.params}
    for name, field in jobs.FinetuneConfig.__dataclass_fields__.items():
        if name != "num_steps":
            assert (False if field.default is False and defaults[name] is None else defaults[name]) == field.default


HOST = """
import os, sys
from icl_theory.cli import main
from icl_theory.llm.training.run_checkpoints import Checkpoints
from icl_theory.upsampling.noise_scale import load_noise_scale
save, count, most = Checkpoints.save, [], int(sys.argv[1])
def stopping(self, *arguments):
    save(self, *arguments)
    count.append(1)
    if len(count) == most:
        raise KeyboardInterrupt
Checkpoints.save = stopping
main(sys.argv[2:])
"""


def two_hosts(saves, *arguments):
    """Exit codes of two processes, each with two devices, that a cluster has started; stopped at a checkpoint."""
    cluster = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(saves), *map(str, arguments)],
            env=os.environ | cluster | {"SLURM_PROCID": str(host), "SLURM_LOCALID": str(host)},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for host in range(2)
    ]
    said = [host.communicate(timeout=300) for host in hosts]
    return [host.returncode for host in hosts], said


def test_several_hosts_do_what_one_does(tmp_path, model, digits, asked):
    options = ["--upsample", "--recorded-steps", 8, "--remaining", 0.9, "--steps", 8, "--save-every", 4, *QUICK]
    options += ["--eval", asked, "--max-new", 2]
    alone, hosts = tmp_path / "alone", tmp_path / "hosts"
    assert run_command("finetune", model, digits, "--out", alone, *options) == 0
    arguments = ["finetune", model, digits, "--out", hosts, *options, "--multi-host", "--shards", 2]
    assert two_hosts(3, *arguments)[0] == [130, 130]  # at step 4 of the run on the upsampled set
    codes, said = two_hosts(0, *arguments)
    assert codes == [0, 0], said
    assert ["wrote" in out for out, _ in said] == [True, False]  # the first host speaks for all
    curves = [np.loadtxt(folder / "loss.csv", delimiter=",", skiprows=1) for folder in (alone, hosts)]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
    for ours, theirs in zip(weights(alone / "model"), weights(hosts / "model"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (alone, hosts)]
    assert reports[0]["upsampling"]["upsampled"] == reports[1]["upsampling"]["upsampled"]
