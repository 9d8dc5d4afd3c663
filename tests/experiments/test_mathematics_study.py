"""The study of mathematical problems: that a stopped study goes on, what the report concludes."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import ttest_1samp
from tiny_model import write_tiny_model

import icl_theory as icl
from experiments.language_models import (
    mathematics_noise,
    mathematics_report,
    mathematics_runs,
    mathematics_study,
    symbols,
)
from experiments.language_models.learning import ratios
from experiments.language_models.mathematics_noise import law_lines
from experiments.language_models.mathematics_report import PRIMARY, gathered
from experiments.language_models.mathematics_runs import as_asked
from experiments.language_models.mathematics_study import Clock
from experiments.language_models.power import MEASURED, power, spread_of, visible
from icl_theory.errors import InputError
from icl_theory.llm.evaluation.study import load_study
from icl_theory.upsampling.noise_scale import sparse


def problems(seed, families, *, test, train, fresh, fits):
    """Sums in the place of the generators'."""
    counts = {"test": test, "train": train, "fresh": fresh * train}
    random = np.random.default_rng(seed)
    rows = [
        {"prompt": f"{a} + {b} =", "completion": str(a + b), "answer": str(a + b), "source": source, "kind": kind}
        for a, b in random.integers(0, 400, size=(sum(counts.values()), 2)).tolist()
        for source, kind in [("sums", f"sums {1 + (a > 200)}") if a > 100 else ("gcd", "gcd 1")]
    ]
    ends = np.cumsum(list(counts.values()))
    return {part: rows[end - count : end] for (part, count), end in zip(counts.items(), ends, strict=True)}


GIVEN = {
    "optimizer": "adamw",
    "steps": 48,
    "rate": 0.03,
    "batch_size": 4,
    "length": 24,
    "train": 120,
    "test": 16,
    "records": 5,
    "followed": 110,
    "remaining": 0.7,
}
WORDS = ["--seeds", "2", *(word for key, value in GIVEN.items() for word in (f"--{key.replace('_', '-')}", str(value)))]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(mathematics_runs, "draw", problems)
    monkeypatch.setitem(symbols.SIZES, "0.4M", 8)
    monkeypatch.setattr(symbols, "LAYERS", 1)

    def here(function, jobs, said):
        for name, given in jobs.items():
            function(*given)
            said(name)

    monkeypatch.setattr(mathematics_study, "on_cores", here)


def test_learning_times_are_those_of_the_rule():
    steps = [0, 10, 20, 40]
    pilot = np.array([[2.0, 1.0, 1.0, 1.0], [2.0, 2.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0], [0.1, 0.1, 0.1, 0.2]]).T
    rule = icl.upsample(icl.LossRecord(steps, pilot), floor="last")
    assert rule.late.tolist() == [False, False, True, False]  # the last knows nothing more, and is not late
    other = np.array([[2.0, 1.0, 1.0, 0.0], [2.0, 1.0, 0.5, 0.1], [1.0, 0.5, 0.4, 0.2], [0.1, 0.1, 0.1, 0.2]]).T
    assert ratios(steps, np.stack([pilot, other]), [rule, rule]) == pytest.approx([30 / 10, 10 / 5])
    assert ratios(steps, other[None], [rule._replace(remaining=0.75)]) == pytest.approx([5 / 2.5])
    never = other[None] * [1.0, 1.0, 0.0, 1.0] + [0.0, 0.0, 1.0, 0.0]
    assert ratios(steps, never, [rule]) == pytest.approx([40 / 5])
    assert np.isnan(ratios(steps, np.ones((1, 4, 4)) * pilot[0], [rule])).all()
    assert np.isnan(ratios(steps, np.where(other == 0.4, np.nan, other)[None], [rule])).all()


