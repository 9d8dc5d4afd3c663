"""What sweeps cost, as a user sees it: whole processes, imports, compilation and saving included."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

IN_A_PROCESS = """
import json, sys, time
began = time.monotonic()
from pathlib import Path
from icl_theory.store import process_bytes
from icl_theory.sweeps.run import run_sweep
from icl_theory.sweeps.specification import Sweep

asked = json.loads(sys.argv[1])
sweep = Sweep.create(asked["base"], grid=asked["grid"], system=asked["system"])
outcome = run_sweep(sweep, Path(sys.argv[2]), memory_gib=asked["memory_gib"])
seconds = time.monotonic() - began
print(json.dumps({"seconds": seconds, "writing": outcome.writing, "runs": outcome.ran, "peak": process_bytes(peak=True)}))
"""


def sweeping(dtype: str, quick: bool) -> list[tuple[Any, ...]]:
    """(5) Sweeps: (part, what, value, unit, reach, less) of each figure."""
    count, points, steps = (64, 8, 301) if quick else (1000, 100, 6001)
    starts = _run({"num_heads": 8, "num_steps": steps, "dtype": dtype}, {"seed": f"0:{count}"}, "full")
    reduced = {
        "init": "aligned",
        "optimizer": "sam",
        "dim": 2,
        "init_scale": 0.05,
        "learning_rate": 0.01,
        "dtype": dtype,
    }
    grid = {"rho": f"0:0.13:{points}", "eigenvalue_ratio": f"1:3:{points}"}
    theory = _run(reduced | {"num_steps": 4 * steps}, grid, "reduced")
    limit = 1.5
    wide = {"dim": 16, "num_heads": 16, "num_steps": steps // 10, "num_snapshots": 2000, "dtype": dtype}
    limited = _run(wide, {"seed": f"0:{4 * count}"}, "full", limit)
    first = f"(5) {count:,} starts × {steps:,} steps, D = 4, 8 heads"
    second = f"(5) {points**2:,} points of the reduced system × {4 * steps:,} steps"
    third = f"(5) {4 * count:,} starts at D = 16 under a limit of {limit:g} GiB"
    share = lambda found: 100.0 * found["writing"] / found["seconds"]  # noqa: E731
    return [
        (first, "the whole process", starts["seconds"], "s", 10.0, True),
        (first, "writing", share(starts), "%", 5.0, True),
        (second, "the whole process", theory["seconds"], "s", 10.0, True),
        (second, "writing", share(theory), "%", 5.0, True),
        (third, "peak memory", limited["peak"] / 2**30, "GiB", limit, True),
        (third, "writing", share(limited), "%", 5.0, True),
    ]


def _run(base: dict[str, Any], grid: dict[str, str], system: str, memory_gib: float | None = None) -> dict[str, float]:
    asked = json.dumps({"base": base, "grid": grid, "system": system, "memory_gib": memory_gib})
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", IN_A_PROCESS, asked, str(Path(folder) / "sweep")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
