"""Run a sweep: what is missing, unit by unit, on every device of this process, and save each as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from icl_theory.environment import code_version
from icl_theory.errors import InputError
from icl_theory.results import check_place, exists, set_aside
from icl_theory.simulation.config import RunConfig
from icl_theory.sweeps.axes import Axis
from icl_theory.sweeps.batched_runs import Cache, run_batch
from icl_theory.sweeps.folder import OWN, SweepFolder, open_sweep
from icl_theory.sweeps.measures import DIVERGED, PREDICTED
from icl_theory.sweeps.plan import Plan, Unit
from icl_theory.sweeps.processes import ALONE, Process, hold
from icl_theory.sweeps.specification import Sweep

TRAINING = 0.98  # share of a unit's work; the rest is measuring and saving


class State(NamedTuple):
    """Progress of a sweep.

    Attributes:
        runs_done: Runs of this process that are done.
        runs: Runs of this process in all.
        run_steps: Steps, summed over runs, that this call has taken.
        total_run_steps: Steps, summed over runs, that this call will take in all.
        seconds: Time since the first unit was begun.
    """

    runs_done: int
    runs: int
    run_steps: float
    total_run_steps: float
    seconds: float


class Outcome(NamedTuple):
    """Outcome of a call of `run_sweep`.

    Attributes:
        runs: Number of runs in the whole sweep.
        ran: Number of runs done in this call.
        diverged: Number of those runs that diverged.
        complete: Whether no run of the sweep is missing, those of other processes included.
        seconds: Time that this call took.
        writing: Seconds of it that were spent on writing.
        set_aside: Where `force` moved the earlier folder, if there was one.
    """

    runs: int
    ran: int
    diverged: int
    complete: bool
    seconds: float
    writing: float
    set_aside: Path | None = None


def sweep(
    base: Mapping[str, Any] | RunConfig | None = None,
    *,
    grid: Mapping[str, Any] | Sequence[Axis] = (),
    points: Any = None,
    out: Path | str,
    system: str = "auto",
    curves: bool = False,
    memory_gib: float | None = None,
    force: bool = False,
    progress: Callable[[State], None] | None = None,
) -> xr.Dataset:
    """Run every combination of settings and return them as one labelled data set.

    Runs of the same shapes are trained as one program, in which learning rates, ρ, spectra, seeds and the like vary.
    Results are saved in `out` as they come. The same call resumes where an earlier one stopped, and returns at once if
    nothing is left to do.

    For example, `sweep({"optimizer": "sam"}, grid={"rho": "0:0.05:6", "seed": range(64)}, out="results/sweeps/rho")`
    returns a data set from which `.learning_time_ratio.sel(feature=2).median("seed")` reads a result.

    Args:
        base: Settings shared by all runs, fields of `RunConfig`.
        grid: Values of each swept field, as lists or as texts such as `"0:0.1:21"` (see `parse_axis`).
        points: A list of settings, instead of a grid or as one more dimension.
        out: Folder of the sweep, a Zarr group.
        system: `"auto"`, `"full"` or `"reduced"`; see `Sweep`.
        curves: Whether to keep losses and strengths of all snapshots.
        memory_gib: Memory limit of the process. The default is half of the machine's memory.
        force: Whether to set aside what `out` holds and start over.
        progress: Called with a `State` now and then.

    Returns:
        The data set, read lazily. Its attributes and those of its variables describe it.

    Raises:
        InputError: Settings are impossible, the folder holds another sweep, or the disk is full.
    """
    specified = Sweep.create(base, grid=grid, points=points, system=system, curves=curves)
    run_sweep(specified, Path(out), memory_gib=memory_gib, force=force, progress=progress)
    return open_sweep(out)


def run_sweep(
    sweep: Sweep,
    path: Path,
    *,
    memory_gib: float | None = None,
    force: bool = False,
    process: Process = ALONE,
    progress: Callable[[State], None] | None = None,
) -> Outcome:
    """Run what is missing of a sweep.

    Args:
        sweep: The sweep.
        path: Folder of the sweep.
        memory_gib: As in `sweep`.
        force: As in `sweep`.
        process: This process among several. It runs every unit whose number is `process.number` modulo `process.total`.
        progress: As in `sweep`.
    """
    began = time.monotonic()
    code = code_version()
    if force and process.total > 1:
        raise InputError("--force", True, "several processes cannot start over together; give another --out")
    moved = _start_over(path) if force else None
    begun = exists(path) and not _is_empty(path)
    if begun:
        folder = SweepFolder(path)
        folder.check_same(sweep.description, code)
    else:
        plan = Plan.from_sweep(sweep, memory_gib=memory_gib)
        check_place(path)
        folder = SweepFolder.create(path, plan, code)
        folder.check_same(sweep.description, code)  # another process may have been the first
    plan = Plan.from_sweep(sweep, memory_gib=memory_gib, pieces=tuple(folder.about["pieces"]))
    with hold(path, process):
        folder.check_intact(plan)
        units = list(plan.units())
        own = [unit for unit in units if unit.number % process.total == process.number]
        missing = [unit for unit in own if not folder.is_complete(unit)]
        if missing:
            if begun:
                plan.check_limit()
            folder.note(complete=False)
        ran, diverged, writing = _run_units(plan, folder, own, missing, progress)
        receipts = [folder.receipt(unit) for unit in units]
        complete = all(receipt is not None for receipt in receipts)
        seconds = round(sum(receipt["seconds"] for receipt in receipts if receipt is not None), 3)
        folder.note(seconds=seconds, **({"complete": True} if complete else {}))
    return Outcome(sweep.num_runs, ran, diverged, complete, time.monotonic() - began, writing, moved)


def run_unit(
    plan: Plan,
    unit: Unit,
    configs: Sequence[RunConfig],
    *,
    cache: Cache,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Run the configs of a unit, or others of its structure (such as shorter ones for timing); return the variables."""
    sweep = plan.sweep
    return run_batch(
        configs,
        size=plan.size(unit),
        shared=plan.shared,
        full=sweep.full,
        theory=sweep.theory,
        curves=sweep.curves,
        cache=cache,
        progress=progress,
    )


