"""Sweeps: every run is what `simulate` runs, cut and labelled as it should be."""

import json

import jax
import numpy as np
import pytest
import scipy.stats
import xarray as xr
from helpers import assert_close

from icl_theory import InputError, RunConfig, simulate
from icl_theory.analysis.simplicity_bias import bias_of_fractions
from icl_theory.sweeps import measures
from icl_theory.sweeps.batched_runs import Cache, run_batch
from icl_theory.sweeps.folder import open_sweep
from icl_theory.sweeps.run_sweep import sweep

SHORT = {"num_steps": 2000, "num_snapshots": 60, "learning_rate": 0.05}
MIXTURE = [{"share": 0.7}, {"share": 0.3, "eigenvalues": [0.1, 0.1, 0.1, 0.4]}]


@pytest.mark.parametrize(
    ("base", "points"),
    [
        ({"optimizer": "sam"}, [{"rho": 0.01}, {"rho": 0.03, "seed": 3}, {"noise_std": 0.3, "num_context": 10}]),
        ({"init": "aligned", "dim": 3}, [{"eigenvalue_ratio": r, "init_scale": r / 20} for r in (1.3, 2.0)]),
        ({"model": "merged", "init_scale": 0.01, "data_seed": 5, "exponent": 0.5}, [{"seed": 1}, {"exponent": 1.5}]),
        ({"model": "cubic-mlp", "task_eigenvalues": [1, 1, 2, 1]}, [{"seed": 1}, {"task_eigenvalues": [1, 2, 3, 4]}]),
        ({"data": "prompts", "num_prompts": 300}, [{"seed": 1}, {"seed": 2, "threshold": 0.3}]),
        (
            {"data": "prompts", "num_prompts": 60, "blocks": "full", "init": "reduced", "normalisation": "tokens"},
            [{"seed": 1}, {"seed": 2}],
        ),
        ({"blocks": "full", "rank": 2, "normalisation": "tokens"}, [{"seed": 1}, {"learning_rate": 0.1}]),
        ({"scores": "softmax", "data": "prompts", "num_prompts": 40, "num_steps": 100}, [{"seed": 1}, {"seed": 2}]),
        ({"fixed_task_share": 0.3}, [{"seed": 1}, {"fixed_task_share": 0.6}]),
        ({"groups": MIXTURE}, [{"upsampling_factor": 1.0}, {"upsampling_factor": 30.0}]),
        ({"dtype": "float32", "optimizer": "optax.adam", "learning_rate": 0.002}, [{"seed": 1}, {"seed": 2}]),
    ],
)
def test_a_run_of_a_sweep_is_what_simulate_runs(base, points):
    configs = [RunConfig.from_mapping(SHORT | base | point) for point in points]
    settings = {"shared": False, "full": True, "theory": False, "curves": True}
    found = run_batch(configs, size=4, cache=Cache(), **settings)
    single = configs[0].dtype == "float32"
    for i, config in enumerate(configs):
        alone = simulate(config)
        assert_close(found["loss"][i], alone.trajectory.loss, rtol=2e-5 if single else 1e-10)
        assert found["status"][i] == measures.DONE
        if alone.bias is None:
            assert np.isnan(found["learning_time"][i]).all()
            continue
        assert_close(found["strength"][i], alone.trajectory.strength, rtol=1e-3 if single else 1e-8)
        for name, measured in (("learning_time", "times"), ("learning_time_ratio", "ratios"), ("progress", "progress")):
            np.testing.assert_allclose(
                found[name][i], getattr(alone.bias, measured), rtol=1e-3 if single else 1e-7, atol=1e-8
            )
        np.testing.assert_allclose(found["rank_agreement"][i], alone.bias.rank_agreement)


def test_the_reduced_system_predicts_aligned_runs_to_rounding_and_merged_ones_from_small_starts(tmp_path):
    base = SHORT | {"init": "aligned", "optimizer": "sam", "dim": 3, "init_scale": 0.1, "num_steps": 1500}
    aligned = sweep(base, grid={"rho": [0.0, 0.02, 0.05], "eigenvalue_ratio": [1.5, 2.0]}, out=tmp_path / "aligned")
    assert np.isfinite(aligned.learning_time.values).sum() >= 12
    assert float(np.abs(aligned.learning_time_error).max()) < 1e-9
    assert float(np.abs(aligned.predicted_progress - aligned.progress).max()) < 1e-9
    base = SHORT | {"model": "merged", "num_steps": 3000}
    merged = sweep(base, grid={"init_scale": [0.01, 0.1], "seed": range(4)}, out=tmp_path / "merged")
    worst = np.abs(merged.learning_time_error).max(["seed", "feature"])
    assert float(worst.sel(init_scale=0.01)) < 0.01
    assert float(worst.sel(init_scale=0.1)) > 2 * float(worst.sel(init_scale=0.01))


