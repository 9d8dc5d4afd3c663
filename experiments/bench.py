"""`python -m experiments.bench`: what a step, a batch of runs, the folding of data and sweeps cost, against their bounds.

Everything is measured in one run on one machine, so that ratios hold where absolute times drift. Medians of several
runs, compilation apart; but sweeps and upsampling are timed once as whole processes. The bounds are the machine's own: a large matrix product and a large sum, timed here.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

import icl_theory as icl
from experiments.bench_sweeps import sweeping
from experiments.bench_upsampling import upsampling
from experiments.command_line import run
from icl_theory.errors import InputError
from icl_theory.progress import ProgressReport
from icl_theory.store import machine, memory_bytes, process_bytes

NUM_CONTEXT, NUM_HEADS, REPEATS = 31, 8, 5
DTYPES = ("float32", "float64")


class Row(NamedTuple):
    """One measured figure; `reach` is what it should be at least (or at most, where `less`), None where nothing is asked."""

    part: str
    what: str
    value: float
    unit: str
    reach: float | None = None
    less: bool = False

    @property
    def verdict(self) -> str:
        """Whether the reach is met, and which share of it was reached where it is missed."""
        if self.reach is None:
            return ""
        ratio = self.reach / self.value if self.less else self.value / self.reach
        return "met" if ratio >= 1 else f"missed: {100 * ratio:.0f} % of it"


def median_seconds(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median wall time of `call`, after one call that is not counted."""
    return statistics.median(all_seconds(call, repeats)[1:])


def all_seconds(call: Callable[[], Any], repeats: int = REPEATS) -> list[float]:
    """Wall times of `call`, the first one (with compilation) included."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return times


def gemm_peak() -> float:
    """Best measured multiply-add rate of a matrix product in the session's precision, FLOP/s."""
    product = jax.jit(partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))
    rates = []
    for size in (1024, 2048):
        array = jnp.ones((size, size))
        rates.append(2 * size**3 / min(all_seconds(partial(product, array, array), 9)[1:]))
    return max(rates)


def torch_version() -> dict[str, Any]:
    """Version and threads of PyTorch where it is installed."""
    try:
        import torch
    except ImportError:
        return {}
    return {"torch": torch.__version__, "torch threads": torch.get_num_threads()}


def memory_bandwidth() -> float:
    """Best measured rate of summing a large array, bytes/s."""
    array = jnp.ones(2**26)
    total = jax.jit(jnp.sum)
    return array.nbytes / min(all_seconds(lambda: total(array), 9)[1:])


def mixture(dim: int) -> icl.TaskMixture:
    """The default spectrum on the coordinate axes."""
    return icl.TaskMixture.single(icl.linear_spectrum(dim), num_context=NUM_CONTEXT)


def model(dim: int, key: Any = None, init_scale: float = 1e-2) -> icl.MergedAttention:
    """Merged attention with all its weights, as the public PyTorch code of ZSLS25 has it."""
    rngs = nnx.Rngs(0) if key is None else nnx.Rngs(params=key)
    return icl.MergedAttention(dim, NUM_HEADS, init_scale=init_scale, blocks="full", rngs=rngs)


def step_seconds(loss: Any, params: Any, num_steps: int, repeats: int = REPEATS) -> tuple[float, float]:
    """(seconds a step, seconds of compilation) of plain gradient descent.

    A step is the difference between 2n and n steps, so that what stands around them does not count.
    """
    jax.clear_caches()

    def go(steps: int) -> Any:
        rate = {"learning_rate": 1e-3}
        return icl.train(loss, params, hyperparameters=rate, num_steps=steps, num_snapshots=2).loss

    first, *others = all_seconds(lambda: go(num_steps), repeats)
    once = statistics.median(others)
    return (median_seconds(lambda: go(2 * num_steps), repeats) - once) / num_steps, first - once


