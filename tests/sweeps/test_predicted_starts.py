"""Sweeps over random starts: each has the prediction of its own cascade, beside the model or alone."""

import numpy as np
import pytest

from icl_theory import InputError, RunConfig, simulate
from icl_theory.simulation.prediction import theory_of
from icl_theory.simulation.summary import lines
from icl_theory.sweeps.batched_runs import Cache, run_batch
from icl_theory.sweeps.comparison import draw_comparison, summary_of
from icl_theory.sweeps.plan import Plan
from icl_theory.sweeps.run_sweep import sweep
from icl_theory.sweeps.specification import Sweep
from icl_theory.theory import cascade_steps

BASE = {"init_scale": 0.05, "learning_rate": 0.2, "num_steps": 12_000, "num_snapshots": 1000, "optimizer": "sam"}
GRID = {"rho": [0.0, 0.02, 0.4], "seed": range(16)}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return sweep(BASE, grid=GRID, out=tmp_path_factory.mktemp("sweep") / "s")


def test_medians_of_learning_times_are_predicted(swept):
    """Bounds were set before the first run: 3 % for feature 1, and 10 % for all features under gradient descent."""
    errors = np.abs(swept.learning_time_error).median("seed")
    assert float(errors.sel(rho=[0.0, 0.02], feature=1).max()) < 0.03
    assert float(errors.sel(rho=0.0).max()) < 0.10
    plain = swept.sel(rho=0.0)
    assert float(np.abs(plain.final_loss_error).median()) < 1e-3
    assert np.corrcoef(np.log(plain.learning_time[:, 0]), np.log(plain.predicted_learning_time[:, 0]))[0, 1] > 0.99


def test_a_radius_beyond_the_trap_agrees_that_nothing_is_learned(swept):
    trapped = swept.sel(rho=0.4)
    assert np.isposinf(trapped.learning_time).all()
    assert np.isposinf(trapped.predicted_learning_time).all()
    assert (trapped.learning_time_error == 0).all()
    assert (swept.predicted_status == 1).all()


def test_a_prediction_of_a_sweep_is_that_of_simulate(swept):
    for rho, seed in ((0.0, 3), (0.02, 5)):
        alone = simulate(RunConfig.from_mapping(BASE | {"rho": rho, "seed": seed}))
        found = swept.sel(rho=rho, seed=seed)
        np.testing.assert_allclose(found.predicted_learning_time, alone.predicted_bias.times, rtol=1e-7)
        np.testing.assert_allclose(found.predicted_learning_time_ratio, alone.predicted_bias.ratios, rtol=1e-7)
        np.testing.assert_allclose(found.predicted_final_loss, alone.prediction.loss[-1], rtol=1e-9)


def test_the_theory_alone_gives_the_same_predictions(swept, tmp_path):
    reduced = sweep(BASE, grid=GRID, out=tmp_path / "s", system="reduced")
    assert "learning_time" not in reduced
    for name in reduced.data_vars:
        np.testing.assert_allclose(reduced[name], swept[name], rtol=1e-9)


def test_features_may_differ_between_runs_of_a_batch():
    base = {"num_steps": 2000, "num_snapshots": 200, "init_scale": 0.1}
    groups = [{"share": 0.7}, {"share": 0.3, "eigenvalues": [0.1, 0.1, 0.1, 0.4]}]
    for points in (
        [{"exponent": 1.0, "num_context": 10}, {"exponent": 0.3, "learning_rate": 0.3}],
        [{"groups": groups, "upsampling_factor": 1.0}, {"groups": groups, "upsampling_factor": 6.0, "seed": 1}],
    ):
        configs = [RunConfig.from_mapping(base | {"learning_rate": 0.2} | point) for point in points]
        settings = {"shared": False, "full": False, "theory": True, "curves": True, "cache": Cache()}
        found = run_batch(configs, size=2, **settings)
        for row, config in enumerate(configs):
            alone = simulate(config).prediction
            np.testing.assert_allclose(found["predicted_strength"][row], alone.strength, rtol=1e-7, atol=1e-12)
            np.testing.assert_allclose(found["predicted_loss"][row], alone.loss, rtol=1e-9)