def test_runs_that_share_their_data_give_the_same_as_runs_with_their_own():
    configs = [RunConfig.from_mapping(SHORT | {"data_seed": 1, "seed": seed}) for seed in range(3)]
    own, shared = (
        run_batch(configs, size=3, shared=together, full=True, theory=False, curves=False, cache=Cache())
        for together in (False, True)
    )
    for name in own:
        assert_close(own[name], shared[name], rtol=1e-9) if np.isfinite(own[name]).all() else None


@pytest.mark.parametrize(
    ("base", "grid"),
    [
        ({"dim": 3, "basis": "axes"}, {"fixed_task_share": [0.0, 0.5], "seed": range(3)}),
        ({"data": "prompts", "engine": "prompts", "num_prompts": 300}, {"data_seed": [5, -1], "seed": range(3)}),
        ({"data": "prompts", "num_prompts": 20}, {"data_seed": [5, -1], "noise_std": [0.0, 0.5], "seed": range(2)}),
    ],
)
def test_no_run_of_a_grid_is_trained_on_the_data_of_another(base, grid, tmp_path):
    """Whether the data depend on one axis may depend on another."""
    base = {"num_steps": 150, "num_snapshots": 5, "init_scale": 0.5} | base
    found = sweep(base, grid=grid, out=tmp_path / "s")
    for index in np.ndindex(found.final_loss.shape):
        point = {name: values[i] for (name, values), i in zip(grid.items(), index, strict=True)}
        alone = simulate(RunConfig.from_mapping(base | point)).trajectory.loss[-1]
        np.testing.assert_allclose(found.final_loss.values[index], alone, rtol=1e-9)


def test_sharing_is_refused_to_runs_whose_data_differ():
    configs = [RunConfig.from_mapping({"num_steps": 50, "num_snapshots": 5, "seed": seed}) for seed in range(2)]
    settings = {"size": 2, "full": True, "theory": False, "curves": False, "cache": Cache()}
    own, asked = (run_batch(configs, shared=shared, **settings) for shared in (False, True))
    np.testing.assert_array_equal(own["final_strength"], asked["final_strength"])


def test_each_system_has_its_own_mark_of_divergence(tmp_path):
    base = {"init": "aligned", "dim": 2, "num_steps": 200, "num_snapshots": 60}
    found = sweep(base, grid={"learning_rate": [0.05, 80.0]}, out=tmp_path / "s")
    assert found.status.values.tolist() == found.predicted_status.values.tolist() == [1, 2]
    assert float(found.diverged_at[1]) > 0
    assert np.isnan(found.diverged_at[0])
    assert set(found.data_vars) >= {"predicted_diverged_at", "predicted_status"}


def test_data_set_is_labelled_and_opens_with_xarray(tmp_path):
    grid = {"optimizer": ["gd", "sam"], "rho": "0:0.04:3", "seed": "0:2"}
    found = sweep(SHORT, grid=grid, out=tmp_path / "s", curves=True)
    plain = xr.open_zarr(tmp_path / "s")
    assert plain.identical(found)
    assert dict(found.sizes) == {"optimizer": 2, "rho": 3, "seed": 2, "feature": 4, "snapshot": 60}
    assert found.rho.values.tolist() == [0.0, 0.02, 0.04]
    assert found.learning_time.dims == ("optimizer", "rho", "seed", "feature")
    assert found.loss.sel(optimizer="sam", rho=0.02, seed=1).dims == ("snapshot",)
    np.testing.assert_allclose(found.time, 0.05 * found.step)
    np.testing.assert_array_equal(found.loss[..., -1], found.final_loss)
    np.testing.assert_array_equal(
        found.final_loss.sel(optimizer="gd", rho=0.04), found.final_loss.sel(optimizer="gd", rho=0)
    )
    assert not np.array_equal(
        found.final_loss.sel(optimizer="sam", rho=0.04), found.final_loss.sel(optimizer="gd", rho=0)
    )
    (record,) = records(found)
    assert record["settings"]["dtype"] == "float64"
    for name in ("axes", "values", "code", "commit", "device", "jax"):
        assert name in record
    assert record["complete"]
    assert record["seconds"] > 0
    assert all(found[name].attrs["long_name"] for name in found.data_vars)
    alone = simulate(RunConfig.from_mapping(SHORT | {"optimizer": "sam", "rho": 0.04, "seed": 1}))
    np.testing.assert_allclose(found.loss.sel(optimizer="sam", rho=0.04, seed=1), alone.trajectory.loss, rtol=1e-8)


