"""The command line: `icl-theory simulate` and `icl-theory verify`."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from icl_theory.config import RunConfig
from icl_theory.errors import DivergenceError, IclTheoryError, InputError
from icl_theory.progress import ProgressReport
from icl_theory.simulate import save_simulation, simulate, summary
from icl_theory.store import check_place, code_version, is_complete, plain, save_arrays, set_aside, write_result
from icl_theory.verification import CLAIMS, verify
from icl_theory.verification.table import as_json, print_table


class NumberList(click.ParamType):
    """Comma-separated numbers."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """`"0.5,0.3"` to `(0.5, 0.3)`."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.5,0.3,0.2", param, ctx)


def _config_options(command: Callable) -> Callable:
    """One option per field of `RunConfig`; its default is shown, and only given ones override the file."""
    for field in reversed(dataclasses.fields(RunConfig)):
        if field.name == "groups":
            continue
        default: Any = field.default
        kind: Any = NumberList() if isinstance(default, tuple) else type(default)
        shown = f"  [default: {default:g}]" if isinstance(default, float) else f"  [default: {default}]"
        if field.metadata["choices"]:
            kind = click.Choice(field.metadata["choices"])
        text = field.metadata["help"] + ("" if default == () else shown)
        command = click.option(f"--{field.name.replace('_', '-')}", field.name, type=kind, help=text)(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="icl-theory")
def cli() -> None:
    """See and check what linear attention learns first, under gradient descent and under SAM."""


@cli.command("simulate")
@click.option("--out", type=click.Path(path_type=Path), help="result folder  [default: results/simulate/run-HASH]")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file of settings; options win")
@click.option("--quiet", is_flag=True, help="no progress bar")
@_config_options
def simulate_command(out: Path | None, config_file: Path | None, quiet: bool, **options: Any) -> None:
    """Train one model and write what was learned when, beside theory where there is one.

    \b
    Examples:
      icl-theory simulate                                        rank-one attention, gradient descent
      icl-theory simulate --optimizer sam --rho 0.05             the same start under SAM
      icl-theory simulate --init aligned --eigenvalues 2,1 --learning-rate 1e-3 --init-scale 0.05
      icl-theory simulate --model merged --init-scale 0.01 --num-steps 5000
      icl-theory simulate --scores softmax --data prompts --num-prompts 2000 --num-steps 2000
      icl-theory simulate --config mixture.toml                  groups with shares: [[groups]] tables

    Time is learning rate × step; the loss is the mean square error without a ½. The folder holds
    summary.json, trajectory.csv, trajectory.npz, parameters.npz, run.png and run.svg. A finished folder of the
    same settings is reused; anything else in its place is left alone and named.
    """
    given = {name: value for name, value in options.items() if value is not None}
    config = RunConfig.from_toml(config_file, given) if config_file else RunConfig.from_mapping(given)
    folder = out or Path("results/simulate") / f"run-{_short_hash(config)}"
    code = code_version()
    if is_complete(folder, config=config, code=code, remedy="give another --out"):
        click.echo(f"{folder}: complete already, reused")
        click.echo((folder / "summary.json").read_text(), nl=False)
        return
    check_place(folder)
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
        arrays = {name: np.asarray(leaf) for name, leaf in error.params.items()}
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
    click.echo(json.dumps(summary(result), indent=2, ensure_ascii=False))
    click.echo(f"wrote {folder}/ (run.png, summary.json, trajectory.csv, trajectory.npz, parameters.npz)")


@cli.command("verify")
@click.option("--only", help="letters of the claims to run, such as A,C  [default: all]")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="write the table as JSON too")
@click.option("--force", is_flag=True, help="overwrite the JSON file where it exists")
@click.option("--float32/--no-float32", default=True, show_default=True, help="measure in single precision too")
@click.option("--quiet", is_flag=True, help="no progress bars")
def verify_command(only: str | None, json_file: Path | None, force: bool, float32: bool, quiet: bool) -> None:
    """Hold every prediction against its measurement and print the table.

    Each statement has a tolerance that stands in the code. They are judged in float64; a last column says which are
    also within tolerance in float32. The exit code is 1 when one does not hold in float64. Takes about two
    minutes on two cores; the session's precision is left as it is.

    \b
    Claims:
      A  closed forms of the population loss against Monte Carlo and automatic differentiation
      B  fixed points and plateau losses
      C  dynamics against reduced systems, flows and closed forms
      D  random initialisation under gradient descent
      E  sharpness-aware minimization against gradient descent
    """
    letters = [claim.letter for claim in CLAIMS] if only is None else [part.strip().upper() for part in only.split(",")]
    for letter in letters:
        if letter not in {claim.letter for claim in CLAIMS}:
            raise InputError("--only", letter, "give letters out of " + ", ".join(claim.letter for claim in CLAIMS))
    if json_file is not None:
        _check_writable(json_file, force)
    with ProgressReport(quiet=quiet) as report:
        rows = verify([claim for claim in CLAIMS if claim.letter in letters], float32=float32, progress=report)
    print_table(rows)
    if json_file is not None:
        try:
            json_file.write_text(as_json(rows))
        except OSError as error:
            raise InputError("--json", str(json_file), f"cannot be written ({error.strerror})") from None
        click.echo(f"wrote {json_file}")
    if not all(row.holds for row in rows):
        sys.exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors made on purpose are one line and exit code 2, never a traceback."""
    try:
        code = cli.main(args=arguments, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.Abort:
        _fail("interrupted; nothing was left half written", 130)
    except click.ClickException as error:
        _fail(" ".join(error.format_message().split()), 2)
    except IclTheoryError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was left half written", 130)
    except MemoryError:
        _fail("out of memory: lower --num-prompts, --num-snapshots or --dim", 2)


def _fail(message: str, code: int) -> None:
    click.echo(f"icl-theory: error: {message}", err=True)
    sys.exit(code)


def _check_writable(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise InputError("--json", str(path), "it exists; give another file or add --force")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError("--json", str(path), "give a file in an existing folder")


def _short_hash(config: RunConfig) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(plain(config), sort_keys=True).encode()).hexdigest()[:10]


if __name__ == "__main__":
    main()
