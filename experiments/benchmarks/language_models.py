"""`python -m experiments.benchmarks.language_models`: a step of fine-tuning in full size, in time and memory.

On a GPU it measures the four models of the paper from random weights, in bfloat16 with weights and optimizer state in
float32. Elsewhere it measures the small decoder that `make bench` measures too, in float32.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

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
    step_name,
)
from icl_theory.cli.one_line import run
from icl_theory.environment import machine
from icl_theory.llm.job.placement import memory_said
from icl_theory.llm.model.paper_models import PUBLISHED, model_flops
from icl_theory.progress import ProgressReport

UTILISATION = {"Llama-3.2-1B": 0.4}  # least share of the dense bfloat16 peak under AdamW
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16 FLOP/s, by the maker's data sheets


def peak_flops() -> float | None:
    """Return the peak FLOP/s of the accelerator by its data sheet; None where it is not known."""
    kind = jax.devices()[0].device_kind
    return next((rate for name, rate in PEAK.items() if name in kind), None)


def rows_of(found: list[Measured], rows: int, length: int) -> list[dict[str, Any]]:
    """Return the figures of each case, with its ratios to AdamW on the same model."""
    plain = {one.case.model: one for one in found if one.case[1:3] == ("adamw", "none")}
    peak, table = peak_flops(), []
    for one in found:
        base = plain[one.case.model]
        rate = model_flops(SHAPES[one.case.model], rows, length) / one.seconds
        table.append(
            one.case._asdict()
            | {
                "seconds": one.seconds,
                "quartiles": one.quartiles,
                "tokens_per_second": rows * length / one.seconds,
                "model_tflops": rate / 1e12,
                "utilisation": None if peak is None else rate / peak,
                "memory_gib": one.memory / 2**30,
                "times_of_adamw": one.seconds / base.seconds,
                "memory_of_adamw": one.memory / base.memory,
                "compilation_seconds": one.compilation,
            }
        )
    return table


def verdict(row: dict[str, Any]) -> str:
    """Return the bound of a row and whether it is met; empty without a bound."""
    if (row["optimizer"], row["sharpness"]) == ("adamw", "fsam"):
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
            f"{1e3 * row['seconds']:.1f}",
            f"{low:.1f}–{high:.1f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['model_tflops']:.3g}",
            share,
            f"{row['memory_gib']:.3g}",
            f"{row['times_of_adamw']:.2f}",
            f"{row['memory_of_adamw']:.2f}",
            verdict(row),
        )
    console.print(shown)


@click.command()
@click.option("--model", "models", multiple=True, type=click.Choice(list(SHAPES)), help="some of them only")
@click.option("--rows", default=None, type=click.IntRange(1), help="sequences of a step  [default: 8]")
@click.option(
    "--length", default=None, type=click.IntRange(2), help="tokens of each  [default: 1024 on a GPU, else 64]"
)
@click.option("--repeats", default=10, show_default=True, type=click.IntRange(2), help="steps that are timed")
@click.option(
    "--remat", default=None, multiple=True, type=click.Choice(list(SHAPES)), help="with remat  [default: Phi-2]"
)
@click.option("--out", default="results/bench-language-models.json", show_default=True, type=click.Path(path_type=Path))
def main(models: tuple[str, ...], rows: int | None, length: int | None, repeats: int, remat: Any, out: Path) -> None:
    """Measure the steps of each model, print the table and save it."""
    gpu = jax.default_backend() == "gpu"
    rows, length = rows or 8, length or (1024 if gpu else 64)
    dtype = jnp.bfloat16 if gpu else jnp.float32
    console = Console(width=None if sys.stdout.isatty() else 150)
    models = models or (tuple(PUBLISHED) if gpu else (SMALL,))
    title = f"{jax.devices()[0].device_kind}, {rows} × {length} tokens, {jnp.dtype(dtype).name}"
    found: list[Measured] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    with ProgressReport() as report, ThreadPoolExecutor(8 if gpu else 1) as compilers:
        for model in models:
            cases, made = [Case(model, *step, model in (remat or ("Phi-2",))) for step in STEPS], []
            for one in compilers.map(partial(compiled, rows=rows, length=length, dtype=dtype), cases):
                made.append(one)  # all are compiled before the first is timed
                report(f"compiling {model}", len(made), len(STEPS))
            for case in cases:
                step, shapes, seconds = made.pop(0)
                with memory_said("give a smaller --rows or --length, or --remat with its name"):
                    found.append(measure(case, step, shapes, rows, length, repeats, seconds))
                del step  # frees what the program holds on the device
                table = rows_of(found, rows, length)
                part = out.with_name(out.name + ".part")
                part.write_text(json.dumps({"machine": machine(), "title": title, "rows": table}, indent=1) + "\n")
                part.replace(out)
                report("measuring", len(found), len(models) * len(STEPS), f"{model}: {1e3 * found[-1].seconds:.1f} ms")
    show(table, title, console)
    console.print(f"wrote {out}", highlight=False)


if __name__ == "__main__":
    run(main, "bench", cache=False)
