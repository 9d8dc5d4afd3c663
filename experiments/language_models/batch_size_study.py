"""Study of what upsampling does to a small decoder at several batch sizes, with AdamW, Muon and SGD.

`python -m experiments.language_models.batch_size_study --out FILE` holds the law of the theory notes, §17, against
training: R, the learning step of late examples over that of early ones, plain and with the late × κ or as many random
ones × κ, at the same number of examples seen. The law is that of the noise scale measured in the pilot run, and that of
groups that share nothing. Each run is kept as it ends, in a folder beside FILE, and the same command goes on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

import icl_theory as icl
from experiments.language_models.arithmetic_study import options
from experiments.language_models.batch_size_runs import ARMS, OPTIMIZERS, Settings, Task
from experiments.language_models.seeds import on_cores
from experiments.language_models.trainer import PILOT
from icl_theory.cli.one_line import run
from icl_theory.cli.options import short_hash
from icl_theory.environment import machine
from icl_theory.llm.evaluation.study import paired
from icl_theory.progress import ProgressReport
from icl_theory.results import first_difference, load_arrays, plain, save_arrays, writing
from icl_theory.upsampling.noise_scale import LAWS, NoiseScale, sparse
from icl_theory.upsampling.optimizer_rule import NAMES, median_times

Key = tuple[str, int, int]  # optimizer, batch size, seed
HEADINGS = (
    "optimizer",
    "batch",
    "*R*, plain",
    "*R* of late × κ, over random's",
    "law, measured noise",
    "law, nothing shared",
    "plain",
    "late × κ",
    "late × κ, minus random × κ",
)


def do_task(settings: Settings, key: Key, folder: Path) -> None:
    """Do the runs of a task that have no file yet."""
    optimizer, batch, seed = key
    task = Task(settings, optimizer, batch, seed)
    pilot = _done(_path(folder, key, PILOT), task.pilot)
    if pilot["late"] is not None:
        for name in ARMS:
            _done(_path(folder, key, name), partial(task.arm, name, pilot["late"]))


def _path(folder: Path, key: Key, name: str) -> Path:
    return folder / f"{'-'.join(map(str, key))}-{name}.npz"


def _done(path: Path, of: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the arrays of a file, which is written first if it does not exist."""
    if not path.exists():
        found = {name: value for name, value in of().items() if value is not None}
        with writing(path) as partial:
            save_arrays(partial, {name: np.asarray(value) for name, value in found.items()})
    return {"late": None} | load_arrays(path)


def do_all(settings: Settings, keys: list[Key], folder: Path, report: Callable[..., None]) -> None:
    """Do all tasks, on a core each."""
    folder.mkdir(parents=True, exist_ok=True)
    places = iter(range(1, len(keys) + 1))
    jobs = {" ".join(map(str, key)): (settings, key, folder) for key in keys}
    on_cores(do_task, jobs, lambda name: report("training", next(places), len(keys), name))


def measured(settings: Settings, key: Key, folder: Path) -> dict[str, Any] | None:
    """Return R and accuracy of each arm of a task, and R's predicted change; None if no example was late."""
    pilot = load_arrays(_path(folder, key, PILOT))
    if "late" not in pilot:
        return None
    late, found = pilot["late"][: settings.followed], {}
    for name in ARMS:
        arm = load_arrays(_path(folder, key, name))
        steps = arm["steps"].astype(float)
        early, slow = median_times(icl.example_learning_times(steps, arm["losses"].astype(float)), late, steps[-1])
        found[name] = {
            "early": early,
            "late": slow,
            "R": slow / early,
            "accuracy": float(arm["accuracy"]),
            "loss": float(arm["loss"]),
            "by_kind": arm["by_kind"].tolist(),
        }
    share = float(pilot["late"].mean())
    return found | {"share": share, "predicted": _predicted(settings, key, pilot)}


