"""Cost of `icl-theory upsample`, as a user sees it: the whole process, imports, picture and writing included."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from scipy.special import expit

from experiments.benchmarks.row import Row, output_of

IN_A_PROCESS = """
import sys, time
began = time.monotonic()
from icl_theory.cli import main
from icl_theory.environment import process_bytes
try:
    main(["upsample", *sys.argv[1:], "--quiet"])
except SystemExit as stop:
    assert not stop.code, stop.code
print(time.monotonic() - began, process_bytes(peak=True))
"""
LATE = ("quantile", "clusters")  # ways to find late examples
SECONDS, MEMORY = 30.0, 2e9  # bounds on the process, in seconds and bytes
LINE = (
    '{{"id": "example-{0}", "question": "Natalia sold clips to {0} of her friends in April, and then half as many in '
    'May. How many in all?", "answer": "She sold {0} + {1}. #### {2}"}}\n'
)


def upsampling_rows(dtype: str, quick: bool) -> Iterator[Row]:
    """Measure a data file and a loss record of a million examples at 30 checkpoints, upsampled by a given factor."""
    count, checkpoints = (2000, 10) if quick else (10**6, 30)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, losses = folder / "train.jsonl", folder / "losses.parquet"
        write_losses(losses, count, checkpoints, dtype)
        write_data(data, count)
        began = time.monotonic()
        with data.open("rb") as lines:
            total = sum(len(json.loads(line)) for line in lines)
        parsing = time.monotonic() - began
        assert total == 3 * count
        for late in LATE:
            words = (str(data), str(losses), "--late", late, "--factor", "2.5", "--out", str(folder / f"{late}.jsonl"))
            seconds, peak = map(float, output_of(IN_A_PROCESS, *words).splitlines()[-1].split())
            setting = f"{count:,} × {checkpoints}, {late}"
            yield Row(setting, "the whole process", seconds, "s", SECONDS, less=True)
            yield Row(setting, "it / parsing each line once", seconds / parsing, "x", less=True)
            yield Row(setting, "peak memory", peak / 2**30, "GiB", MEMORY / 2**30, less=True)


def write_losses(path: Path, count: int, checkpoints: int, dtype: str) -> None:
    """Write logistic losses of two kinds of examples, in another order than the data."""
    random = np.random.default_rng(0)
    half = (np.where(random.random(count) < 0.3, 700.0, 120.0) * random.lognormal(0, 0.3, count)).astype(dtype)
    ids = pa.array([f"example-{row}" for row in random.permutation(count).tolist()])
    steps = np.linspace(0, 1500, checkpoints).round().astype(int).tolist()
    losses = {str(step): expit((half - step) / (0.25 * half)) for step in steps}
    pa.parquet.write_table(pa.table({"id": ids, **losses}), path)


def write_data(path: Path, count: int) -> None:
    """Write rows of some 200 characters as JSON lines."""
    with path.open("w") as file:
        file.writelines(LINE.format(row, row / 2, 1.5 * row) for row in range(count))
