"""`icl-theory simulate`: one run."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from icl_theory.cli.options import config_options, short_hash
from icl_theory.environment import code_version
from icl_theory.errors import DivergenceError, InputError
from icl_theory.progress import ProgressReport
from icl_theory.results import check_place, is_complete, save_arrays, set_aside, write_result
from icl_theory.simulation.config import SAM_OPTIMIZERS, RunConfig


@click.command("simulate")
@click.option("--out", type=click.Path(path_type=Path), help="result folder  [default: results/simulate/run-HASH]")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file of settings; options win")
@click.option("--json", "as_json", is_flag=True, help="print all numbers as JSON instead of a summary")
@click.option("--quiet", is_flag=True, help="no progress bar")
@config_options
def simulate_command(out: Path | None, config_file: Path | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Train one model; draw its loss with the predicted plateaus, and say when each feature was learned.

    \b
    Examples:
      icl-theory simulate                                        rank-one attention, gradient descent
      icl-theory simulate --optimizer sam --rho 0.05             the same start under SAM
      icl-theory simulate --init aligned --eigenvalues 2,1 --learning-rate 1e-3 --init-scale 0.05
      icl-theory simulate --model merged --init-scale 0.01 --num-steps 5000
      icl-theory simulate --scores softmax --data prompts --num-prompts 2000 --num-steps 2000
      icl-theory simulate --config mixture.toml                  groups with shares: [[groups]] tables

    Where there is a theory of the whole curve (separate heads of rank 1 under gd and sam, merged heads under gd;
    infinite data), the summary says when it has each feature learned, and run.png shows it dashed. From random starts
    it is gradient flow, and the better the smaller --init-scale.

    Time is learning rate × step; the loss is the mean square error without a ½. The folder holds summary.json,
    summary.txt, trajectory.csv, trajectory.npz, parameters.npz, run.png and run.svg. A finished folder of the same
    settings is reused; anything else in its place is left alone and named.
    """
    given = {name: value for name, value in options.items() if value is not None}
    config = RunConfig.from_toml(config_file, given) if config_file else RunConfig.from_mapping(given)
    if "rho" in given and config.optimizer not in SAM_OPTIMIZERS:
        raise InputError(
            "--rho", given["rho"], f"{config.optimizer} does not use it; leave it out, or take --optimizer sam"
        )
    folder = out or Path("results/simulate") / f"run-{short_hash(config)}"
    code = code_version()
    if is_complete(folder, config=config, code=code, remedy="give another --out"):
        if as_json:
            click.echo((folder / "summary.json").read_text(), nl=False)
        else:
            click.echo((folder / "summary.txt").read_text(), nl=False)
            click.echo(f"{folder}: complete already, reused")
        return
    check_place(folder)
    from icl_theory.simulation.save import save_simulation
    from icl_theory.simulation.simulate import simulate
    from icl_theory.simulation.summary import lines, summary

    began = time.monotonic()
    try:
        with ProgressReport(quiet=quiet) as report:
            result = simulate(
                config,
                progress=lambda done, total: report("training", done, total),
                folding=lambda done, total: report("folding prompts", done, total),
            )
    except DivergenceError as error:
        saved = folder.with_name(folder.name + ".diverged")
        moved = set_aside(saved)
        if moved is not None:
            click.echo(f"set an older one aside: {moved}", err=True)
        arrays = {name: leaf for name, leaf in error.params.items()}
        write_result(
            saved,
            lambda partial: save_arrays(partial / "parameters.npz", arrays),
            config=config,
            code=code,
            seconds=time.monotonic() - began,
            diverged_at=error.step,
            last_good_step=error.last_step,
        )
        click.echo(f"icl-theory: error: {error}, saved in {saved}/parameters.npz", err=True)
        sys.exit(1)
    write_result(
        folder,
        lambda partial: save_simulation(result, partial),
        config=config,
        code=code,
        seconds=time.monotonic() - began,
    )
    if as_json:
        click.echo(json.dumps(summary(result), indent=2, ensure_ascii=False))
        return
    click.echo("\n".join(lines(result)))
    click.echo(f"wrote {folder}/ (run.png, summary.json, summary.txt, trajectory.csv, trajectory.npz, parameters.npz)")
