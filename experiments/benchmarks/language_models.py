"""`python -m experiments.benchmarks.language_models`: a step of fine-tuning in full size, in time and memory.

On a GPU it measures five steps of each of the four models of the paper from random weights, in bfloat16 with weights
and optimizer state in float32: seconds of compilation, time of a step, share of the card's peak, memory. Each cell is
saved when it is measured. After `--minutes` no further cell is begun; the same command goes on with those that are
left. `--small` measures small models of the same families, to see anywhere that it works. Without a GPU, the decoder
that `make bench` measures is measured, in float32.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.cells import Cells
from experiments.benchmarks.fine_tuning import (
    MEMORY,
    SHAPES,
    SMALL,
    STEPS,
    TIMES,
    Case,
    Measured,
    compiled,
    measure,
    small_name,
    step_name,
)
from icl_theory.cli.one_line import run
from icl_theory.environment import code_version, machine
from icl_theory.errors import InputError
from icl_theory.llm.job.placement import memory_said
from icl_theory.llm.model.paper_models import PUBLISHED, model_flops
from icl_theory.progress import ProgressReport

UTILISATION = {"Llama-3.2-1B": 0.4}  # least share of the dense bfloat16 peak under AdamW
PEAK = {  # dense bfloat16 TFLOP/s by the makers' data sheets; the first name that the device's holds
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H200": 989,
    "A100": 312,
}
MARGIN = 1.2  # a cell is begun if this many times the longest one so far still fits


def peak_tflops() -> float | None:
    """Return the peak of the accelerator in TFLOP/s by its data sheet; None where it is not known."""
    kind = jax.devices()[0].device_kind
    return next((rate for name, rate in PEAK.items() if name in kind), None)


def rows_of(found: list[Measured], rows: int, length: int, peak: float | None) -> list[dict[str, Any]]:
    """Return the figures of each case, with its ratios to AdamW on the same model once that is measured."""
    plain, table = {one.case.model: one for one in found if one.case[1:3] == ("adamw", "none")}, []
    for one in found:
        base = plain.get(one.case.model)
        rate = model_flops(SHAPES[one.case.model], rows, length) / one.seconds / 1e12
        table.append(
            one.case._asdict()
            | {
                "seconds": one.seconds,
                "quartiles": one.quartiles,
                "tokens_per_second": rows * length / one.seconds,
                "model_tflops": rate,
                "utilisation": None if peak is None else rate / peak,
                "memory_gib": one.memory / 2**30,
                "times_of_adamw": None if base is None else one.seconds / base.seconds,
                "memory_of_adamw": None if base is None else one.memory / base.memory,
                "compilation_seconds": one.compilation,
            }
        )
    return table


def verdict(row: dict[str, Any]) -> str:
    """Return the bound of a row and whether it is met; empty without a bound."""
    if (row["optimizer"], row["sharpness"]) == ("adamw", "fsam") and row["times_of_adamw"] is not None:
        met = row["times_of_adamw"] <= TIMES and row["memory_of_adamw"] <= MEMORY
        return f"≤ {TIMES:g}, ≤ {MEMORY:g}: {'met' if met else 'missed'}"
    least = UTILISATION.get(row["model"])
    if (row["optimizer"], row["sharpness"]) == ("adamw", "none") and least and row["utilisation"] is not None:
        return f"≥ {100 * least:.0f} %: {'met' if row['utilisation'] >= least else 'missed'}"
    return ""


def show(table: list[dict[str, Any]], title: str, console: Console) -> None:
    """Print the figures."""
    shown = Table(title=title)
    columns = (
        "model",
        "step",
        "compiled, s",
        "ms",
        "quartiles",
        "tokens/s",
        "TFLOP/s",
        "of peak",
        "GiB",
        "time/AdamW",
        "memory/AdamW",
        "aim",
    )
    for column in columns:
        shown.add_column(column, justify="left" if column in ("model", "step", "aim") else "right")
    for row in table:
        share = "" if row["utilisation"] is None else f"{100 * row['utilisation']:.0f} %"
        low, high = (1e3 * value for value in row["quartiles"])
        shown.add_row(
            row["model"] + (" remat" if row["remat"] else ""),
            step_name(row["optimizer"], row["sharpness"]),
            f"{row['compilation_seconds']:.1f}",
            f"{1e3 * row['seconds']:.1f}",
            f"{low:.1f}–{high:.1f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['model_tflops']:.3g}",
            share,
            f"{row['memory_gib']:.3g}",
            *("" if row[name] is None else f"{row[name]:.2f}" for name in ("times_of_adamw", "memory_of_adamw")),
            verdict(row),
        )
    console.print(shown)


@click.command()
@click.option("--model", "models", multiple=True, type=click.Choice(list(SHAPES)), help="some of them only")
@click.option("--small", is_flag=True, help="small models of the four families in their place, on any device")
@click.option("--rows", default=8, show_default=True, type=click.IntRange(1), help="sequences of a step")
@click.option(
    "--length", default=None, type=click.IntRange(2), help="tokens of each  [default: 1024 in full size, else 64]"
)
@click.option("--repeats", default=10, show_default=True, type=click.IntRange(2), help="steps that are timed")
@click.option(
    "--remat", default=None, multiple=True, type=click.Choice(list(SHAPES)), help="with remat  [default: Phi-2]"
)
@click.option(
    "--minutes", default=8.0, show_default=True, type=click.FloatRange(0), help="no cell is begun after these"
)
@click.option(
    "--peak", default=None, type=click.FloatRange(0, min_open=True), help="peak TFLOP/s  [default: by device]"
)
@click.option("--out", default="results/bench-language-models.json", show_default=True, type=click.Path(path_type=Path))
def main(
    models: tuple[str, ...],
    small: bool,
    rows: int,
    length: int | None,
    repeats: int,
    remat: tuple[str, ...],
    minutes: float,
    peak: float | None,
    out: Path,
) -> None:
    """Measure the steps of each model, save each at once, and print the table."""
    began, gpu = time.monotonic(), jax.default_backend() == "gpu"
    length = length or (1024 if gpu and not small else 64)
    dtype = jnp.dtype(jnp.bfloat16 if gpu or small else jnp.float32)
    models = models or (tuple(PUBLISHED) if gpu or small else (SMALL,))
    remat = remat or ("Phi-2",)
    if small:
        models, remat = (
            tuple(small_name(name) if name in PUBLISHED else name for name in names) for names in (models, remat)
        )
    cases = [Case(model, *step, model in remat) for model in models for step in STEPS]
    sizes = {"rows": rows, "length": length, "repeats": repeats, "dtype": dtype.name}
    cells = Cells(out, {"code": code_version(Path(__file__).parent), "machine": machine(), **sizes})
    if cells.said:
        click.echo(cells.said)
    peak, longest, left = peak or peak_tflops(), 0.0, [case for case in cases if case not in cells.found]
    with ProgressReport() as report:
        while left and (not longest or time.monotonic() - began + MARGIN * longest < 60 * minutes):
            case, start = left.pop(0), time.monotonic()
            report(f"measuring {case.model}, {case.step}", len(cases) - len(left) - 1, len(cases))
            one = a_cell(case, rows, length, repeats, dtype)
            others = [*cells.measured, *([one] if isinstance(one, Measured) else [])]
            cells.add(case, one, rows_of(others, rows, length, peak))
            longest = max(longest, time.monotonic() - start)
    title = f"{jax.devices()[0].device_kind}, {rows} × {length} tokens, {dtype.name}"
    console = Console(width=None if sys.stdout.isatty() else 150)
    show(rows_of([one for one in cells.measured if one.case in cases], rows, length, peak), title, console)
    for case, failed in cells.found.items():
        if isinstance(failed, str):
            console.print(f"{case.model}, {case.step}: {failed}", highlight=False)
    if left:
        console.print(f"{len(left)} of {len(cases)} are left; the same command goes on with them", highlight=False)
    console.print(f"wrote {out}", highlight=False)


def a_cell(case: Case, rows: int, length: int, repeats: int, dtype: Any) -> Measured | str:
    """Measure one case; if the device's memory does not suffice, return a line that says so."""
    try:
        with memory_said("give a smaller --rows or --length, or --remat with its name"):
            step, shapes, seconds = compiled(case, rows, length, dtype)
            return measure(case, step, shapes, rows, length, repeats, seconds)
    except InputError as error:
        return str(error)


if __name__ == "__main__":
    run(main, "bench", cache=False)
