"""The tutorial runs as it stands, and what it shows is so."""

import runpy
from pathlib import Path

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")


@pytest.fixture
def run_script(tmp_path, monkeypatch):
    """The names that a script leaves behind; it runs in an empty folder, where it leaves a picture."""
    monkeypatch.chdir(tmp_path)

    def run(name):
        left = runpy.run_module(f"experiments.tutorial.{name}")
        assert (tmp_path / "results" / "tutorial" / f"{name}.png").stat().st_size > 10_000
        return left

    return run


def test_one_prompt(run_script):
    left = run_script("step1_prompt")
    np.testing.assert_allclose(left["beta"], left["one"].beta, atol=1e-6)
    assert float(left["prediction"][0]) == pytest.approx(float(left["by_matrix"]), rel=1e-5)
    assert abs(left["zero_loss"] - 1.0) < 4 * left["error"] < 0.1


def test_features(run_script):
    left = run_script("step2_features")
    assert abs(left["measured"] - left["predicted"]) < 4 * left["error"] < 0.1 * left["predicted"]
    assert np.all(np.diff(left["plateaus"]) < 0)


def test_training(run_script):
    left = run_script("step3_training")
    assert list(left["bias"].order) == [0, 1, 2, 3]
    np.testing.assert_allclose(left["levels"], left["nearest"], rtol=0.02)
    assert len(set(left["nearest"])) == len(left["levels"]) >= 3


def test_sam_and_data(run_script):
    left = run_script("step4_sam_and_data")
    times = np.minimum(left["plain"].times, left["last"])  # the rule by hand; of two features the median is the mean
    by_hand = np.median((times[:, 2] + times[:, 3]) / (times[:, 0] + times[:, 1]))
    assert left["factor"] == pytest.approx(by_hand)
    assert left["factor"] > 1
    plain, sam, upsampled = (np.median(values, axis=0) for values in left["found"].values())
    assert np.all(sam[1:] < plain[1:])
    assert upsampled[2] < plain[2]
    assert upsampled[3] < plain[3]


def test_the_table(run_script, capsys):
    left = run_script("step5_table")
    assert left["rows"]
    assert all(row.holds for row in left["rows"])
    assert "merged_gradient_vanishes_nowhere_else" in capsys.readouterr().out


def test_own_spectrum(run_script):
    left = run_script("own_spectrum")
    np.testing.assert_allclose(left["measured"], left["predicted"], rtol=2e-3)
    np.testing.assert_allclose(left["levels"], left["plateaus"], rtol=5e-3)
    assert "eigenbasis" in left["refusal"]


def test_own_data(run_script):
    left = run_script("own_data")
    assert np.all(np.diff(left["bias"].times) > 0)
    assert np.all(np.isfinite(left["bias"].times))
    np.testing.assert_allclose(left["levels"][:3], left["plateaus"][:3], rtol=0.05)
    assert left["plateaus"][3] < left["levels"][3] < 1.25 * left["plateaus"][3]
    above = left["levels"][2:] / left["plateaus"][2:] - 1.0
    assert [f"{share:.0%}" for share in above] == ["4%", "16%"]  # as the text says


def test_own_claim(run_script):
    left = run_script("own_claim")
    assert [row.holds for row in left["rows"]] == [True, True, False]
    assert left["data"].learning_time.dims == ("start", "feature")


def test_own_optimizer(run_script):
    found = run_script("own_optimizer")["found"]
    assert set(found) == {"GD", "SAM, ρ = 0.05", "Adam", "Muon"}
    for bias in found.values():  # each optimizer learns in most of its runs, else there is nothing to compare
        assert np.isfinite(bias.times).all(axis=1).mean() > 0.75
    for bias in found.values():
        assert np.nanmedian(bias.rank_agreement) > 0.9
    last = {name: np.median(bias.ratios[:, 3]) for name, bias in found.items()}
    assert max(last["Adam"], last["Muon"]) < 0.5 * min(last["GD"], last["SAM, ρ = 0.05"])  # what README says of them


def test_own_model(run_script):
    left = run_script("own_model")
    for losses in left["held_out"].values():
        assert losses[-1] < 0.6 * losses[0]
    assert left["least"] < left["held_out"]["learned ridge"][-1] < 1.1 * left["least"]
    assert left["shares"]["linear attention"][0] > left["shares"]["linear attention"][-1] > 0


def test_every_script_is_here():
    folder = Path(__file__).parents[2] / "experiments" / "tutorial"
    scripts = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    tested = Path(__file__).read_text()
    assert len(scripts) == 10
    assert all(f'run_script("{name}")' in tested for name in scripts)
