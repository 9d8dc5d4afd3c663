"""Study of upsampling on mathematical problems, as its protocol says (PROTOCOL.md).

`python -m experiments.language_models.mathematics_study MODEL FOLDER` trains the arms of `mathematics_arms`. MODEL is
`0.1M`, `0.4M` or `1.6M` for a decoder from scratch that reads symbols and no stories, or a pretrained model (a folder
or a GGUF file). Every finished run leaves a file in FOLDER. The same command goes on where it was stopped; several
commands with other arms or seeds can share a folder, one after the other. On CPU each seed has a core of its own. On an
accelerator all seeds of a decoder from scratch are one program, and those of a pretrained model run one after the
other, arm by arm.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np

from experiments.language_models.arithmetic_study import options
from experiments.language_models.mathematics_arms import NAMES
from experiments.language_models.mathematics_runs import Settings, Study
from experiments.language_models.seeds import on_cores
from icl_theory.cli.one_line import run
from icl_theory.errors import InputError
from icl_theory.progress import ProgressReport
from icl_theory.results import first_difference, plain, writing


class Clock:
    """Time that is left for further runs.

    Args:
        end: time (of `time.time`) by which no run should be in progress; None for no limit.
    """

    def __init__(self, end: float | None):
        self.end, self.latest = end, 0.0

    def timed(self, function: Callable[[], Any]) -> Any:
        """Call a function and note how long it took."""
        begin = time.time()
        found = function()
        self.latest = time.time() - begin
        return found

    @property
    def over(self) -> bool:
        """Return True if another run, as long as the latest, would end too late."""
        return self.end is not None and time.time() + self.latest > self.end


def train(
    settings: Settings,
    groups: Sequence[Sequence[int]],
    folder: Path,
    names: Sequence[str],
    end: float | None,
    said: Callable[[str], None] = lambda _: None,
) -> None:
    """Train arms in order, each with all groups of seeds, until the time is over."""
    studies = [Study(settings, group, folder) for group in groups]
    clock = Clock(end)
    for study in studies:
        if clock.over:
            return
        clock.timed(lambda study=study: study.found)  # type: ignore[misc]
    for name in names:
        for study in studies:
            if clock.over:
                return
            arm = clock.timed(lambda study=study, name=name: study.arm(name))  # type: ignore[misc]
            if arm is not None:
                said(f"{name}, seeds {study.seeds}: {np.mean(arm['accuracy']):.3f}")


def check_folder(folder: Path, settings: Settings) -> None:
    """Write the settings into a new folder.

    Raises:
        InputError: the folder holds a study of other settings.
    """
    path = folder / "settings.json"
    if not path.exists():
        with writing(path) as unfinished:
            unfinished.write_text(json.dumps(plain(settings)) + "\n")
    difference = first_difference(json.loads(path.read_text()), plain(settings))
    if difference:
        raise InputError("FOLDER", str(folder), f"it holds a study of other settings ({difference}); give another")


@click.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@options(Settings)
@click.option("--seeds", default=16, show_default=True, type=click.IntRange(1), help="number of seeds")
@click.option("--first-seed", default=0, show_default=True, type=click.IntRange(0), help="the first of them")
@click.option("--arm", "names", multiple=True, type=click.Choice(NAMES), help="one of them  [default: all]")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="start no run that would end later")
@click.option("--only-draw", is_flag=True, help="draw the problems, and do no more")
def main(
    model: str,
    folder: Path,
    seeds: int,
    first_seed: int,
    names: tuple[str, ...],
    minutes: float | None,
    only_draw: bool,
    **given: Any,
) -> None:
    """Train the arms from MODEL, and keep every finished run in FOLDER."""
    end = None if minutes is None else time.time() + 60 * minutes
    settings, names = Settings(model, **given), names or NAMES
    check_folder(folder, settings)
    everyone = range(first_seed, first_seed + seeds)
    if only_draw:
        for seed in everyone:
            Study(settings, (seed,), folder)
        return
    with ProgressReport() as report:
        if jax.default_backend() != "cpu":
            groups = [tuple(everyone)] if settings.reads_symbols else [(seed,) for seed in everyone]
            count, done = len(groups) * len(names), iter(range(1, len(groups) * len(names) + 1))
            train(settings, groups, folder, names, end, lambda words: report("training", next(done), count, words))
            return
        finished = iter(range(1, seeds + 1))
        jobs = {f"seed {seed}": (settings, [(seed,)], folder, names, end) for seed in everyone}
        on_cores(train, jobs, lambda name: report("training", next(finished), seeds, name))


if __name__ == "__main__":
    run(main, "mathematics-study")
