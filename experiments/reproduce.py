"""Claims and figures side by side: a process for each core, the longest work first, one progress for all of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax

from figures import FIGURES
from figures.figure import draw
from icl_theory import compilation_cache
from icl_theory.environment import PROCESSORS, cores
from icl_theory.errors import IclTheoryError
from icl_theory.progress import ProgressReport, duration
from icl_theory.verification.claims import load_claim
from icl_theory.verification.saved import make

FIGURE_SECONDS = 1.2
THREADS = (PROCESSORS, "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")  # more than cores would wait for each other, spinning
BETWEEN_REPORTS = 0.05  # seconds between two reports of one worker


class Task(NamedTuple):
    """One piece of work: the data of a claim, or a figure that reads them."""

    kind: str
    name: str

    @property
    def seconds(self) -> float:
        """Roughly what it takes, against the others."""
        return load_claim(self.name).seconds if self.kind == "data" else FIGURE_SECONDS


class WorkerError(IclTheoryError):
    """A piece of work could not be done."""


def reproduce(names: Sequence[str], figures: Sequence[str], results: Path, *, say: Callable[[str], None]) -> None:
    """Make the data of claims unless they are complete, then draw figures.

    What finishes first is of no account: every piece of work writes a folder or a file of its own.

    Raises:
        IclTheoryError: what a piece of work cannot do; the others are stopped, what is complete is kept.
    """
    data = sorted((Task("data", name) for name in dict.fromkeys(names)), key=lambda task: -task.seconds)
    drawn = [Task("figure", name) for name in figures]
    total = sum(task.seconds for task in (*data, *drawn))
    with ProgressReport() as report, Workers(results, max(len(data), 1)) as workers:
        progress = _Progress(report, len(data), total)
        for phase in (data, drawn):
            workers.do(phase, progress, say)


class _Progress:
    """One bar for everything, with how much is done and roughly what is left."""

    def __init__(self, report: ProgressReport, claims: int, total: float):
        self.report, self.claims, self.total = report, claims, total
        self.shares: dict[Task, float] = {}
        self.reused = 0.0  # seconds that were not needed
        self.began = time.monotonic()

    def __call__(self, task: Task, share: float, reused: bool = False) -> None:
        self.shares[task] = share
        self.reused += task.seconds if reused else 0.0
        done = sum(task.seconds * share for task, share in self.shares.items())
        finished = sum(share >= 1 for task, share in self.shares.items() if task.kind == "data")
        detail, worked = f"{finished} of {self.claims} claims", done - self.reused
        left = (time.monotonic() - self.began) * (self.total - done) / worked if worked > 0 else 0.0
        if left >= 1:
            detail += f", about {duration(left)} left"
        self.report("claims", round(1000 * done / self.total), 1000, detail)


class Workers:
    """Processes that each take one piece of work after another; on one core, or with an accelerator, this process
    alone.

    Processes of one thread beat threads here: most of the time goes to Python and to compiling, which one thread does.
    """

    def __init__(self, results: Path, most: int):
        self.results = results
        count = min(cores(), most) if jax.default_backend() == "cpu" else 1
        self._workers: dict[Connection, multiprocessing.process.BaseProcess] = {}
        if count == 1:
            return
        with _threads(max(1, cores() // count)), _uninterrupted():
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

    def do(self, tasks: Sequence[Task], progress: Callable[..., None], say: Callable[[str], None]) -> None:
        """Do all tasks, started in this order, and return when the last is done.

        Args:
            tasks: pieces of work.
            progress: called with (task, share done), and at its end with (task, 1.0, whether its data were there
                already).
            say: called with a line for each task that is done.

        Raises:
            WorkerError: a task failed, or its process was lost.
        """
        if not self._workers:
            for task in tasks:
                line, made = perform(task, self.results, partial(progress, task))
                say(line)
                progress(task, 1.0, not made)
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
                    if kind == "progress":
                        progress(busy[connection], content)
                        continue
                    line, made = content
                    say(line)
                    progress(busy.pop(connection), 1.0, not made)
                    hand_out(connection)
        except (EOFError, ConnectionError):
            lost = busy[cast(Connection, connection)].name
            remedy = "where memory ran out, NPROC=1 python -m experiments takes one at a time"
            raise WorkerError(f"{lost}: its process ended before the work was done; {remedy}") from None


def perform(task: Task, results: Path, progress: Callable[[float], None]) -> tuple[str, bool]:
    """Do one piece of work; return a line about it, and False where the data were there already."""
    if task.kind == "figure":
        return f"drew {draw(FIGURES[task.name], results)}", True
    claim, began = load_claim(task.name), time.monotonic()
    starts: list[str] = []

    def share(title: str, done: int, total: int) -> None:
        if title not in starts:
            starts.append(title)
        progress((len(starts) - 1 + done / max(total, 1)) / len(claim.precisions()))

    made = make(claim, results, share)
    folder = results / task.name
    return f"{folder}: made in {time.monotonic() - began:.0f} s" if made else f"{folder}: complete, reused", made


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


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Start processes that do not hear Ctrl-C, not even while they import; their parent hears it and stops them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, results: Path) -> None:
    """Work until there is no more of it, or nobody asks any more."""
    signal.signal(signal.SIGTERM, _stop)
    compilation_cache.enable()  # programs for this number of threads
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
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return


def _stop(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what is half written is being cleared away
    raise KeyboardInterrupt
