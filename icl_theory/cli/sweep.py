"""`icl-theory sweep`: many runs, saved as they come."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from icl_theory.cli.options import config_options, short_hash
from icl_theory.errors import InputError, check_number
from icl_theory.progress import ProgressReport, duration
from icl_theory.sweeps import SYSTEMS

if TYPE_CHECKING:
    from icl_theory.sweeps.processes import Process
    from icl_theory.sweeps.run_sweep import Outcome, State


@click.command("sweep")
@click.argument("axes", nargs=-1, metavar="[FIELD=VALUES]...")
@click.option(
    "--out", type=click.Path(path_type=Path), help="folder of the sweep  [default: results/sweeps/sweep-HASH]"
)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file of settings with a [grid]; options win"
)
@click.option(
    "--system",
    type=click.Choice(SYSTEMS),
    help="full model, theory alone, or the model and theory where there is one  [default: auto]",
)
@click.option("--curves", is_flag=True, default=None, help="keep losses and strengths of every snapshot")
@click.option("--memory", type=float, help="limit of this process in GiB  [default: half of the machine's]")
@click.option("--dry-run", is_flag=True, help="say how many runs and programs, how much memory and time; run nothing")
@click.option("--force", is_flag=True, help="set aside what the folder holds and start over")
@click.option("--distributed", is_flag=True, help="one of several processes that Slurm, Open MPI or Cloud TPU started")
@click.option("--coordinator", metavar="HOST:PORT", help="one of several processes started by hand: where the first is")
@click.option("--num-processes", type=int, help="how many, with --coordinator")
@click.option("--process-id", type=int, help="which one this is, from 0, with --coordinator")
@click.option("--quiet", is_flag=True, help="no progress bar")
@config_options
def sweep_command(
    axes: tuple[str, ...],
    out: Path | None,
    config_file: Path | None,
    system: str | None,
    curves: bool | None,
    memory: float | None,
    dry_run: bool,
    force: bool,
    distributed: bool,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Run every combination of settings and keep what is measured as one labelled data set.

    \b
    VALUES are a list or a range, for any setting below:
      rho=0,0.02,0.05            these values               optimizer=gd,sam      texts too
      rho=0:0.1:21               21 evenly spaced, both ends included
      learning_rate=1e-3:1e-1:5:log                         at equal ratios
      seed=0:256                 whole numbers, 0 to 255    eigenvalues=2,1;3,1   lists

    \b
    Examples:
      icl-theory sweep rho=0:0.1:21 seed=0:64 --optimizer sam --dry-run
      icl-theory sweep rho=0:0.08:17 eigenvalue_ratio=1:3:17 --init aligned --dim 2 --init-scale 0.05 --optimizer sam
      icl-theory sweep --config sweep.toml --out results/sweeps/mine

    The folder is a Zarr group: xarray.open_zarr(FOLDER) has the swept settings as dimensions. Runs are saved in units
    of about a second; the same command goes on where it stopped, and does nothing where all is done. A run that
    diverges is marked in `status`. Where there is a theory of the whole curve (separate heads of rank 1, aligned or
    random at the start, under gd and sam; merged heads under gd; infinite data), its prediction stands beside each
    measurement. `icl-theory compare FOLDER` draws both; --system reduced predicts without training the model.
    """
    from icl_theory.sweeps.axes import parse_axis
    from icl_theory.sweeps.estimate import describe
    from icl_theory.sweeps.processes import ALONE
    from icl_theory.sweeps.run_sweep import run_sweep
    from icl_theory.sweeps.specification import Sweep

    if memory is not None:
        check_number("--memory", memory, minimum=0.0, exclusive=True)
    _check_processes(distributed, coordinator, num_processes, process_id)
    process = ALONE if dry_run else _join(distributed, coordinator, num_processes, process_id)
    given = {name: value for name, value in options.items() if value is not None}
    grid = tuple(parse_axis(text) for text in axes)
    chosen: dict[str, Any] = {
        name: value for name, value in (("system", system), ("curves", curves)) if value is not None
    }
    if config_file:
        sweep = Sweep.from_toml(config_file, base=given, grid=grid, **chosen)
    else:
        sweep = Sweep.create(given, grid=grid, **chosen)
    folder = out or Path("results/sweeps") / f"sweep-{short_hash(sweep.description)}"
    if dry_run:
        for name, text in describe(sweep, folder, memory_gib=memory).items():
            click.echo(f"{name:<10}{text}")
        return
    with ProgressReport(quiet=quiet) as report:
        outcome = run_sweep(
            sweep,
            folder,
            memory_gib=memory,
            force=force,
            process=process,
            progress=lambda state: report("sweep", int(state.run_steps), int(state.total_run_steps), _detail(state)),
        )
    _tell(outcome, folder, process)


def _check_processes(distributed: bool, coordinator: str | None, count: int | None, index: int | None) -> None:
    by_hand = {"--coordinator": coordinator, "--num-processes": count, "--process-id": index}
    if all(value is None for value in by_hand.values()):
        return
    for name, value in by_hand.items():
        if not distributed and value is None:
            raise InputError(name, None, "give --coordinator, --num-processes and --process-id together")
    if coordinator is not None and not re.fullmatch(r"(\[[^\]]+\]|[^:\s]+):\d{1,5}", coordinator):
        raise InputError("--coordinator", coordinator, "write HOST:PORT, such as 127.0.0.1:12345")
    if count is not None:
        check_number("--num-processes", count, minimum=1, maximum=2**20, integer=True)
    if index is not None:
        check_number("--process-id", index, minimum=0, maximum=2**20 if count is None else count - 1, integer=True)


def _join(distributed: bool, coordinator: str | None, count: int | None, index: int | None) -> Process:
    """Get this process's number from jax.distributed, then shut that down, so that no process waits for others."""
    from icl_theory.sweeps.processes import ALONE, Process

    if not distributed and coordinator is None:
        return ALONE
    import jax

    try:
        jax.distributed.initialize(coordinator, count, index)
        process = Process(jax.process_index(), jax.process_count())
        jax.distributed.shutdown()
    except (ValueError, RuntimeError) as error:
        remedy = f"the processes did not find each other ({' '.join(str(error).split())[:200]})"
        raise InputError("--coordinator" if coordinator else "--distributed", coordinator or True, remedy) from None
    return process


def _detail(state: State) -> str:
    speed = state.run_steps / max(state.seconds, 1e-9)
    left = (state.total_run_steps - state.run_steps) / max(speed, 1e-9)
    shown = f"{state.runs_done:,} of {state.runs:,} runs"
    shown += f", {duration(left)} left" if state.run_steps and left else ""
    return f"{shown}, {speed / 1e6:.2g} M run-steps/s"


def _tell(outcome: Outcome, folder: Path, process: Process) -> None:
    if outcome.set_aside is not None:
        click.echo(f"set aside what was there: {outcome.set_aside}")
    if not outcome.ran:
        click.echo(f"{folder}: nothing left to run" + (f" for process {process.number}" if process.total > 1 else ""))
    else:
        share = 100.0 * outcome.writing / outcome.seconds
        click.echo(
            f"ran {outcome.ran:,} of {outcome.runs:,} runs in {duration(outcome.seconds)} (writing {share:.1f} %)"
        )
    if outcome.diverged:
        click.echo(f"{outcome.diverged:,} of them diverged: status = 2, diverged_at says when")
    if outcome.complete:
        click.echo(f'complete: {folder}  (in Python: xarray.open_zarr("{folder}"))')
    else:
        click.echo(f"runs of other processes are still missing in {folder}; this command without them would run those")
