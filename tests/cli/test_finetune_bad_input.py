"""`icl-theory finetune`: whatever is wrong is one line."""

import json

import pytest
from finetune_command import QUICK
from helpers import refused
from tiny_model import write_rows


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


def test_what_the_extra_brings_is_named_where_it_is_missing(tmp_path, model, digits, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "icl_theory.llm.job.job", None)
    assert "icl-theory[llm]" in refused(capsys, "finetune", model, digits, "--out", tmp_path / "out")


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
