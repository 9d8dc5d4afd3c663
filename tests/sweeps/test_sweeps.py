"""Sweeps: every run is what `simulate` runs, cut and labelled as it should be, one compilation a structure."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import xarray as xr
from helpers import assert_close

from icl_theory import InputError, RunConfig, simulate
from icl_theory.analysis.simplicity_bias import bias_of_fractions
from icl_theory.sweeps import measures
from icl_theory.sweeps.axes import parse_axis
from icl_theory.sweeps.batched_runs import Cache, run_batch
from icl_theory.sweeps.folder import open_sweep
from icl_theory.sweeps.plan import Plan
from icl_theory.sweeps.run_sweep import run_sweep, sweep
from icl_theory.sweeps.specification import Sweep
from icl_theory.sweeps.structure import batch_numbers, join_config, numbers_of, structure_of
from icl_theory.training.compiled_loop import run_chunk

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


def test_an_axis_that_matters_at_some_values_of_another_is_taken():
    grid = {"fixed_task_share": [0.0, 0.3], "data_seed": range(3)}
    assert Sweep.create({"basis": "axes"}, grid=grid).num_runs == 6
    grid = {"data_seed": [5, -1], "seed": range(3)}
    assert Sweep.create({"init": "aligned"}, grid=grid).num_runs == 6


def test_the_largest_combination_counts_for_memory_in_any_order():
    base = {"data": "prompts", "engine": "prompts", "num_steps": 50}
    counts, lengths = [100, 20_000], [4, 400]
    needed = [
        Plan.from_sweep(Sweep.create(base, grid={"num_prompts": p, "num_context": n}), memory_gib=1e3).bytes_needed()
        for p in (counts, counts[::-1])
        for n in (lengths, lengths[::-1])
    ]
    assert max(needed) < 1.05 * min(needed)
    with pytest.raises(InputError, match="GiB"):
        Sweep.create(base, grid={"num_prompts": [100, 10**7], "num_context": [4, 10_000]})


def test_the_same_call_twice_is_not_refused_for_memory(tmp_path):
    base, grid = {"dim": 8, "num_snapshots": 1000, "num_steps": 2000}, {"seed": "0:1000"}
    need = Plan.from_sweep(Sweep.create(base, grid=grid)).bytes_needed() / 2**30
    first = sweep(base, grid=grid, out=tmp_path / "s", memory_gib=1.02 * need)
    assert sweep(base, grid=grid, out=tmp_path / "s", memory_gib=1.02 * need).identical(first)
    assert sweep(base, grid=grid, out=tmp_path / "s", memory_gib=0.5).identical(first)  # nothing is left to run


@pytest.mark.parametrize(
    "bases",
    [
        ({"eigenvalues": [2.0, 1.0]}, {"eigenvalues": [3.0, 1.0]}),
        ({"exponent": 1.0}, {}),
        ({"num_context": 5}, {"num_context": 6}),
    ],
)
def test_sweeps_that_differ_in_later_points_only_are_different(bases):
    points = [{"spectrum": "white", "dim": 2, "num_context": 9}, {"rho": 0.1}]
    one, other = (Sweep.create({"optimizer": "sam"} | base, points=points) for base in bases)
    assert one.config([0]) == other.config([0])
    assert one.config([1]) != other.config([1])
    assert one.description != other.description


def test_points_are_labelled_with_what_they_are():
    points = [{"spectrum": "white"}, {"eigenvalue_ratio": 3.0}, {"eigenvalues": [2.0, 1.0000001]}, {"dim": 3}]
    labels = {name: values for name, (_, values) in Sweep.create(points=points).coordinates.items()}
    assert labels["spectrum"] == ["white", "geometric", "given", "linear"]
    assert labels["dim"] == [4, 4, 2, 3]
    assert labels["eigenvalues"] == ["", "", "2,1.0000001", ""]


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


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(0.0, 0.5, 6),  # with 0.30000000000000004
        np.linspace(0.5, 0.0, 6)[::-1],  # with 0.09999999999999998
        np.arange(0.5, -0.05, -0.1)[::-1],  # with 1.1102230246251565e-16
        np.arange(6, dtype=np.float32) * np.float32(0.1),
        jnp.linspace(0.0, 0.5, 6, dtype=jnp.float32),
        [jnp.float32(0.0), jnp.float32(0.1), 0.2, 0.3, 0.4, 0.5],
        [np.float32(0.0), np.float64(0.1), 0.2, 0.1 + 0.2, 0.4, 0.5],
        "0:0.5:6",
    ],
)
def test_a_grid_is_labelled_with_its_decimals(values):
    swept = Sweep.create({"optimizer": "sam"}, grid={"rho": values})
    assert swept.coordinates["rho"] == ("rho", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_values_that_stand_for_no_decimal_stay():
    for values in (
        [1 / 3, 2 / 3],
        [0.1234567890123456, 0.7],
        [1e-300, 1e-9],
        [0.3, 0.1 + 0.2],
        [1e-16, 0.5, 1.0],
        [1e-16 / 3, 1 / 3, 7.0],
    ):
        assert Sweep.create(grid={"learning_rate": values}).coordinates["learning_rate"][1] == values
    assert Sweep.create(grid={"learning_rate": "0:1:4"}).coordinates["learning_rate"][1][1] == 1 / 3
    single = np.asarray([1 / 3, 0.123456], np.float32)
    labels = Sweep.create(grid={"learning_rate": single}).coordinates["learning_rate"][1]
    assert labels == [0.33333334, 0.123456]
    assert np.array_equal(np.asarray(labels, np.float32), single)
    assert Sweep.create(points=[{"seed": 1, "learning_rate": 0.1 + 0.2}]).coordinates["learning_rate"][1] == [0.3]


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


def test_one_compilation_a_program_and_none_for_changed_numbers(tmp_path):
    grid = {"optimizer": ["gd", "sam"], "rho": [0.0, 0.02], "num_steps": [150, 300], "seed": range(3)}
    base = {"dim": 5, "num_heads": 3, "num_snapshots": 10}
    specified = Sweep.create(base, grid=grid)
    assert len(Plan.from_sweep(specified).programs()) == 2
    before = run_chunk._cache_size()
    run_sweep(specified, tmp_path / "first")
    assert run_chunk._cache_size() - before == 2
    other = Sweep.create(base | {"learning_rate": 0.1, "noise_std": 0.2}, grid=grid | {"rho": [0.01, 0.05]})
    run_sweep(other, tmp_path / "second")
    assert run_chunk._cache_size() - before == 2


def test_diverging_runs_are_marked_and_the_others_go_on(tmp_path):
    base = {"num_steps": 2000, "num_snapshots": 60}
    found = sweep(base, grid={"learning_rate": [0.05, 50.0, 0.1], "noise_std": [0.0, 1e200]}, out=tmp_path / "s")
    assert found.status.values.tolist() == [[1, 2], [2, 2], [1, 2]]
    assert np.isfinite(found.final_loss.values[[0, 2], 0]).all()
    assert np.isnan(found.final_loss.values[:, 1]).all()
    assert np.isnan(found.diverged_at.values[[0, 2], 0]).all()
    assert 0 < float(found.diverged_at[1, 0]) <= 2000
    assert float(found.diverged_at[0, 1]) == 0


def test_units_cover_every_run_once_and_fit_chunks():
    grid = {"optimizer": ["gd", "sam"], "fixed_task_share": [0.0, 0.1, 0.2], "seed": "0:150", "rho": "0:0.1:3"}
    specified = Sweep.create({"num_steps": 10**5}, grid=grid)
    plan = Plan.from_sweep(specified)
    seen = np.zeros(specified.shape, int)
    for unit in plan.units():
        seen[np.ix_(*unit.indices)] += 1
        assert unit.num_runs <= plan.size(unit)
        structures = {structure_of(config) for config in plan.configs(unit)}
        assert len(structures) == 1
        for indices, chunk in zip(unit.indices, plan.chunks, strict=True):
            assert chunk == 1 or (indices[0] % chunk == 0 and len(indices) <= chunk)
    assert (seen == 1).all()


def test_units_of_large_models_hold_fewer_runs():
    """So that no more than some seconds are lost, whatever the model."""
    grid = {"seed": "0:512"}
    small, large, prompts = (
        Plan.from_sweep(Sweep.create({"num_steps": 2000} | base, grid=grid), memory_gib=1e3)
        for base in ({}, {"dim": 32}, {"data": "prompts", "scores": "softmax"})
    )
    assert small.pieces == (512,)
    assert 8 <= large.pieces[0] < 64
    assert prompts.pieces == (1,)


def test_less_memory_makes_smaller_units_and_too_little_is_refused(monkeypatch):
    monkeypatch.setattr("icl_theory.sweeps.plan.process_bytes", lambda: 3e8)  # as in a process of its own
    specified = Sweep.create({"dim": 8, "num_snapshots": 2000, "num_steps": 2000}, grid={"seed": "0:4000"})
    large = Plan.from_sweep(specified, memory_gib=1e3)
    limit = 0.75 * large.bytes_needed()
    small = Plan.from_sweep(specified, memory_gib=limit / 2**30)
    assert large.pieces[0] == 800
    assert small.pieces[0] < large.pieces[0] / 1.5
    assert small.bytes_needed() < limit
    with pytest.raises(InputError, match="one run alone takes"):
        Plan.from_sweep(specified, memory_gib=0.01)


def test_structures_and_numbers_give_the_config_back():
    config = RunConfig.from_mapping(
        {"groups": MIXTURE, "upsampling_factor": 3.0, "optimizer": "sam", "seed": 2**32 - 1}
    )
    joined = join_config(structure_of(config), numbers_of(config))
    for name in ("rho", "learning_rate", "seed", "init_scale", "upsampling_factor"):
        assert getattr(joined, name) == getattr(config, name)
    assert [share for share, _ in joined.groups] == [0.7, 0.3]
    assert joined.groups[1][1].eigenvalues.tolist() == [0.1, 0.1, 0.1, 0.4]
    assert batch_numbers([config, config])["seed"].tolist() == [2**32 - 1] * 2
    assert structure_of(dataclasses.replace(config, rho=0.3, seed=1)) == structure_of(config)


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


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("rho=0:0.1:5", [0.0, 0.025, 0.05, 0.075, 0.1]),
        ("rho = 0, 0.5", [0.0, 0.5]),
        ("seed=3:6", [3, 4, 5]),
        ("num_context=10:30:3", [10, 20, 30]),
        ("learning-rate=1e-3:1e-1:3:log", [0.001, 0.01, 0.1]),
        ("optimizer=gd,sam", ["gd", "sam"]),
        ("eigenvalues=2,1;3,1", [(2.0, 1.0), (3.0, 1.0)]),
    ],
)
def test_axes_are_read(text, values):
    axis = parse_axis(text)
    assert [setting[axis.name] for setting in axis.settings] == values
    assert all(type(setting[axis.name]) is type(value) for setting, value in zip(axis.settings, values, strict=True))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grid": {}}, "at least one axis"),
        ({"grid": {"rhoo": [1]}}, "did you mean rho"),
        ({"grid": {"rho": []}}, "list of values"),
        ({"grid": {"rho": 0.5}}, "list of values"),
        ({"grid": {"rho": [0.1, 0.1]}}, "twice"),
        ({"grid": {"rho": [0.1, 0.2]}}, "changes nothing with optimizer = gd"),
        ({"grid": {"exponent": [1, 2]}, "base": {"spectrum": "linear"}}, "changes nothing"),
        ({"grid": {"rank": [1, 5]}}, "at most 4"),
        ({"grid": {"dim": [4, 2], "rank": [1, 3]}}, "at most 2"),
        ({"grid": {"dim": [1, 2], "fixed_task_share": [0.0, 0.5], "init": ["aligned", "random"]}}, "init"),
        ({"grid": {"rho": [{"a": 1}]}}, "numbers or texts"),
        ({"grid": {"eigenvalues": [[[1, 2]]]}}, "numbers or texts"),
        ({"points": [{"rho": [[1], [1, 2]]}]}, "numbers or texts"),
        ({"grid": {"rho": [1.0, 2.0]}, "base": {"rho": 0.5, "optimizer": "sam"}}, "it is on an axis too"),
        ({"grid": {"seed": [1, 2**40]}}, "seed"),
        ({"grid": {"seed": [1, 1.5]}}, "seed"),
        ({"grid": {"learning_rate": [0.1, float("nan")]}}, "finite"),
        ({"grid": {"learning_rate": [0.1, "fast"]}}, "finite number"),
        ({"grid": {"eigenvalues": [(1, 2), (0, 0)]}}, "positive"),
        ({"grid": {"model": ["separate", "mamba"]}}, "merged"),
        ({"grid": {"seed": [1, 2]}, "base": {"groups": 3}}, "groups"),
        ({"grid": {"noise_std": [0.1]}, "base": {"groups": [{"share": 1.0, "noise_std": 0.3}]}}, "groups set it"),
        ({"grid": {"upsampling_factor": [1, 2]}}, "one group only"),
        ({"grid": {"init": ["random", "reduced"]}}, "blocks = full"),
        ({"points": [{}]}, "points"),
        ({"points": {"rho": 1}}, "points"),
        ({"points": [{"seed": 1}], "grid": {"seed": [1]}}, "one axis only"),
        ({"grid": {"seed": [1, 2]}, "base": {"blocks": "full"}, "system": "reduced"}, "separate heads of rank 1"),
        ({"grid": {"seed": [1, 2]}, "system": "both"}, "auto"),
        ({"grid": {"num_steps": [10, 20]}, "curves": True}, "one schedule"),
        ({"grid": {"seed": [1, 2], "fixed_task_share": [0.0, 0.5]}, "base": {"init": "aligned"}}, "init"),
    ],
)
def test_bad_sweeps_name_field_and_remedy(settings, words):
    with pytest.raises(InputError, match=words):
        Sweep.create(settings.pop("base", None), **settings)


def test_a_toml_file_holds_a_whole_sweep(tmp_path):
    (tmp_path / "sweep.toml").write_text(
        'optimizer = "sam"\nsystem = "full"\ncurves = true\n[grid]\nrho = "0:0.1:3"\nseed = [1, 2]\n'
        "[[groups]]\nshare = 0.5\n[[groups]]\nshare = 0.5\nnoise_std = 0.1\n"
    )
    found = Sweep.from_toml(tmp_path / "sweep.toml", base={"dim": 3}, grid=(parse_axis("rho=0.2,0.3"),))
    assert found.curves
    assert found.system == "full"
    assert {axis.name: len(axis) for axis in found.axes} == {"seed": 2, "rho": 2}
    assert found.config([0, 1]).rho == 0.3
    assert found.config([0, 1]).dim == 3
    for text, words in (("grid = 3\n", "table"), ("[grid]\nrho = 'a:b:c'\n", "not a number"), ("curves = 1\n", "true")):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(InputError, match=words):
            Sweep.from_toml(tmp_path / "bad.toml", grid=(parse_axis("seed=0:2"),) if "curves" in text else ())


def test_opening_what_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no sweep"):
        open_sweep(tmp_path)
