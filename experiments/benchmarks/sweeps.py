"""Cost of sweeps as a user sees it: whole processes, imports, first compilation and saving included."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmarks.row import Row, output_of

IN_A_PROCESS = """
import json, sys, time
began = time.monotonic()
from pathlib import Path
from icl_theory.environment import process_bytes
from icl_theory.sweeps.run_sweep import run_sweep
from icl_theory.sweeps.specification import Sweep

asked = json.loads(sys.argv[1])
sweep = Sweep.create(asked["base"], grid=asked["grid"], system=asked["system"])
outcome = run_sweep(sweep, Path(sys.argv[2]), memory_gib=asked["memory_gib"])
seconds = time.monotonic() - began
print(json.dumps({"seconds": seconds, "writing": outcome.writing, "peak": process_bytes(peak=True)}))
"""
SECONDS, WRITING, LIMIT = 10.0, 5.0, 1.0  # bounds: s of a process, % of them on writing, GiB


class Took(NamedTuple):
    """Seconds of a process, those of them spent on writing, and the most memory it held, in bytes."""

    seconds: float
    writing: float
    peak: float

    def writing_row(self, setting: str) -> Row:
        """Return a row with the share of time spent on writing."""
        return Row(setting, "writing", 100 * self.writing / self.seconds, "%", WRITING, less=True)


def sweep_rows(dtype: str, quick: bool) -> Iterator[Row]:
    """Measure many starts, many points of the reduced system, and in float32 a sweep under a limit of memory."""
    count, points, steps = (64, 8, 301) if quick else (1000, 100, 6001)
    setting = f"{count:,} starts × {steps:,} steps"
    took = run({"num_heads": 8, "num_steps": steps, "dtype": dtype}, {"seed": f"0:{count}"}, "full")
    yield Row(setting, "the whole process", took.seconds, "s", SECONDS, less=True)
    yield took.writing_row(setting)

    base = {"init": "aligned", "optimizer": "sam", "dim": 2, "init_scale": 0.05, "learning_rate": 0.01}
    grid = {"rho": f"0:0.13:{points}", "eigenvalue_ratio": f"1:3:{points}"}
    setting = f"{points**2:,} reduced points × {4 * steps:,} steps"
    took = run({**base, "num_steps": 4 * steps, "dtype": dtype}, grid, "reduced")
    yield Row(setting, "the whole process", took.seconds, "s", SECONDS, less=True)
    yield took.writing_row(setting)

    if dtype != "float32":
        return
    setting = f"{count:,} starts, D = 16, limit {LIMIT:g} GiB"
    wide = {"dim": 16, "num_heads": 16, "num_steps": steps // 60, "dtype": dtype}
    took = run(wide, {"seed": f"0:{count}"}, "full", LIMIT)
    yield Row(setting, "peak memory", took.peak / 2**30, "GiB", LIMIT, less=True)
    yield took.writing_row(setting)


def run(base: dict[str, Any], grid: dict[str, str], system: str, memory_gib: float | None = None) -> Took:
    """Run one sweep in a process of its own."""
    asked = json.dumps({"base": base, "grid": grid, "system": system, "memory_gib": memory_gib})
    with tempfile.TemporaryDirectory() as folder:
        return Took(**json.loads(output_of(IN_A_PROCESS, asked, str(Path(folder) / "sweep"))))
