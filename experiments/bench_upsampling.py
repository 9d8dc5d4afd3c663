"""What `icl-theory upsample` costs, as a user sees it: the whole process, imports, picture and writing included."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import icl_theory as icl

IN_A_PROCESS = """
import sys, time
began = time.monotonic()
from icl_theory.cli import main
from icl_theory.store import process_bytes
try:
    main(["upsample", *sys.argv[1:], "--quiet"])
except SystemExit as stop:
    assert not stop.code, stop.code
print(time.monotonic() - began, process_bytes(peak=True))
"""


def upsampling(dtype: str, quick: bool) -> list[tuple[Any, ...]]:
    """(6) The upsampling command: (part, what, value, unit, reach, less) of each figure."""
    count, checkpoints = (2000, 10) if quick else (10**6, 30)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, losses = folder / "train.jsonl", folder / "losses.parquet"
        _write(data, losses, count, checkpoints, dtype)
        began = time.monotonic()
        with data.open("rb") as lines:
            total = sum(len(json.loads(line)) for line in lines)
        parsing = time.monotonic() - began
        assert total == 3 * count
        rows = []
        for late in ("quantile", "clusters"):
            seconds, peak = _run(
                data, losses, "--late", late, "--factor", "2.5", "--out", str(folder / f"{late}.jsonl")
            )
            part = f"(6) upsampling {count:,} examples × {checkpoints} checkpoints, --late {late}"
            rows += [
                (part, "the whole process", seconds, "s", 30.0, True),
                (part, "the whole process / parsing each line once", seconds / parsing, "x", None, False),
                (part, "peak memory", peak / 2**30, "GiB", 2e9 / 2**30, True),
            ]
    return rows


def _write(data: Path, losses: Path, count: int, checkpoints: int, dtype: str) -> None:
    """Logistic losses of two kinds and rows of some 200 letters."""
    random = np.random.default_rng(0)
    steps = np.linspace(0, 1500, checkpoints).round()
    half = np.where(random.random(count) < 0.3, 700.0, 120.0) * random.lognormal(0, 0.3, count)
    curves = 1 / (1 + np.exp((steps[:, None] - half) / (0.25 * half)))
    ids = np.char.add("example-", np.arange(count).astype(str))
    order = random.permutation(count)
    icl.save_loss_record(icl.LossRecord(steps, curves[:, order].astype(dtype), ids[order]), losses)
    with data.open("w") as file:
        for row in range(count):
            question = (
                f"Natalia sold clips to {row} of her friends in April, and then half as many in May. How many in all?"
            )
            entry = {
                "id": ids[row].item(),
                "question": question,
                "answer": f"She sold {row} + {row / 2}. #### {1.5 * row}",
            }
            file.write(json.dumps(entry) + "\n")


def _run(data: Path, losses: Path, *options: str) -> tuple[float, float]:
    command = [sys.executable, "-c", IN_A_PROCESS, str(data), str(losses), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak = done.stdout.splitlines()[-1].split()
    return float(seconds), float(peak)
