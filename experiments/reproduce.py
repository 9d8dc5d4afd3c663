"""Reproduction of claims and figures in parallel: a process per core, longest tasks first, one progress bar for all."""

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
THREADS = (PROCESSORS, "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")  # more threads than cores would spin, waiting
BETWEEN_REPORTS = 0.05  # least seconds between two reports of one worker


class Task(NamedTuple):
    """One task: the data of a claim, or a figure that reads them."""

    kind: str
    name: str

    @property
    def seconds(self) -> float:
        """Rough estimate of its seconds, to order tasks and weigh their progress."""
        return load_claim(self.name).seconds if self.kind == "data" else FIGURE_SECONDS


class WorkerError(IclTheoryError):
    """Error raised when a task could not be done."""


def reproduce(names: Sequence[str], figures: Sequence[str], results: Path, *, say: Callable[[str], None]) -> None:
    """Make the data of claims unless they are complete, then draw figures.

    The order in which tasks finish does not matter: each writes a folder or files of its own.

    Raises:
        IclTheoryError: a task failed. The others are stopped; data that are complete are kept.
    """
    data = sorted((Task("data", name) for name in dict.fromkeys(names)), key=lambda task: -task.seconds)
    drawn = [Task("figure", name) for name in figures]
    total = sum(task.seconds for task in (*data, *drawn))
    with ProgressReport() as report, Workers(results, max(len(data), 1)) as workers:
        progress = _Progress(report, len(data), total)
        for phase in (data, drawn):
            workers.do(phase, progress, say)


class _Progress:
    """One progress bar for all tasks, with how much is done and roughly how much time is left."""

    def __init__(self, report: ProgressReport, claims: int, total: float):
        self.report, self.claims, self.total = report, claims, total
        self.shares: dict[Task, float] = {}
        self.reused = 0.0  # seconds saved by reusing data
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
    """Worker processes that each take one task after another.

    With one core, an accelerator or a single claim, this process does all tasks itself. Processes are faster than
    threads here, because most of the time goes to Python and to compilation, each of which runs on one thread.
    """

    def __init__(self, results: Path, most: int):
        self.results = results
        count = min(cores(), most) if jax.default_backend() == "cpu" else 1
        self._workers: dict[Connection, multiprocessing.process.BaseProcess] = {}
        if count == 1:
            return
        with _threads(max(1, cores() // count)), _uninterrupted():
            context = multiprocessing.get_context("spawn")  # a fork of a process with JAX's threads may hang
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
            connection.close()  # an idle worker then ends by itself
            if error[0] is not None:
                process.terminate()  # it removes what is half written
        for process in self._workers.values():
            process.join()

    def do(self, tasks: Sequence[Task], progress: Callable[..., None], say: Callable[[str], None]) -> None:
        """Do all tasks, started in this order, and return when the last is done.

        Args:
            tasks: tasks to do.
            progress: function called with (task, share done), and when a task ends with (task, 1.0, whether its data
                were reused).
            say: function called with a line about each task that is done.

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
    """Do one task; return a line about it, and False if its data were already complete."""
    if task.kind == "figure":
        return f"drew {', '.join(map(str, draw(FIGURES[task.name], results)))}", True
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
    """Limit processes started in this context to `count` threads each, in XLA and in NumPy's matrix products."""
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
    """Make processes started in this context ignore Ctrl-C, even while they import; their parent stops them on it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, results: Path) -> None:
    """Do the tasks that come through the connection until it is closed."""
    signal.signal(signal.SIGTERM, _stop)
    compilation_cache.enable()  # the cache of programs for this number of threads
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
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: clean-up is under way
    raise KeyboardInterrupt
