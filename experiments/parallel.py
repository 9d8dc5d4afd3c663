"""Experiments and figures side by side: a process for each core, the longest work first, one progress for all of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax

from experiments import EXPERIMENTS
from experiments.experiment import run
from figures import FIGURES
from figures.figure import draw
from icl_theory.blocks import PROCESSORS, cores
from icl_theory.errors import IclTheoryError
from icl_theory.progress import ProgressReport, duration

# CPU seconds on one core of 2 GHz or so with an empty compilation cache: which is started first, and how much is left.
SECONDS = {
    "closed_forms": 12.0,
    "fixed_points": 3.0,
    "dynamics": 17.0,
    "random_initialisation": 11.0,
    "sharpness": 90.0,
    "upsampling": 35.0,
    "sam_by_data": 32.0,
    "generalisation": 110.0,
    "low_rank": 20.0,
    "context_lengths": 22.0,
    "in_weight_learning": 24.0,
    "softmax": 60.0,
    "weights": 15.0,
    "many_features": 55.0,
    "principal_components": 16.0,
    "phase_diagram": 22.0,
}
FIGURE_SECONDS = 1.2
THREADS = (PROCESSORS, "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")  # more than cores would wait for each other, spinning
BETWEEN_REPORTS = 0.05  # seconds between two reports of one worker


class Task(NamedTuple):
    """One piece of work: the data of an experiment, or a figure that reads them."""

    kind: str
    name: str

    @property
    def seconds(self) -> float:
        """Roughly what it takes, against the others."""
        return SECONDS[self.name] if self.kind == "data" else FIGURE_SECONDS


class WorkerError(IclTheoryError):
    """A piece of work could not be done."""


def reproduce(names: Sequence[str], figures: Sequence[str], results: Path, *, say: Callable[[str], None]) -> None:
    """Make the data of experiments unless they are complete, then draw figures.

    What finishes first is of no account: every piece of work writes a folder or a file of its own.

    Raises:
        IclTheoryError: what a piece of work cannot do; the others are stopped, what is complete is kept.
    """
    data = sorted((Task("data", name) for name in names), key=lambda task: -task.seconds)
    drawn = [Task("figure", name) for name in figures]
    total = sum(task.seconds for task in (*data, *drawn))
    with ProgressReport() as report, Workers(results, max(len(data), 1)) as workers:
        progress = _Progress(report, len(data), total)
        for phase in (data, drawn):
            workers.do(phase, progress, say)


class _Progress:
    """One bar for everything, with how much is done and roughly what is left."""

    def __init__(self, report: ProgressReport, experiments: int, total: float):
        self.report, self.experiments, self.total = report, experiments, total
        self.shares: dict[Task, float] = {}
        self.began = time.monotonic()

    def __call__(self, task: Task, share: float) -> None:
        self.shares[task] = share
        done = sum(task.seconds * share for task, share in self.shares.items())
        finished = sum(share >= 1 for task, share in self.shares.items() if task.kind == "data")
        left = (time.monotonic() - self.began) * (self.total / done - 1) if done else 0.0
        detail = f"{finished} of {self.experiments} experiments"
        if left >= 1:
            detail += f", about {duration(left)} left"
        self.report("reproduce", round(1000 * done / self.total), 1000, detail)


class Workers:
    """Processes that each take one piece of work after another; on one core, or with an accelerator, this process alone.

    Processes of one thread beat threads here: most of the time goes to Python and to compiling, which one thread does.
    """

    def __init__(self, results: Path, most: int):
        self.results = results
        count = min(cores(), most) if jax.default_backend() == "cpu" else 1
        self._workers: dict[Connection, multiprocessing.process.BaseProcess] = {}
        if count == 1:
            return
        with _threads(max(1, cores() // count)):
            context = multiprocessing.get_context("spawn")  # a fork of a process with jax's threads may hang
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, results), daemon=True)
                process.start()
                theirs.close()
                self._workers[ours] = process

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: Any) -> None:
        for connection, process in self._workers.items():
            connection.close()  # a worker without work to do ends by itself
            if error[0] is not None:
                process.terminate()  # it clears away what is half written
        for process in self._workers.values():
            process.join()

    def do(self, tasks: Sequence[Task], progress: Callable[[Task, float], None], say: Callable[[str], None]) -> None:
        """All tasks, started in this order; returns when the last is done."""
        if not self._workers:
            for task in tasks:
                say(perform(task, self.results, lambda share, task=task: progress(task, share)))  # type: ignore[misc]
                progress(task, 1.0)
            return
        waiting: list[Task] = list(reversed(tasks))
        busy: dict[Connection, Task] = {}

        def hand_out(connection: Connection) -> None:
            if waiting:
                busy[connection] = waiting.pop()
                connection.send(busy[connection])

        connection = None
        try:
            for connection in self._workers:
                hand_out(connection)
            while busy:
                for ready in wait(list(busy)):
                    connection = cast(Connection, ready)
                    kind, content = connection.recv()
                    if kind == "failed":
                        raise WorkerError(content)
                    progress(busy[connection], 1.0 if kind == "done" else content)
                    if kind == "done":
                        say(content)
                        del busy[connection]
                        hand_out(connection)
        except (EOFError, ConnectionError):
            lost = busy[cast(Connection, connection)].name
            raise WorkerError(f"{lost}: its process ended before the work was done (out of memory?)") from None


def perform(task: Task, results: Path, progress: Callable[[float], None]) -> str:
    """Do one piece of work and say so in a line."""
    if task.kind == "figure":
        return f"drew {draw(FIGURES[task.name], results)}"
    experiment, began = EXPERIMENTS[task.name], time.monotonic()
    precisions = experiment.claim.precisions() if experiment.claim is not None else ("float64",)
    starts: list[str] = []

    def share(title: str, done: int, total: int) -> None:
        if title not in starts:
            starts.append(title)
        progress((len(starts) - 1 + done / max(total, 1)) / len(precisions))

    made = run(experiment, results, share)
    folder = results / task.name
    return f"{folder}: made in {time.monotonic() - began:.0f} s" if made else f"{folder}: complete, reused"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let processes that are started inside use so many threads, in XLA and in numpy's matrix products."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _serve(connection: Connection, results: Path) -> None:
    """Work until there is no more of it, or nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and stops its workers
    signal.signal(signal.SIGTERM, _stop)
    said = 0.0

    def progress(share: float) -> None:
        nonlocal said
        if time.monotonic() - said > BETWEEN_REPORTS:
            said = time.monotonic()
            connection.send(("progress", share))

    try:
        while True:
            task = connection.recv()
            try:
                connection.send(("done", perform(task, results, progress)))
            except IclTheoryError as error:
                connection.send(("failed", str(error)))
            except Exception:
                connection.send(("failed", f"{task.name} failed:\n{traceback.format_exc()}"))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _stop(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