def prompts_against_moments(largest: int, note: Callable[[str], None]) -> list[Row]:
    """(1) One step through all prompts and one on their moments, for growing P."""
    rows = []
    available = 0.5 * memory_bytes()
    for count in [c for c in (10**3, 10**4, 10**5, 10**6) if c <= largest]:
        part = f"(1) a step at P = {count:,}"
        key = jax.random.key(0)
        draw = partial(icl.sample_prompt_chunks, mixture(4), count, key=key)
        built = icl.prompt_moments(draw())
        fast, compiled = step_seconds(*icl.make_loss(model(4), built), num_steps=20_000)
        rows.append(Row(part, "on moments", 1e6 * fast, "µs"))
        rows.append(Row(part, "on moments: compilation", compiled, "s"))
        width = jnp.zeros(()).dtype.itemsize
        need = count * (NUM_CONTEXT + 1) * width * (5 + 6 * NUM_HEADS)
        if need > available:
            note(f"{part}: the prompts path needs about {need / 2**30:.0f} GiB, skipped")
            continue
        prompts = icl.concatenate_prompts(list(draw()))
        slow, compiled = step_seconds(
            *icl.make_loss(model(4), prompts, engine="prompts"), max(2, 10**4 // count), 5 if count < 10**5 else 2
        )
        rows.append(Row(part, "through prompts", 1e6 * slow, "µs"))
        rows.append(Row(part, "through prompts: compilation", compiled, "s"))
        rows.append(Row(part, "through prompts / on moments", slow / fast, "x"))
    steps = [row.value for row in rows if row.what == "on moments"]
    rows.append(
        Row("(1) a step at growing P", "slowest / fastest on moments", max(steps) / min(steps), "x", 1.25, less=True)
    )
    return rows


def against_torch(note: Callable[[str], None]) -> list[Row]:
    """(2) A step against an eager PyTorch loop of the same model, and a whole run with compilation."""
    count, dim, part = 5000, 4, f"(2) P = 5,000, D = 4, N = {NUM_CONTEXT}, {NUM_HEADS} heads"
    prompts = icl.sample_prompts(mixture(dim), count, key=jax.random.key(0))
    jax.clear_caches()
    began = time.perf_counter()
    built = icl.prompt_moments(prompts)
    folded = time.perf_counter() - began
    loss, params = icl.make_loss(model(dim, init_scale=0.3), built)
    rate = {"learning_rate": 0.02}
    learned = icl.train(loss, params, hyperparameters=rate, num_steps=6001, num_snapshots=601).loss
    whole = time.perf_counter() - began
    fast, _ = step_seconds(loss, params, num_steps=50_000)
    rows = [
        Row(part, "on moments", 1e6 * fast, "µs"),
        Row(part, "folding the prompts, compilation included", folded, "s"),
        Row(part, "folding, 6001 steps, 601 looks, compilation", whole, "s", 2.0, less=True),
        Row(part, "loss after them / before", learned[-1] / learned[0], ""),
    ]
    try:
        import torch
    except ImportError:
        note("(2) torch is not installed, so the eager loop is left out (pip install torch, then again)")
        return rows
    tokens, target = torch.tensor(np.asarray(prompts.tokens)), torch.tensor(np.asarray(prompts.y_query))

    def every_token(merged: Any, value: Any) -> Any:
        """The whole attention output, of which the last entry is read, as the public code computes it."""
        scores = torch.einsum("phqe,pne->phqn", torch.einsum("pqf,hef->phqe", tokens, merged), tokens)
        read = torch.einsum("pne,hde->phnd", tokens, value)
        return (scores @ read).sum(dim=1)[:, -1, -1] / NUM_CONTEXT

    def query_only(merged: Any, value: Any) -> Any:
        """Only what the loss needs."""
        turned = torch.einsum("pf,hef->phe", tokens[:, -1], merged)
        scores, read = turned @ tokens.mT, torch.einsum("pne,he->phn", tokens, value[:, -1])
        return (scores * read).sum(dim=(1, 2)) / NUM_CONTEXT

    for name, predict in (("every token", every_token), ("query only", query_only)):
        merged = torch.tensor(np.asarray(params["merged"]))
        value = torch.zeros(NUM_HEADS, dim + 1, dim + 1, dtype=tokens.dtype)
        value[:, -1] = torch.tensor(np.asarray(params["value"]))
        weights = [merged.requires_grad_(), value.requires_grad_()]
        optimizer = torch.optim.SGD(weights, lr=rate["learning_rate"])
        losses: list[float] = []

        def step(predict=predict, weights=weights, optimizer=optimizer, losses=losses) -> None:
            optimizer.zero_grad()
            error = torch.nn.functional.mse_loss(predict(*weights), target)
            losses.append(error.item())
            error.backward()
            optimizer.step()

        compared = 200 if name == "query only" else 10
        slow = median_seconds(step, compared)
        ours = icl.train(loss, params, hyperparameters=rate, num_steps=compared, num_snapshots=compared + 1).loss
        apart = np.max(np.abs(losses / ours - 1))
        exact = 1e-4 if tokens.dtype == torch.float32 else 1e-10
        rows += [
            Row(part, f"eager torch loop, {name}", 1e6 * slow, "µs"),
            Row(part, f"eager torch, {name} / on moments", slow / fast, "x", 5e4 if name == "every token" else None),
            Row(part, f"losses of {compared} steps, apart at most ({name})", apart, "relative", exact, less=True),
            Row(part, f"loss after them / before ({name})", ours[-1] / ours[0], ""),
        ]
    return rows


def many_runs(peak: float, runs: tuple[int, ...], run_steps: int) -> list[Row]:
    """(3) Run-steps per second and the share of the machine's GEMM peak that the products with M alone make."""
    rows = []
    for dim in (4, 8):
        built = icl.prompt_moments(icl.sample_prompts(mixture(dim), 5000, key=jax.random.key(0)))
        loss, _ = icl.make_loss(model(dim), built)
        for count in runs:
            make = lambda key, dim=dim: icl.split_model(model(dim, key))[1]  # noqa: E731
            starts = jax.vmap(make)(jax.random.split(jax.random.key(1), count))
            for optimizer, products, extra in ((icl.gd, 1, {}), (icl.sam, 2, {"rho": 1e-3})):
                num_steps = min(
                    max(run_steps // 2000, run_steps // count), run_steps // 5
                )  # starting a batch is not the point
                num_steps = num_steps if dim == 4 else num_steps // 5

                def go(starts=starts, optimizer=optimizer, extra=extra, num_steps=num_steps, loss=loss, count=count):
                    settings = {"learning_rate": 1e-3, **extra}
                    if count == 1:
                        one = jax.tree.map(lambda leaf: leaf[0], starts)
                        return icl.train(
                            loss,
                            one,
                            optimizer=optimizer,
                            hyperparameters=settings,
                            num_steps=num_steps,
                            num_snapshots=2,
                        ).loss
                    return icl.train_many(
                        loss,
                        starts,
                        optimizer=optimizer,
                        hyperparameters=settings,
                        num_steps=num_steps,
                        num_snapshots=2,
                    ).loss

                first, *others = all_seconds(go, 3)
                rate = count * num_steps / statistics.median(others)
                share = 100 * products * 2 * built.num_features**2 * rate / peak
                part = f"(3) {count:,} run{'s' if count > 1 else ''}, D = {dim}"
                name = optimizer.__name__.upper()
                wanted = count >= 256 and optimizer is icl.gd
                rows.append(Row(part, f"{name}", rate / 1e6, "10⁶ run-steps/s", 3.0 if wanted and dim == 4 else None))
                rows.append(Row(part, f"{name}: of the GEMM peak", share, "%", 40.0 if wanted and dim == 8 else None))
                rows.append(Row(part, f"{name}: compilation", first - statistics.median(others), "s"))
    return rows


def building(peak: float, bandwidth: float, largest: int) -> list[Row]:
    """(4) Prompts folded per second, against reading them once and against the products alone."""
    rows = []
    for dim in (4, 8):
        count = min(largest, 200_000)
        prompts = icl.sample_prompts(mixture(dim), count, key=jax.random.key(0))
        seconds = median_seconds(lambda prompts=prompts: icl.prompt_moments(prompts).gram, 3)  # type: ignore[misc]
        width = prompts.x.dtype.itemsize
        read = width * (NUM_CONTEXT + 1) * (dim + 1) / bandwidth
        products = 2 * icl.num_features(dim, "full") ** 2 / peak
        part = f"(4) folding {count:,} prompts, D = {dim}"
        rows += [
            Row(part, "full features", count / seconds / 1e6, "10⁶ prompts/s"),
            Row(part, "of the bound of reading the prompts once", 100 * read * count / seconds, "%"),
            Row(part, "of the bound of the products", 100 * products * count / seconds, "%"),
        ]
    return rows


def measure(
    dtype: str, largest: int, runs: tuple[int, ...], run_steps: int, report: Callable[[str, int, int], None], note: Any
) -> Any:
    """All parts in one precision: (rows, bounds)."""
    title = f"benchmark in {dtype}"
    with jax.enable_x64(dtype == "float64"):
        bounds = {"gemm_gflops": gemm_peak() / 1e9, "bandwidth_gb_per_s": memory_bandwidth() / 1e9}
        peak, bandwidth = 1e9 * bounds["gemm_gflops"], 1e9 * bounds["bandwidth_gb_per_s"]
        with jax.enable_x64(True):
            double_peak = gemm_peak()
        rows = []
        parts: list[Callable[[], list[Row]]] = [
            lambda: against_torch(note),
            lambda: many_runs(peak, runs, run_steps),
            lambda: building(double_peak, bandwidth, largest),
            lambda: [Row(*figures) for figures in sweeping(dtype, quick=largest < 10**4)],
            lambda: [Row(*figures) for figures in upsampling(dtype, quick=largest < 10**4)],
            lambda: prompts_against_moments(largest, note),
        ]
        for index, part in enumerate(parts):
            rows += part()
            report(title, index + 1, len(parts))
    return sorted(rows, key=lambda row: row.part[:3]), bounds | {"peak_memory_gib": process_bytes(peak=True) / 2**30}


def show(dtype: str, rows: list[Row], bounds: dict[str, float], console: Console) -> None:
    """Print one precision as a table."""
    table = Table(title=f"{dtype}: " + ", ".join(f"{name} = {value:.3g}" for name, value in bounds.items()))
    for column in ("setting", "figure", "measured", "unit", "reach", "verdict"):
        table.add_column(column, justify="right" if column == "measured" else "left")
    before = ""
    for row in rows:
        reach = "" if row.reach is None else f"{'≤' if row.less else '≥'} {row.reach:g}"
        value = f"{row.value:,.0f}" if row.value >= 1e4 else f"{row.value:.3g}"
        table.add_row(row.part if row.part != before else "", row.what, value, row.unit, reach, row.verdict)
        before = row.part
    console.print(table)


@click.command()
@click.option(
    "--out", default="results/bench.json", show_default=True, type=click.Path(path_type=Path), help="saved table"
)
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(DTYPES), help="one precision only  [default: both]")
@click.option("--largest", default=10**6, show_default=True, type=click.IntRange(1000), help="most prompts")
@click.option("--quick", is_flag=True, help="fewer prompts and runs, to see that it works")
def main(out: Path, dtypes: tuple[str, ...], largest: int, quick: bool) -> None:
    """Measure, print the table and save it (an older one is replaced). Takes some minutes on two cores."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    largest, runs, run_steps = (1000, (1, 16), 20_000) if quick else (largest, (1, 16, 256, 4096), 2_000_000)
    warnings.simplefilter("ignore", icl.PrecisionWarning)  # times, not digits, are measured here
    notes: list[str] = []
    saved: dict[str, Any] = {"machine": machine() | torch_version(), "notes": notes}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial_out = out.with_name(out.name + ".part")
        if out.is_dir():
            raise InputError("--out", str(out), "it is a folder; give a file")
        partial_out.touch()
    except OSError as error:
        raise InputError("--out", str(out), f"cannot be written ({error.strerror}); give another") from None
    console.print(", ".join(f"{name} {value}" for name, value in saved["machine"].items()), highlight=False)
    with ProgressReport() as report:
        for dtype in dtypes or DTYPES:
            rows, bounds = measure(dtype, largest, runs, run_steps, report, notes.append)
            saved[dtype] = {
                "bounds": bounds,
                "rows": [row._asdict() | {"value": float(row.value), "verdict": row.verdict} for row in rows],
            }
            partial_out.write_text(json.dumps(saved, indent=2, ensure_ascii=False) + "\n")
            show(dtype, rows, bounds, console)
    for text in dict.fromkeys(notes):
        console.print(text, highlight=False)
    partial_out.replace(out)
    console.print(f"wrote {out}", highlight=False)


if __name__ == "__main__":
    run(main, "bench")
