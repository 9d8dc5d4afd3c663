"""How a sweep is cut: units cover all runs, fit the memory, and share one compilation a structure."""

import dataclasses

import numpy as np
import pytest

from icl_theory import InputError, RunConfig
from icl_theory.sweeps.plan import Plan
from icl_theory.sweeps.run_sweep import run_sweep, sweep
from icl_theory.sweeps.specification import Sweep
from icl_theory.sweeps.structure import batch_numbers, join_config, numbers_of, structure_of
from icl_theory.training.compiled_loop import run_chunk


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


def test_the_same_call_twice_is_not_refused_for_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("icl_theory.sweeps.plan.process_bytes", lambda: 3e8)  # as in a process of its own
    base, grid = {"dim": 8, "num_snapshots": 1000, "num_steps": 2000}, {"seed": "0:60"}
    need = Plan.from_sweep(Sweep.create(base, grid=grid)).bytes_needed() / 2**30
    first = sweep(base, grid=grid, out=tmp_path / "s", memory_gib=1.02 * need)
    assert sweep(base, grid=grid, out=tmp_path / "s", memory_gib=1.02 * need).identical(first)
    with pytest.raises(InputError, match="one run alone takes"):
        Plan.from_sweep(Sweep.create(base, grid=grid), memory_gib=0.1)
    assert sweep(base, grid=grid, out=tmp_path / "s", memory_gib=0.1).identical(first)  # nothing is left to run


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
    mixture = [{"share": 0.7}, {"share": 0.3, "eigenvalues": [0.1, 0.1, 0.1, 0.4]}]
    config = RunConfig.from_mapping(
        {"groups": mixture, "upsampling_factor": 3.0, "optimizer": "sam", "seed": 2**32 - 1}
    )
    joined = join_config(structure_of(config), numbers_of(config))
    for name in ("rho", "learning_rate", "seed", "init_scale", "upsampling_factor"):
        assert getattr(joined, name) == getattr(config, name)
    assert [share for share, _ in joined.groups] == [0.7, 0.3]
    assert joined.groups[1][1].eigenvalues.tolist() == [0.1, 0.1, 0.1, 0.4]
    assert batch_numbers([config, config])["seed"].tolist() == [2**32 - 1] * 2
    assert structure_of(dataclasses.replace(config, rho=0.3, seed=1)) == structure_of(config)
