"""The cost of a sweep before it is run: runs, programs, memory, and the time, estimated from short runs."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import NamedTuple

from icl_theory.environment import code_version
from icl_theory.progress import duration
from icl_theory.results import exists
from icl_theory.simulation.prediction import theory_of
from icl_theory.sweeps.batched_runs import Cache
from icl_theory.sweeps.folder import OWN, SweepFolder
from icl_theory.sweeps.plan import Plan, Unit
from icl_theory.sweeps.run_sweep import run_unit
from icl_theory.sweeps.specification import Sweep

MEASURED_SECONDS = 20.0  # after which no further program is measured; the rest are taken to be like the last
LONG_ENOUGH = 0.2  # seconds that a short run must last for its speed to be reliable


class Speed(NamedTuple):
    """Cost of a unit: seconds to compile, seconds of overhead besides the steps, and seconds per step."""

    compiling: float
    beside: float
    step: float

    def seconds(self, num_steps: int) -> float:
        """Return the seconds of one unit that is compiled already."""
        return self.beside + num_steps * self.step


def describe(sweep: Sweep, path: Path, *, memory_gib: float | None = None) -> dict[str, str]:
    """Return the lines of `--dry-run`, by name. Programs are compiled and run for a few steps, nothing is written.

    Raises:
        InputError: Not even one run fits into memory, or the folder holds another sweep.
    """
    plan = Plan.from_sweep(sweep, memory_gib=memory_gib)
    complete = 0
    if exists(path) and (path / OWN).is_dir():
        folder = SweepFolder(path)
        folder.check_same(sweep.description, code_version())
        plan = Plan.from_sweep(sweep, memory_gib=memory_gib, pieces=tuple(folder.about["pieces"]))
        complete = sum(folder.is_complete(unit) for unit in plan.units())
    units = sum(1 for _ in plan.units())
    shape = " × ".join(f"{axis.name} {len(axis)}" for axis in sweep.axes)
    largest = max(unit.num_runs for unit, _ in plan.representatives())
    programs = len(plan.programs())
    systems = " and ".join(name for name, used in (("full model", sweep.full), ("theory", sweep.theory)) if used)
    limit = f"at most {plan.limit / 2**30:.3g} GiB allowed"
    seconds, measured = estimate_seconds(plan)
    return {
        "runs": f"{sweep.num_runs:,} ({shape}), {systems}",
        "programs": f"{programs} to compile" + (" for each system" if sweep.full and sweep.theory else ""),
        "units": f"{units:,} of up to {largest:,} runs, each saved when it is done; {complete:,} complete in {path}",
        "memory": f"about {plan.bytes_needed() / 2**30:.2g} GiB, {limit}",
        "time": f"about {duration(seconds * (1 - complete / units))} on this machine, {measured}",
    }


def estimate_seconds(plan: Plan) -> tuple[float, str]:
    """Return the estimated seconds of the whole sweep in this process, and how they were measured."""
    found = sorted(plan.representatives(), key=lambda pair: -plan.run_steps(plan.first(pair[0])) * pair[1])
    began, speeds, total = time.monotonic(), list[Speed](), 0.0
    for unit, runs in found:
        num_units, config = runs / unit.num_runs, plan.first(unit)
        if time.monotonic() - began < MEASURED_SECONDS:
            speed = _measure(plan, unit)
            speeds.append(speed)
            total += speed.compiling + num_units * speed.seconds(config.num_steps)
        else:
            like = speeds[-1]
            total += like.compiling + num_units * like.seconds(config.num_steps)
    share = f"measured on {len(speeds)} of {len(found)} kinds of unit"
    return total, share if len(speeds) < len(found) else "measured on short runs"


def _measure(plan: Plan, unit: Unit) -> Speed:
    def run(num_steps: int) -> float:
        shortened = [
            dataclasses.replace(config, num_steps=num_steps, num_snapshots=min(config.num_snapshots, num_steps + 1))
            for config in plan.configs(unit)
        ]
        began = time.monotonic()
        run_unit(plan, unit, shortened, cache=Cache(0))
        return time.monotonic() - began

    longest = plan.first(unit).num_steps
    first = run(1)
    beside = run(1)
    steps, seconds = 1, beside
    if not plan.sweep.full and theory_of(plan.first(unit)) == "cascade":  # its time is not proportional to the steps
        steps, seconds = longest, run(longest)
    while seconds - beside < LONG_ENOUGH and steps < longest:
        steps = min(longest, 4 * steps)
        seconds = run(steps)
    return Speed(max(0.0, first - beside), beside, max(0.0, seconds - beside) / steps)
