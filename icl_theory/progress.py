"""Progress on standard error: bars in a terminal, occasional lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0


class ProgressReport:
    """A context manager that reports progress; call `report(title, done, total)` as often as you like.

    In a terminal it moves a bar. Elsewhere, as in the log of a batch job, it prints a line at most every half minute
    and one at the end. `quiet=True` shows nothing.
    """

    def __init__(self, *, quiet: bool = False):
        self.console = Console(stderr=True, quiet=quiet)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),  # the detail fits beside it in 80 columns
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
            redirect_stdout=sys.stdout.isatty(),  # what is printed into a file is not for the bar's terminal
        )
        self._tasks: dict[str, object] = {}
        self._said: dict[str, float] = {}

    def __enter__(self) -> ProgressReport:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def __call__(self, title: str, done: int, total: int, detail: str = "") -> None:
        if self.console.is_terminal:
            if title not in self._tasks:
                self._tasks[title] = self._bars.add_task(title, total=total, detail="")
            self._bars.update(self._tasks[title], completed=done, total=total, detail=detail)  # type: ignore[arg-type]
            return
        now = time.monotonic()
        said = self._said.setdefault(title, now)
        if done < total and now - said >= SECONDS_BETWEEN_LINES:
            self._say(f"{title}: {100 * done // max(total, 1)} % {detail}".rstrip())
            self._said[title] = now
        elif done >= total and said < math.inf:
            self._say(f"{title}: done {detail}".rstrip())
            self._said[title] = math.inf

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Return a duration for people to read: `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
