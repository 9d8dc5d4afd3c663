"""`icl-theory finetune`: the whole job in a folder, and what its reports and replies say."""

import csv
import json
import shutil

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from finetune_command import QUICK
from helpers import refused, run_command
from safetensors.numpy import load_file
from tiny_model import write_rows

import icl_theory as icl
from icl_theory.cli import finetune as command
from icl_theory.llm.job import job as jobs
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.upsampling.noise_scale import load_noise_scale


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


def test_a_dry_run_writes_nothing(tmp_path, model, digits, capsys):
    options = ["--upsample", "--epochs", 2, *QUICK]
    assert run_command("finetune", model, digits, "--out", tmp_path / "out", "--dry-run", *options) == 0
    said = capsys.readouterr().out
    assert "5 steps, the losses of all examples each 1" in said
    assert "10 steps of 4 rows, more when upsampled" in said
    assert not (tmp_path / "out").exists()


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


def test_a_tokenizer_that_ends_texts_otherwise_is_doubted(tmp_path, model, digits, capsys):
    options = ["finetune", model, digits, "--out", tmp_path / "out", "--dry-run", *QUICK]
    assert run_command(*options) == 0
    assert "doubt" not in capsys.readouterr().out
    described = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(described | {"eos_token_id": [3, 4]}))
    assert run_command(*options) == 0
    assert "ends texts by token 0, config.json by [3, 4]" in capsys.readouterr().out


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
