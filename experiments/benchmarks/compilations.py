"""`python -m experiments.benchmarks.compilations`: which programs an experiment compiles, and what its seconds go to.

JAX reports every stage of every program it makes: tracing (Python to jaxpr), lowering (to StableHLO) and compiling
(XLA). These stages are wall seconds of one thread. The rest of the CPU seconds goes to running programs, to Python
itself, and to further threads of the compiler. The persistent cache is off unless asked for, so that the figures are
those of a first run. With it, a program read from the cache counts as compiled, in less time.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import jax
from rich.console import Console
from rich.table import Table

from icl_theory import compilation_cache
from icl_theory.cli.one_line import run
from icl_theory.progress import ProgressReport
from icl_theory.verification import NAMES, load_claim
from icl_theory.verification.saved import make

STAGES = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}


@dataclasses.dataclass
class Program:
    """Cost of one function: how often it was compiled, once for each shape, and the seconds of each stage."""

    compilations: int = 0
    tracing: float = 0.0
    lowering: float = 0.0
    compiling: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of all stages together."""
        return self.tracing + self.lowering + self.compiling


class CompilationLog:
    """Log that sums up what JAX reports about compilation while it is open; only one may be open at a time.

    Attributes:
        programs: cost of each program, by the name of its function.
        wall: wall seconds between opening and closing.
        cpu: CPU seconds between opening and closing, of all threads together.
    """

    def __init__(self) -> None:
        self.programs: dict[str, Program] = defaultdict(Program)
        self.wall = self.cpu = 0.0

    def __enter__(self) -> CompilationLog:
        jax.monitoring.register_event_duration_secs_listener(self._note)
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *error: Any) -> None:
        self.wall, self.cpu = self.wall + time.perf_counter(), self.cpu + time.process_time()
        jax.monitoring.unregister_event_duration_listener(self._note)

    def _note(self, event: str, duration_secs: float, **about: str | int) -> None:
        if event not in STAGES:
            return
        program = self.programs[str(about.get("fun_name", "?")).removeprefix("jit(").removesuffix(")")]
        setattr(program, STAGES[event], getattr(program, STAGES[event]) + duration_secs)
        program.compilations += STAGES[event] == "compiling"

    @property
    def total(self) -> Program:
        """Cost of all programs together."""
        parts = [dataclasses.astuple(program) for program in self.programs.values()]
        return Program(*map(sum, zip(*parts, strict=True))) if parts else Program()

    @property
    def running(self) -> float:
        """CPU seconds not spent on making programs, if those are made on one thread."""
        return max(self.cpu - self.total.seconds, 0.0)


def count(name: str, folder: Path) -> CompilationLog:
    """Make the data of one experiment in a folder that does not hold them yet, and log its compilations."""
    jax.clear_caches()
    with CompilationLog() as log, ProgressReport(quiet=True) as report:
        make(load_claim(name), folder, report)
    return log


def overview(logs: dict[str, CompilationLog]) -> Table:
    """Return a table with a row for each experiment."""
    table = Table(title="CPU seconds of each experiment")
    for column in (
        "experiment",
        "programs",
        "compilations",
        "tracing",
        "lowering",
        "compiling",
        "running",
        "CPU",
        "wall",
    ):
        table.add_column(column, justify="left" if column == "experiment" else "right")
    for name, log in logs.items():
        total = log.total
        seconds = (total.tracing, total.lowering, total.compiling, log.running, log.cpu, log.wall)
        compiled = sum(program.compilations > 0 for program in log.programs.values())
        table.add_row(name, str(compiled), str(total.compilations), *(f"{value:.1f}" for value in seconds))
    return table


def dearest(log: CompilationLog, top: int, title: str) -> Table:
    """Return a table of the programs that took longest to make."""
    table = Table(title=f"{title}: programs that took longest to make")
    for column in ("program", "compilations", "tracing", "lowering", "compiling"):
        table.add_column(column, justify="left" if column == "program" else "right")
    for name, program in sorted(log.programs.items(), key=lambda item: -item[1].seconds)[:top]:
        stages = (program.tracing, program.lowering, program.compiling)
        table.add_row(name, str(program.compilations), *(f"{value:.2f}" for value in stages))
    return table


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(NAMES)), metavar="[NAME]...")
@click.option("--top", default=8, show_default=True, type=click.IntRange(0), help="programs to list of each experiment")
@click.option("--cached", is_flag=True, help="let the persistent cache help, as a second run does")
def main(names: tuple[str, ...], top: int, cached: bool) -> None:
    """Run experiments (default: all) in a temporary folder; say what they compile and what their seconds go to.

    \b
    Example: python -m experiments.benchmarks.compilations closed_forms --top 20
    """
    console = Console(width=None if sys.stdout.isatty() else 120)
    logs = {}
    compilation_cache.enable() if cached else compilation_cache.disable()
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(names or NAMES):
            logs[name] = count(name, Path(folder))
            if top:
                console.print(dearest(logs[name], top, name))
    console.print(overview(logs))


if __name__ == "__main__":
    run(main, "compilations", cache=False)
