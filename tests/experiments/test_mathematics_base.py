"""Bases: decoders that were trained on problems no study tests on, and that all seeds of a study start from."""

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from flax import nnx

from experiments.language_models import mathematics, mathematics_base, mathematics_runs
from experiments.language_models.mathematics import draw, draw_freely, for_tests
from experiments.language_models.mathematics_base import SIZES, a_decoder, load_base, main, save_base
from experiments.language_models.mathematics_runs import Settings, Study
from icl_theory.errors import InputError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(SIZES, "0.4M", (8, 1))


def rows(seed, families, *, test, train, fresh, fits=None):
    counts = {"test": test, "train": train, "fresh": fresh * train}
    pairs = np.random.default_rng(seed).integers(0, 40, (sum(counts.values()), 2)).tolist()
    made = [
        {"prompt": f"{a} + {b} =", "completion": str(a + b), "answer": str(a + b), "source": "sums", "kind": "sums 1"}
        for a, b in pairs
    ]
    return {part: [made.pop() for _ in range(count)] for part, count in counts.items()}


def same(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, other))


def test_all_seeds_of_a_study_start_from_a_base(tmp_path, monkeypatch):
    monkeypatch.setattr(mathematics_runs, "draw", rows)
    base = a_decoder(8, 1, seed=5)
    save_base(tmp_path / "base.npz", base)
    settings = Settings(str(tmp_path / "base.npz"), steps=48, batch_size=4, length=24, train=20, test=8)
    study = Study(settings, (0, 1), tmp_path)
    for place in (0, 1):
        assert same(nnx.state(study.trainer.model(study.trainer.start.params, place), nnx.Param), nnx.state(base))
    assert "stories" not in settings.families


def test_a_base_is_trained_and_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(
        mathematics_base,
        "draw_freely",
        lambda seed, families, levels, count, fits: rows(seed, families, test=0, train=count, fresh=0)["train"],
    )
    path = tmp_path / "base.npz"
    options = ["--problems", "200", "--steps", "30", "--batch-size", "8", "--rate", "0.03"]
    told = CliRunner().invoke(main, ["0.4M", str(path), *options])
    assert told.exit_code == 0, told.output
    losses = [float(line.rpartition(" ")[2]) for line in told.stdout.splitlines() if line.startswith("step")]
    assert losses[-1] < 0.8 * losses[0]
    assert not same(nnx.state(load_base(path)), nnx.state(a_decoder(8, 1, mathematics_base.SEED)))
    again = CliRunner().invoke(main, ["0.4M", str(path), *options])
    assert isinstance(again.exception, InputError)
    assert "give a new file" in str(again.exception)


def test_a_file_that_is_no_base_is_refused(tmp_path):
    with pytest.raises(InputError, match="it cannot be read"):
        load_base(tmp_path / "none.npz")
    save_base(tmp_path / "whole.npz", a_decoder(8, 1, seed=5))
    (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:900])
    with pytest.raises(InputError, match="it cannot be read"):
        load_base(tmp_path / "half.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(InputError, match="no base of 0"):
        load_base(tmp_path / "other.npz")


def test_no_set_trains_on_what_another_tests(monkeypatch):
    pytest.importorskip("reasoning_gym")
    for seed in (0, 1):
        sets = draw(seed, ("sums", "gcd"), test=40, train=100, fresh=1)
        assert all(map(for_tests, sets["test"]))
        assert not any(map(for_tests, sets["train"] + sets["fresh"]))
    free = draw_freely(2, ("sums", "gcd"), (0.5, 0.3, 0.2), 100)
    assert len(free) == pytest.approx(100, abs=3)
    assert not any(map(for_tests, free))
    assert free == draw_freely(2, ("sums", "gcd"), (0.5, 0.3, 0.2), 100)


def test_one_problem_in_ten_is_for_tests():
    made = [{"prompt": f"{a} + {b} =", "source": "sums"} for a in range(60) for b in range(a)]
    share = np.mean([for_tests(row) for row in made])
    assert share == pytest.approx(1 / mathematics.HELD_OUT, abs=0.02)
    assert all(
        for_tests(row)
        == for_tests({"prompt": " + ".join(row["prompt"][:-2].split(" + ")[::-1]) + " =", "source": "sums"})
        for row in made[:50]
    )