def test_a_study_is_run_stopped_resumed_and_reported(small, tmp_path, monkeypatch):
    folder, call = tmp_path / "study", [*WORDS, *(word for name in ("plain", "late") for word in ("--arm", name))]
    first = CliRunner().invoke(mathematics_study.main, ["0.4M", str(folder), *call, "--minutes", "1e-9"])
    assert first.exit_code == 0, first.output
    assert not list(folder.glob("*.npz"))  # no time for a run
    assert CliRunner().invoke(mathematics_study.main, ["0.4M", str(folder), *call]).exit_code == 0
    names = {path.name for path in folder.iterdir()}
    assert names >= {"plain-0.json", "late-1.json", "pilot-1.npz", "problems-0.json.gz", "settings.json"}
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(mathematics_runs.PackedTrainer, "run", None)  # nothing is trained again
    assert CliRunner().invoke(mathematics_study.main, ["0.4M", str(folder), *call]).exit_code == 0
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    other = CliRunner().invoke(mathematics_study.main, ["0.4M", str(folder), *call, "--rate", "1e-4"])
    assert "study of other settings (rate was 0.03, now 0.0001)" in str(other.exception)

    saved = json.loads((folder / "late-0.json").read_text())["arm"]
    assert saved["steps"][-1] == 48
    assert len(saved["R"]) == 1
    assert 0 <= saved["accuracy"][0] <= 1
    assert saved["accuracy"][0] == pytest.approx(
        sum(saved["by_kind"][kind][0] * count for kind, count in counted(folder).items()) / 16
    )
    losses = np.load(folder / "late-0.npz")["losses"]
    assert losses.shape == (1, len(saved["steps"]), 110)

    noise = json.loads((folder / "plain-0.json").read_text())["arm"]["noise"][0]
    assert noise["steps"] == [0, 3, 7, 48]
    assert np.array(noise["critical_batch"]).shape == (4, 2)
    assert noise["exponent"] is None or 0 < noise["exponent"] < 1.5
    assert "noise" not in saved

    kept = tmp_path / "kept.json"
    told = CliRunner().invoke(mathematics_report.main, [str(folder), "--save", str(kept)])
    assert told.exit_code == 0, told.output
    assert "late minus plain" in told.output
    assert CliRunner().invoke(mathematics_report.main, [str(kept)]).output == told.output
    found = gathered(folder)
    assert found["late"]["seeds"] == [0, 1]
    assert all(math.isfinite(value) for value in found["late"]["contrast"])
    assert found["plain"]["contrast"] == [None, None]
    assert max(found["late"]["contrast"]) > 0


@pytest.mark.parametrize(("predicted", "word"), [(0.4, "holds"), (0.9, "does not hold")])
def test_the_law_is_held_against_what_was_measured(predicted, word):
    """R falls as the factor to the power 0.4, give or take."""
    random, seeds = np.random.default_rng(3), [0, 1, 2, 3, 4]
    factors = np.array([2.0, 2.5, 3.0, 2.0, 1.0])
    plain = {"seeds": seeds, "exponent": [predicted] * 4 + [None]}
    late = {"seeds": seeds, "factors": factors.tolist(), "R": (4 * factors ** -random.normal(0.4, 0.02, 5)).tolist()}
    told = law_lines({"plain": plain, "late": late, "random": {"seeds": seeds, "R": [4.0] * 5}})
    assert told[0].startswith("exponent of R in 1/κ (4 seeds)")
    assert told[0].endswith(f": {word}")


def test_the_exponent_is_that_of_the_noise(monkeypatch):
    """Groups that share nothing under SGD: κ divides R, so the exponent is 1."""
    steps = np.arange(0.0, 481.0, 8.0)
    chosen = icl.upsample(icl.LossRecord(steps, np.exp(-steps[:, None] / np.repeat([40.0, 120.0], 30))))
    monkeypatch.setattr(mathematics_noise, "measure_noise", lambda *_, step, **__: sparse(0.5, 60))
    monkeypatch.setattr(mathematics_noise, "LAWS", ("sgd",))
    one = mathematics_noise.Measured([], chosen.late, 0)
    one.add(0, None)
    assert one.summary(chosen, 8, "sgd", 480)["exponent"] == pytest.approx(1.0, abs=1e-3)
    assert one.summary(chosen, 8, "muon", 480)["exponent"] is None


def counted(folder):
    rows = json.loads(gzip.decompress((folder / "problems-0.json.gz").read_bytes()))["test"]
    kinds = [row["kind"] for row in rows]
    return {kind: kinds.count(kind) for kind in set(kinds)}


def test_problems_alone_are_drawn(small, tmp_path):
    made = CliRunner().invoke(mathematics_study.main, ["0.4M", str(tmp_path / "new"), *WORDS, "--only-draw"])
    assert made.exit_code == 0, made.output
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "settings.json",
        "problems-0.json.gz",
        "problems-1.json.gz",
    }


def test_a_pretrained_model_reads_stories_and_words_its_answers(small, tmp_path, monkeypatch):
    model = write_tiny_model(tmp_path / "model")
    settings = mathematics_runs.Settings(str(model), **GIVEN)
    study = mathematics_runs.Study(settings, (0,), tmp_path / "study")
    assert "stories" in settings.families
    row = study.sets[0]["test"][0]
    tokens = study.text.tokenized(row)
    assert study.decode(tokens.tokens[tokens.learned]) == row["completion"]
    found = study.tested(study.trainer.start.params)
    assert len(found["accuracy"]) == 1
    assert found["loss"][0] > 1
    assert found["cut"] != [0.0]  # an untrained model does not stop
    monkeypatch.setattr(mathematics_runs, "generate", lambda decoder, prompts, **_: [answer(study, p) for p in prompts])
    assert study.tested(study.trainer.start.params)["accuracy"] == [1.0]