def test_sweeps_over_parts_of_an_axis_combine_and_keep_their_records(tmp_path):
    grids = [{"noise_std": np.linspace(0.0, 0.5, 6)[part], "seed": [0, 1]} for part in (slice(0, 4), slice(4, 6))]
    parts = [sweep({**SHORT, "num_steps": 60}, grid=grid, out=tmp_path / str(i)) for i, grid in enumerate(grids)]
    both = xr.combine_by_coords(parts)
    assert dict(both.sizes) == {"noise_std": 6, "seed": 2, "feature": 4}
    for part in parts:
        xr.testing.assert_equal(both.sel(noise_std=part.noise_std), part)
    np.testing.assert_array_equal(both.final_loss.sel(noise_std=0.3), parts[0].final_loss[3])
    assert {tuple(record["axes"]) for record in records(both)} == {("noise_std", "seed")}
    assert sorted(len(record["values"]["noise_std"]) for record in records(both)) == [2, 4]
    assert both.attrs["title"] == parts[0].attrs["title"]


def records(data):
    return [json.loads(text) for name, text in data.attrs.items() if name.startswith("sweep_")]


def test_points_of_several_programs_and_sizes_come_back_in_their_order(tmp_path):
    points = [
        {"dim": 2, "seed": 1},
        {"model": "merged"},
        {"dim": 3, "num_steps": 500},
        {"dim": 2, "seed": 2},
        {"fixed_task_share": 0.5},
    ]
    found = sweep(SHORT, points=points, grid={"noise_std": [0.0, 0.5]}, out=tmp_path / "s")
    assert found.dim.values.tolist() == [2, 4, 3, 2, 4]
    assert found.seed.values.tolist() == [1, 0, 0, 2, 0]
    assert found.model.values.tolist() == ["separate", "merged", "separate", "separate", "separate"]
    for i, point in enumerate(points):
        alone = simulate(RunConfig.from_mapping(SHORT | point | {"noise_std": 0.5}))
        assert_close(found.final_loss.values[i, 1], alone.trajectory.loss[-1], rtol=1e-8)
        strength = found.final_strength.values[i, 1]
        assert np.isfinite(strength).sum() == (0 if alone.bias is None else alone.config.dim)


def test_diverging_runs_are_marked_and_the_others_go_on(tmp_path):
    base = {"num_steps": 2000, "num_snapshots": 60}
    found = sweep(base, grid={"learning_rate": [0.05, 50.0, 0.1], "noise_std": [0.0, 1e200]}, out=tmp_path / "s")
    assert found.status.values.tolist() == [[1, 2], [2, 2], [1, 2]]
    assert np.isfinite(found.final_loss.values[[0, 2], 0]).all()
    assert np.isnan(found.final_loss.values[:, 1]).all()
    assert np.isnan(found.diverged_at.values[[0, 2], 0]).all()
    assert 0 < float(found.diverged_at[1, 0]) <= 2000
    assert float(found.diverged_at[0, 1]) == 0


def test_rank_agreement_is_that_of_scipy(key):
    times = np.round(np.asarray(jax.random.uniform(key, (40, 6), maxval=4.0)))
    times[times == 4.0] = np.inf
    drive = np.round(np.asarray(jax.random.uniform(jax.random.fold_in(key, 1), (40, 6), maxval=5.0)))
    fraction = np.where(np.arange(4)[:, None] >= times[:, None, :], 1.0, 0.0)
    bias = bias_of_fractions(np.arange(4.0), fraction, drive)
    found, finite = bias.rank_agreement, np.where(np.isfinite(bias.times), bias.times, 1e9)
    assert len(np.unique(finite)) == 5
    expected = [scipy.stats.kendalltau(row, -a).statistic for row, a in zip(finite, drive, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_opening_what_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no sweep"):
        open_sweep(tmp_path)
