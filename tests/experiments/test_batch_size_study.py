"""The study of batch sizes: its steps are the package's, arms share all but one thing, and no run is done twice."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

from experiments.language_models import batch_size_study as study
from experiments.language_models.arithmetic_study import a_decoder
from experiments.language_models.batch_size_runs import Settings, Task, rate_of
from experiments.language_models.problems import order
from icl_theory import group_speed
from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Batch
from icl_theory.llm.training.step import make_example_losses, make_step, start

SIZES = {"width": 16, "layers": 1, "train": 80, "test": 20, "followed": 80, "records": 6, "examples": 160}
SMALL = Settings(seeds=2, batches=(8,), adamw_rate=1e-2, **SIZES)


def test_its_steps_are_those_of_the_package():
    """AdamW without clipping, at the rates of the schedule, on the rows of the order."""
    task = Task(SMALL, "adamw", 8, 0)
    found = task.arm("plain", np.zeros(80, bool))
    graph, learner = start(a_decoder(0, 16, 1), "adamw", weight_decay=0.01)
    step, losses = make_step(graph, "adamw", clip=None, weight_decay=0.01), make_example_losses(graph)
    rows = order(np.arange(80), 160, 0).reshape(20, 8)
    tokens, learned = task.train.tokens, task.train.learned
    rates = 1e-2 / 2 * rate_of(np.arange(20), 20)  # the root of 8/32
    for chosen, rate in zip(rows, rates, strict=True):
        learner, _ = step(learner, Batch(tokens[chosen], learned[chosen], jnp.ones(8)), rate, 0.0)
    wanted = losses(learner.params, Batch(tokens, learned, np.ones(80)))
    np.testing.assert_allclose(found["losses"][-1], wanted, rtol=1e-4)
    assert found["steps"].tolist() == [0, 1, 2, 3, 6, 11, 20]
    assert found["losses"].shape == (7, 80)


def test_rates_rise_stay_and_fall():
    found = rate_of(np.arange(100), 100)
    assert found[:5].tolist() == [0.2, 0.4, 0.6, 0.8, 1]
    assert set(found[5:75]) == {1}
    np.testing.assert_allclose(found[-2:], [0.08, 0.04])
    assert SMALL.rate("adamw", 32) == 1e-2
    assert SMALL.rate("sgd", 128) == 2 * SMALL.sgd_rate


def test_arms_differ_in_what_is_upsampled_alone(monkeypatch):
    monkeypatch.setattr(Task, "_run", lambda self, indices, followed: np.bincount(indices, minlength=80))
    late = np.arange(80) < 20
    arms = {name: Task(SMALL, "sgd", 8, 1).arm(name, late) for name in ("plain", "late", "random")}
    assert set(arms["plain"]) == {1}
    np.testing.assert_array_equal(arms["late"], np.where(late, 4, 1))
    assert sorted(arms["random"]) == sorted(arms["late"])
    assert np.any(arms["random"] != arms["late"])


def test_a_study_goes_on_where_it_stopped_and_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "OPTIMIZERS", ("adamw", "muon"))
    done = []

    def in_turn(settings, keys, folder, report):
        for key in keys:
            study.do_task(settings, key, folder)
        done.append(len(keys))

    monkeypatch.setattr(study, "do_all", in_turn)
    out = tmp_path / "study.json"
    words = ["--seeds", "2", "--batches", "8", "--adamw-rate", "3e-2", "--late", "0.3", "--out", str(out)]
    words += ["--muon-rate", "5e-2"]
    words += [part for name, value in (SIZES | {"examples": 480}).items() for part in (f"--{name}", str(value))]
    made = CliRunner().invoke(study.main, words)
    assert made.exit_code == 0, made.output
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    files = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(files) == 2 * 2 * 4
    again = folder / "adamw-8-1-late.npz"
    bytes_before = again.read_bytes()
    again.unlink()
    out.rename(tmp_path / "first.json")
    assert CliRunner().invoke(study.main, words).output == made.output
    assert again.read_bytes() == bytes_before
    assert {path for path in folder.iterdir() if path.stat().st_mtime_ns != files[path]} == {again}
    assert CliRunner().invoke(study.main, words).output == made.output  # from the file
    assert done == [4, 4]

    lines = made.output.splitlines()[-4:]
    assert [line.split(" | ")[:2] for line in lines[2:]] == [["| AdamW", "8"], ["| Muon", "8"]]
    cells = json.loads(out.read_text())["cells"]
    first = cells["adamw-8"][0]
    assert first["plain"]["R"] == first["plain"]["late"] / first["plain"]["early"] > 1
    assert first["predicted"]["sparse"] == pytest.approx(_sparse(first["share"], 8))
    assert cells["muon-8"][0]["predicted"] == {"noise": None, "sparse": None}
    gain = np.mean([one["late"]["accuracy"] - one["plain"]["accuracy"] for one in cells["adamw-8"]])
    assert f"{gain:+.3f} ±".replace("-", "−") in lines[2]
    other = CliRunner().invoke(study.main, [*words, "--factor", "3"])
    assert "of other settings (factor was 4.0, now 3.0)" in str(other.exception)


def _sparse(share, batch):
    after = 4 * share / (1 + 3 * share)
    speeds = [group_speed(np.array([1 - part, part]), batch) for part in (share, after)]
    early, late = speeds[1] / speeds[0]
    return early / late


@pytest.mark.parametrize(
    ("given", "words"), [({"batches": (7,)}, "it must divide"), ({"batches": (160,)}, "the set has 80 examples")]
)
def test_batch_sizes_that_do_not_fit_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        Settings(**SIZES | given)