def test_a_run_with_a_feature_without_drive_has_no_prediction(tmp_path):
    base = {"num_steps": 200, "num_snapshots": 20}
    lists = [(1.0, 1.0, 1.0, 0.0), (1.0, 1.0, 1.0, 1.0)]
    found = sweep(base, grid={"task_eigenvalues": lists}, out=tmp_path / "s")
    assert found.status.values.tolist() == [1, 1]
    np.testing.assert_array_equal(found.predicted_status, [np.nan, 1])
    assert np.isnan(found.learning_time_error[0]).all()
    assert not np.isnan(found.learning_time_error[1]).any()


def test_features_for_which_no_head_is_left_are_named():
    found = simulate(RunConfig.from_mapping({"num_heads": 1, "num_steps": 300, "num_snapshots": 30}))
    assert found.never == (2, 3)
    assert "no head is left for feature 3, 4" in " ".join(lines(found))


def test_heads_of_rank_two_have_a_prediction():
    """The bound was set after a first run, which had 3 %."""
    found = simulate(RunConfig.from_mapping({"rank": 2}))
    np.testing.assert_allclose(found.predicted_bias.times, found.bias.times, rtol=0.1)


def test_what_the_theory_cannot_reach_is_not_known(monkeypatch):
    """One piece of 64 steps is too short for four features."""
    monkeypatch.setattr(cascade_steps, "KEPT", 1)
    monkeypatch.setattr(cascade_steps, "MOST_STEPS", cascade_steps.STEPS_AT_ONCE)
    config = RunConfig(init_scale=0.05, learning_rate=0.1, num_steps=60_000)
    result = simulate(config)
    assert np.isfinite(result.bias.times).all()
    assert np.isnan(result.predicted_bias.times[-1])
    told = "\n".join(lines(result))
    assert "not known for feature" in told
    assert "not in theory" not in told
    assert "nan" not in told
    found = run_batch([config], size=1, shared=True, full=False, theory=True, curves=False, cache=Cache())
    assert np.isnan(found["predicted_status"][0])
    assert np.isnan(found["predicted_learning_time"]).all()


def test_a_zero_start_stays_in_theory_too(tmp_path):
    found = sweep({"num_steps": 200, "num_snapshots": 20}, grid={"init_scale": [0.0, 0.1]}, out=tmp_path / "s")
    assert np.isposinf(found.predicted_learning_time[0]).all()
    assert (found.learning_time_error[0] == 0).all()


@pytest.mark.parametrize(
    "base",
    [
        {"rank": 2, "optimizer": "sam"},
        {"model": "merged", "optimizer": "sam"},
        {"model": "cubic-mlp"},
        {"scores": "softmax", "data": "prompts"},
        {"data": "prompts"},
        {"blocks": "full"},
        {"optimizer": "optax.adam"},
        {"task_eigenvalues": [1, 1, 1, 0]},
        {"fixed_task_share": 0.5},
    ],
)
def test_what_has_no_theory_is_refused_as_a_theory(base):
    assert theory_of(RunConfig.from_mapping(base)) is None
    with pytest.raises(InputError, match=r"system = .reduced.*separate heads of rank 1"):
        Sweep.create(base, grid={"seed": [1, 2]}, system="reduced")


def test_units_of_the_theory_alone_do_not_shrink_with_the_steps():
    """The cascade costs the same whatever the number of steps."""
    few, many = (
        Plan.from_sweep(Sweep.create({"num_steps": steps}, grid={"seed": "0:10000"}, system="reduced"), memory_gib=1e3)
        for steps in (2000, 10**7)
    )
    assert few.pieces == many.pieces == (1000,)


def test_the_difference_is_drawn_of_runs_that_learn(swept):
    """Where both never learn, the error is 0 and says nothing of a time."""
    figure, shown = draw_comparison(swept, "learning_time")
    _, right = figure.axes
    assert right.get_title(loc="left") == "Difference, where both have a value"
    lines = [line for line in right.lines if line.get_marker() == "o"]
    assert len(lines) == 4
    for line in lines:
        assert np.isnan(line.get_ydata()[2])
        assert np.isfinite(line.get_ydata()[0])
    text = summary_of(shown, "learning_time")
    assert int(text[-1].split()[2]) >= 64  # never reached by both
    figure, _ = draw_comparison(swept.sel(rho=[0.0]), "learning_time", feature=1)
    assert figure.axes[0].get_title(loc="left") == "One point a run"
