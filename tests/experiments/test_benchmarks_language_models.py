"""What steps of fine-tuning cost: measured side by side, ratios to AdamW, aims said to be met or missed."""

import json
from types import SimpleNamespace

import jax
import pytest
from click.testing import CliRunner

from experiments.benchmarks import language_models as bench
from experiments.benchmarks.fine_tuning import Case, Measured
from icl_theory.errors import InputError
from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.paper_models import PUBLISHED

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


def measured_by(out, *words):
    """Run the benchmark at tiny sizes; return the saved file and what was printed."""
    sizes = ["--rows", "1", "--length", "4", "--repeats", "2", "--out", str(out)]
    made = CliRunner().invoke(bench.main, [*sizes, *words])
    assert made.exit_code == 0, made.output
    return json.loads(out.read_text()), made.output


@pytest.fixture
def fake(monkeypatch):
    """Two models of two steps each, none of which is really measured; the list holds what was."""
    done = []
    for name in (bench.SMALL, "Phi-2"):
        monkeypatch.setitem(bench.SHAPES, name, TINY)
    monkeypatch.setattr(bench, "STEPS", bench.STEPS[:2])
    monkeypatch.setattr(bench, "compiled", lambda case, *_: (None, None, 1.5))

    def measure(case, *_):
        if case == Case("Phi-2", "adamw", "none", True) and "too much" in done:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        done.append(case)
        return Measured(case, 0.5, (0.4, 0.6), 2**30, 1.5)

    monkeypatch.setattr(bench, "measure", measure)
    return done


BOTH = ("--model", bench.SMALL, "--model", "Phi-2")


def test_a_cell_that_does_not_fit_is_named_and_the_others_are_measured(fake, tmp_path):
    fake.append("too much")
    saved, said = measured_by(tmp_path / "bench.json", *BOTH)
    assert [(row["model"], row["optimizer"]) for row in saved["rows"]] == [
        (bench.SMALL, "adamw"),
        (bench.SMALL, "muon"),
        ("Phi-2", "muon"),
    ]
    assert saved["rows"][2]["times_of_adamw"] is None
    (failed,) = (cell["failed"] for cell in saved["cells"] if "failed" in cell)
    assert failed.endswith("--remat with its name")
    assert "Phi-2, adamw: memory" in said


def test_it_stops_in_time_and_goes_on_where_it_was(fake, tmp_path):
    out = tmp_path / "bench.json"
    _, said = measured_by(out, *BOTH, "--minutes", "0")
    assert len(fake) == 1  # one at least
    assert "3 of 4 are left" in said
    saved, said = measured_by(out, *BOTH)
    assert len(fake) == len(set(fake)) == len(saved["rows"]) == 4
    assert "left" not in said
    assert saved["rows"][1]["times_of_adamw"] == 1
    assert measured_by(out, *BOTH)[0] == saved
    assert len(fake) == 4
    _, said = measured_by(out, *BOTH, "--length", "5")
    assert "set aside" in said
    assert len(fake) == 8


def test_a_damaged_file_is_refused(fake, tmp_path):
    (tmp_path / "bench.json").write_text('{"rows": []}')
    with pytest.raises(InputError, match="no cells of this benchmark"):
        bench.main.main(["--out", str(tmp_path / "bench.json")], standalone_mode=False)


def test_the_share_of_a_given_peak(fake, tmp_path):
    """FLOPs of Llama's small model by hand: 7 layers of 64, 4 heads of 16 with one for keys, MLP of 128, 512 words."""
    saved, _ = measured_by(tmp_path / "bench.json", "--small", "--model", "Llama-3.2-1B", "--peak", "2e-6")
    weights = 7 * (64 * 64 * 2 + 64 * 16 * 2 + 3 * 64 * 128) + 512 * 64
    flops = 6 * weights * 4 + 7 * 12 * 64 * (1 + 2 + 3 + 4)
    row = saved["rows"][0]
    assert row["model"] == "Llama-3.2-1B, small"
    assert row["model_tflops"] == pytest.approx(flops / 0.5 / 1e12)
    assert row["utilisation"] == pytest.approx(flops / 0.5 / 2e6)
    assert saved["about"]["dtype"] == "bfloat16"


def test_peaks_are_of_the_named_card(monkeypatch):
    for kind, peak in (("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989), ("cpu", None)):
        monkeypatch.setattr(jax, "devices", lambda kind=kind: [SimpleNamespace(device_kind=kind)])
        assert bench.peak_tflops() == peak


def test_small_models_are_of_the_same_kind():
    for name in PUBLISHED:
        full, small = bench.SHAPES[name], bench.SHAPES[bench.small_name(name)]
        kinds = ("norm", "activation", "gated", "parallel", "bias", "qk_norm", "sandwich", "rope", "local_rope", "tied")
        assert [getattr(small, kind) for kind in kinds] == [getattr(full, kind) for kind in kinds]
        assert set(small.local_layers) == set(full.local_layers)
        assert (small.rotary_dim > 0) == (full.rotary_dim > 0)


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
