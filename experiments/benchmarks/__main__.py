"""`python -m experiments.benchmarks`: costs of the package, beside their bounds and those of the last release.

Shares are relative to the machine's own limits, a large matrix product and a large sum, timed in the same run.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import jax
from rich.console import Console

import icl_theory as icl
from experiments.benchmarks.batched_runs import run_rows
from experiments.benchmarks.fine_tuning import fine_tuning_rows
from experiments.benchmarks.folding import folding_rows
from experiments.benchmarks.results import RELEASE, Place, Results, about, open_results, read
from experiments.benchmarks.row import Row
from experiments.benchmarks.sweeps import sweep_rows
from experiments.benchmarks.table import described, line, summary
from experiments.benchmarks.training_steps import step_rows
from experiments.benchmarks.upsampling import upsampling_rows
from icl_theory.cli.one_line import run
from icl_theory.errors import InputError

DTYPES = ("float32", "float64")


class Part(NamedTuple):
    """A part of the benchmark: its title, its function `measure(dtype, quick)`, and the precisions to measure it in."""

    title: str
    measure: Callable[[str, bool], Iterator[Row]]
    precisions: tuple[str, ...] = DTYPES


PARTS = {
    "steps": Part("a step on moments, through prompts and in an eager torch loop", step_rows),
    "runs": Part("many runs as one program", run_rows),
    "folding": Part("prompts folded into moments", folding_rows),
    "sweeps": Part("whole processes, first compilation included", sweep_rows),
    "upsampling": Part("whole processes of `icl-theory upsample`, examples × checkpoints", upsampling_rows, DTYPES[:1]),
    "fine-tuning": Part("steps of a small decoder", fine_tuning_rows, DTYPES[:1]),
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(PARTS)), metavar="[PART]...")
@click.option("--dtype", type=click.Choice(DTYPES), help="one precision only  [default: both, with --quick float32]")
@click.option(
    "--out", default="results/bench.json", show_default=True, type=click.Path(path_type=Path), help="saved figures"
)
@click.option("--fresh", is_flag=True, help="set figures that are there aside and start over")
@click.option("--quick", is_flag=True, help="few prompts, runs and steps, to see that it works")
@click.option(
    "--release", is_flag=True, help="keep the finished figures in the repository, as those of the last release"
)
def main(names: tuple[str, ...], dtype: str | None, out: Path, fresh: bool, quick: bool, release: bool) -> None:
    """Measure parts of the benchmark (default: all), and print and save each row at once.

    PART is steps, runs, folding, sweeps, upsampling or fine-tuning; the last two are measured in float32 alone. Figures
    of the same version and machine that are in --out already are shown and not measured again; a part that was stopped
    is measured from its start.

    \b
    Example: python -m experiments.benchmarks steps runs --dtype float32
    """
    if release and (names or dtype or quick):
        raise click.UsageError("--release takes every part in both precisions: leave parts, --dtype and --quick out")
    places = chosen(names, dtype or ("float32" if quick else None))
    results, said = open_results(out, about(quick), fresh=fresh)
    released = None if quick else read(RELEASE, "the last release")
    click.echo(described(results.about))
    if released is not None:
        click.echo(f"last release: {described(released.about)}")
        kept = {name: value for name, value in results.about["machine"].items() if name != "platform"}
        if released.about["machine"] != kept:
            click.echo("(figures of another machine: compare shares and ratios, not times)")
    if said:
        click.echo(said)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", icl.PrecisionWarning)  # speed is measured here, not precision
        for place in places:
            show(place, results, released, out)
    for text in summary(results, places, released):
        click.echo(text)
    if "steps" in {place.part for place in places} and importlib.util.find_spec("torch") is None:
        click.echo("torch is not installed, so the eager loop is left out of steps (pip install torch, then again)")
    click.echo(f"wrote {out}")
    if release:
        results.release(RELEASE)
        click.echo(f"wrote {RELEASE}")


def chosen(names: tuple[str, ...], dtype: str | None) -> list[Place]:
    """Return the chosen parts, each in its precisions.

    Raises:
        InputError: no chosen part is measured in this precision.
    """
    pairs = ((name, precision) for name in PARTS if name in (names or PARTS) for precision in PARTS[name].precisions)
    places = [Place(*pair) for pair in pairs if dtype in (None, pair[1])]
    if not places:
        raise InputError("--dtype", dtype, f"{' and '.join(names)}: measured in float32 alone; leave --dtype out")
    return places


def show(place: Place, results: Results, released: Results | None, out: Path) -> None:
    """Print the rows of a place: those measured before, or each as it is measured and saved."""
    before = place in results.complete
    title = PARTS[place.part].title
    click.echo(f"\n{place.part}, {place.precision}: {title}{' (measured before)' if before else ''}")
    setting = ""
    for row in list(results.rows[place]) if before else measured(place, results, out):
        known = None if released is None else released.find(place, row)
        click.echo(line(row, known, with_setting=row.setting != setting))
        setting = row.setting


def measured(place: Place, results: Results, out: Path) -> Iterator[Row]:
    """Yield the rows of a place as they are measured, and save each; a terminal shows what is being measured."""
    console, part = Console(stderr=True), PARTS[place.part]
    results.rows[place] = []
    rows = part.measure(place.precision, results.about["quick"])
    with jax.enable_x64(place.precision == "float64"):
        while True:
            with console.status(f"measuring {place.part} in {place.precision}: {len(results.rows[place])} rows so far"):
                row = next(rows, None)
            if row is None:
                break
            row = row._replace(value=float(row.value))
            results.rows[place].append(row)
            results.save(out)
            yield row
    results.complete.add(place)
    results.save(out)


if __name__ == "__main__":
    run(main, "bench", cache=False)