def answer(study, prompt):
    """The right reply to a prompt, as tokens."""
    (row,) = (row for row in study.sets[0]["test"] if study.text.asked(row) == prompt)
    tokens = study.text.tokenized(row)
    return tokens.tokens[tokens.learned][:-1].tolist()


def test_seeds_trained_together_share_a_file(small, tmp_path):
    """As on an accelerator: the same losses as alone."""
    settings = mathematics_runs.Settings("0.4M", **GIVEN)
    both = mathematics_runs.Study(settings, (0, 1), tmp_path / "both")
    alone = mathematics_runs.Study(settings, (1,), tmp_path / "alone")
    for study in (both, alone):
        study.arm("late")
    one, two = (np.load(study.path("late", ".npz"))["losses"] for study in (both, alone))
    assert study.path("late").name == "late-1.json"
    assert both.path("late").name == "late-0-1.json"
    np.testing.assert_allclose(one[1, :2], two[0, :2], rtol=1e-4)  # roundings grow with the steps
    assert np.abs(one[0] - one[1]).max() > 0.01
    found = json.loads(both.path("late").read_text())
    assert found["seeds"] == [0, 1]
    assert len(found["arm"]["accuracy"]) == 2


def test_a_clock_leaves_time_for_another_run(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(mathematics_study.time, "time", lambda: now[0])
    clock = Clock(100.0)
    for seconds, over in ((45, False), (20, False), (20, True)):  # at 45, 65 and 85
        clock.timed(lambda seconds=seconds: now.append(now.pop() + seconds))
        assert clock.over is over
    assert not Clock(None).over


def test_a_seed_of_an_arm_in_two_files_is_refused(tmp_path):
    arm = {key: [0.5] for key in ("accuracy", "cut", "loss", "factors", "R")} | {"by_kind": {}}
    for seeds in ([0], [0, 1]):
        saved = {"name": "plain", "seeds": seeds, "arm": arm}
        (tmp_path / f"plain-{'-'.join(map(str, seeds))}.json").write_text(json.dumps(saved))
    with pytest.raises(InputError, match="plain is there twice for seed 0; remove plain-0"):
        gathered(tmp_path)


def test_a_fraction_must_be_simplified():
    row = {"source": "fractions", "answer": "7/23"}
    assert as_asked("7/23", row)
    assert not as_asked("14/46", row)
    assert as_asked("4.0", {"source": "decimals", "answer": "4.00"})


def test_power_is_that_of_simulated_tests():
    draws = np.random.default_rng(0).normal(0.05, 0.06, size=(4000, 12))
    for level in (0.05, 0.0125):
        rejected = (ttest_1samp(draws, 0, axis=1).pvalue < level).mean()
        assert power(0.05, 0.06, 12, level) == pytest.approx(rejected, abs=0.025)
    assert power(visible(0.06, 12), 0.06, 12) == pytest.approx(0.8)


PROTOCOL = Path(mathematics_study.__file__).with_name("PROTOCOL.md").read_text()
ROWS = {
    ("0.1 M from scratch", "arithmetic-cpu"): ("adamw", "muon"),
    ("0.8 M from scratch", "arithmetic-h200"): ("adamw",),
    ("SmolLM2-135M, sums", "checkpoint-sums-cpu"): ("adamw",),
    ("SmolLM2-135M, words", "checkpoint-words-h200"): ("adamw",),
}


@pytest.mark.parametrize(("study", "optimizer"), [(one, name) for one, names in ROWS.items() for name in names])
def test_the_protocol_gives_the_power_of_its_designs(study, optimizer):
    spread = spread_of(load_study(MEASURED / f"{study[1]}.json")["arms"], optimizer, "plain")
    cells = [spread, *(visible(spread, seeds) for seeds in (5, 8, 16)), visible(spread, 16, 0.05 / 6)]
    name = {"adamw": "AdamW", "muon": "Muon"}[optimizer]
    assert f"| {study[0]}, {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |" in PROTOCOL


def test_the_protocol_names_every_comparison_and_arm():
    for name in {name for pair in PRIMARY for name in pair}:
        assert f"`{name}`" in PROTOCOL
    assert f"{visible(1, 16) * 0.027:.3f} {visible(1, 5) * 0.012:.3f}" == "0.020 0.020"


def test_a_folder_without_plain_runs(tmp_path):
    with pytest.raises(InputError, match="no finished plain run"):
        gathered(tmp_path)
