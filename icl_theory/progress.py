"""Progress on standard error: bars in a terminal, one line per piece of work elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressReport:
    """Use as a context manager; call `report(title, done, total)` as often as you like.

    `quiet=True` shows nothing.
    """

    def __init__(self, *, quiet: bool = False):
        self.console = Console(stderr=True, quiet=quiet)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._tasks: dict[str, object] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> ProgressReport:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def __call__(self, title: str, done: int, total: int) -> None:
        self._started.setdefault(title, time.monotonic())
        if self.console.is_terminal:
            if title not in self._tasks:
                self._tasks[title] = self._bars.add_task(title, total=total)
            self._bars.update(self._tasks[title], completed=done, total=total)  # type: ignore[arg-type]
        elif done >= total and self._started[title] < float("inf"):
            self.console.print(f"{title}: done", highlight=False, soft_wrap=True)
            self._started[title] = float("inf")