def _run_units(
    plan: Plan, folder: SweepFolder, own: list[Unit], missing: list[Unit], progress: Callable[[State], None] | None
) -> tuple[int, int, float]:
    """Run and save the missing units; return the numbers of runs and of diverged runs, and the seconds of writing."""
    cache = Cache()
    begun, ran, diverged, writing, taken = time.monotonic(), 0, 0, 0.0, 0.0
    work = {unit.number: plan.run_steps(plan.first(unit)) * unit.num_runs for unit in missing}
    total, runs = sum(work.values()), sum(unit.num_runs for unit in own)
    already = runs - sum(unit.num_runs for unit in missing)

    def report(now: float) -> None:
        if progress is not None:
            progress(State(already + ran, runs, now, total, time.monotonic() - begun))

    def within(unit: Unit, before: float, done: int, steps: int) -> None:
        report(before + TRAINING * work[unit.number] * done / steps)

    for unit in missing:
        started, before = time.monotonic(), taken
        values = run_unit(plan, unit, plan.configs(unit), cache=cache, progress=partial(within, unit, before))
        taken += work[unit.number]
        wrote = time.monotonic()
        folder.write(unit, plan, values, wrote - started)
        writing += time.monotonic() - wrote
        ran += unit.num_runs
        marks = [values[name] for name in ("status", PREDICTED + "status") if name in values]
        diverged += int(np.sum(np.any(np.asarray(marks) == DIVERGED, axis=0)))
        report(taken)
    return ran, diverged, writing


def _is_empty(path: Path) -> bool:
    try:
        return path.is_dir() and not any(path.iterdir())
    except OSError as error:
        raise InputError("folder", str(path), f"cannot be read ({error.strerror}); give another") from None


def _start_over(path: Path) -> Path | None:
    if not exists(path):
        return None
    if (path / OWN).is_dir():
        with hold(path, ALONE):
            return set_aside(path)
    if not _is_empty(path):
        raise InputError("folder", str(path), "it holds no sweep; give another")
    return None
