"""What steps of fine-tuning cost: measured side by side, ratios to AdamW, aims said to be met or missed."""

import json

import jax
import pytest
from click.testing import CliRunner

from experiments.benchmarks import language_models as bench
from icl_theory.llm.model.config import DecoderConfig

TINY = DecoderConfig(64, 16, 32, 2, 2, 2, 8)


def test_a_small_decoder_is_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(bench.SHAPES, bench.SMALL, TINY)
    out = tmp_path / "bench.json"
    words = ["--model", bench.SMALL, "--rows", "2", "--length", "8", "--repeats", "2", "--out", str(out)]
    made = CliRunner().invoke(bench.main, words)
    assert made.exit_code == 0, made.output
    rows = {(row["optimizer"], row["sharpness"]): row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == set(bench.STEPS)
    plain = rows["adamw", "none"]
    assert plain["times_of_adamw"] == plain["memory_of_adamw"] == 1
    for row in rows.values():
        assert row["seconds"] > 0
        assert row["times_of_adamw"] == pytest.approx(row["seconds"] / plain["seconds"])
        assert row["tokens_per_second"] == pytest.approx(16 / row["seconds"])
    assert rows["adamw", "fsam"]["memory_gib"] > plain["memory_gib"]


def test_what_is_measured_is_kept_when_a_later_step_fails(tmp_path, monkeypatch):
    """The device's memory ends in the second model: one line, and all before it are in the file."""
    out, steps, measured = tmp_path / "bench.json", [], bench.measure
    monkeypatch.setattr(bench, "STEPS", bench.STEPS[:2])
    for name in (bench.SMALL, "Phi-2"):
        monkeypatch.setitem(bench.SHAPES, name, TINY)

    def limited(case, *arguments):
        if len(steps) == len(bench.STEPS) + 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        steps.append(case)
        return measured(case, *arguments)

    monkeypatch.setattr(bench, "measure", limited)
    words = [
        "--model",
        bench.SMALL,
        "--model",
        "Phi-2",
        "--rows",
        "1",
        "--length",
        "4",
        "--repeats",
        "2",
        "--out",
        str(out),
    ]
    made = CliRunner().invoke(bench.main, words)
    assert "--remat" in str(made.exception)
    kept = json.loads(out.read_text())["rows"]
    assert [(row["model"], row["optimizer"], row["sharpness"]) for row in kept] == [
        *((bench.SMALL, *one) for one in bench.STEPS),
        ("Phi-2", "adamw", "none"),
    ]


def test_aims_are_met_or_missed():
    row = {"model": "Llama-3.2-1B", "optimizer": "adamw", "sharpness": "fsam", "utilisation": 0.2}
    assert bench.verdict(row | {"times_of_adamw": 2.0, "memory_of_adamw": 1.1}) == "≤ 2.2, ≤ 1.3: met"
    assert bench.verdict(row | {"times_of_adamw": 2.3, "memory_of_adamw": 1.1}).endswith("missed")
    assert bench.verdict(row | {"times_of_adamw": 2.0, "memory_of_adamw": 1.4}).endswith("missed")
    plain = row | {"sharpness": "none"}
    assert bench.verdict(plain) == "≥ 40 %: missed"
    assert bench.verdict(plain | {"utilisation": 0.44}) == "≥ 40 %: met"
    assert bench.verdict(plain | {"utilisation": None}) == ""
    assert bench.verdict(plain | {"model": "Phi-2"}) == ""