def _predicted(settings: Settings, key: Key, pilot: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Return R under κ over R without, by the measured noise and for groups that share nothing; None without a law."""
    optimizer, batch, _ = key
    if optimizer not in LAWS:
        return {"noise": None, "sparse": None}
    noise = NoiseScale(*(pilot[f"noise_{name}"] for name in NoiseScale._fields))
    times = (float(pilot["times"][0]), float(pilot["times"][1]))

    def change(law: NoiseScale) -> float | None:
        try:
            before, after = (
                law.ratio(times, factor, batch, optimizer=optimizer)[0] for factor in (1.0, settings.factor)
            )
        except icl.InputError:
            return None
        return float(after / before)

    return {"noise": change(noise), "sparse": change(sparse(noise.share, settings.train))}


def table(found: dict[str, Any]) -> list[str]:
    """Return the comparison of a saved study as lines of a Markdown table, one for each optimizer and batch size.

    Middles of R and of the laws are geometric, the others arithmetic. Intervals are 95 % over seeds.
    """
    lines = [_row(*HEADINGS), "|---|--:" + "|--:" * (len(HEADINGS) - 2) + "|"]
    for name, seeds in found["cells"].items():
        optimizer, batch = name.split("-")
        known = [one for one in seeds if one is not None]
        if len(known) < 2:
            lines.append(_row(NAMES[optimizer], batch, f"late examples in {len(known)} of {len(seeds)} seeds"))
            continue
        middle, half = paired(np.log([one["late"]["R"] / one["random"]["R"] for one in known]))
        laws = [[one["predicted"][law] for one in known if one["predicted"][law]] for law in ("noise", "sparse")]
        accuracy = {arm: np.array([one[arm]["accuracy"] for one in known]) for arm in ARMS}
        gains = ["{:+.3f} ± {:.3f}".format(*paired(accuracy["late"] - accuracy[arm])) for arm in ("plain", "random")]
        lines.append(
            _row(
                NAMES[optimizer],
                batch,
                f"{np.exp(np.mean(np.log([one['plain']['R'] for one in known]))):.2f}",
                f"{np.exp(middle):.2f} ({np.exp(middle - half):.2f}–{np.exp(middle + half):.2f})",
                *(f"{np.exp(np.mean(np.log(law))):.2f}" if law else "–" for law in laws),
                f"{accuracy['plain'].mean():.3f}",
                *(gain.replace("-", "−") for gain in gains),
            )
        )
    return lines


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


@click.command()
@options(Settings)
@click.option("--only", type=click.Choice(OPTIMIZERS), help="train one optimizer only, and save no table")
@click.option("--out", default="results/batch-size-study.json", show_default=True, type=click.Path(path_type=Path))
def main(out: Path, only: str | None, **given: Any) -> None:
    """Train all runs, save the results and show them; if the file exists already, only show it."""
    settings = Settings(**{**given, "batches": tuple(int(size) for size in given["batches"])})
    if not out.exists():
        same = dataclasses.replace(settings, seeds=0, batches=())  # more seeds and sizes go on from the same runs
        folder = out.with_name(f"{out.stem}-{short_hash(plain(same))}")
        optimizers = OPTIMIZERS if only is None else (only,)
        sizes = [int(size) for size in settings.batches]
        keys = [(name, size, seed) for seed in range(settings.seeds) for name in optimizers for size in sizes]
        with ProgressReport() as report:
            do_all(settings, keys, folder, report)
        if only is not None:
            click.echo(f"{len(keys)} tasks are done, in {folder}")
            return
        cells = {
            f"{name}-{size}": [measured(settings, (name, size, seed), folder) for seed in range(settings.seeds)]
            for name in optimizers
            for size in sizes
        }
        save_study(out, settings, cells)
    click.echo("\n".join(table(load_study(out, settings))))


def save_study(path: Path, settings: Settings, cells: dict[str, Any]) -> None:
    """Write the study, completely or not at all."""
    with writing(path) as partial:
        partial.write_text(json.dumps({"machine": machine(), "settings": plain(settings), "cells": cells}) + "\n")


def load_study(path: Path, settings: Settings) -> dict[str, Any]:
    """Read a saved study.

    Raises:
        InputError: the file holds no study, or one of other settings.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        difference = first_difference(found["settings"], plain(settings))
        _ = found["cells"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise icl.InputError("--out", str(path), "it exists and holds no study; give another or remove it") from None
    if difference:
        raise icl.InputError(
            "--out", str(path), f"it holds a study of other settings ({difference}); give another file"
        )
    return found


if __name__ == "__main__":
    run(main, "batch-size-study")
