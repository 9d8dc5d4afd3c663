"""`python -m experiments`: make what is missing, compare with theory, draw, and write the report."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from experiments.reproduce import reproduce
from experiments.results_page import PAGE, results_page
from figures import FIGURES
from figures.report import write_report
from icl_theory import __version__
from icl_theory.cli.one_line import run
from icl_theory.results import set_aside
from icl_theory.verification import NAMES, all_claims, rows_of
from icl_theory.verification.saved import load_all
from icl_theory.verification.table import count


@click.group(invoke_without_command=True)
@click.option("--results", default="results", show_default=True, type=click.Path(path_type=Path), help="data folder")
@click.option("--fresh", is_flag=True, help="set older results aside (renamed, not removed) and start over")
@click.pass_context
def cli(context: click.Context, results: Path, fresh: bool) -> None:
    """Reproduce everything: simulate, compare with theory, draw, write results/report/index.html.

    Data that are complete are reused. The exit code is 1 when a statement of the verification table does not hold.
    """
    context.obj = results
    if fresh and context.invoked_subcommand is not None:
        raise click.UsageError(f"--fresh goes without {context.invoked_subcommand}: it starts everything over")
    if context.invoked_subcommand is None:
        everything(results, fresh)


@cli.command("list")
def list_command() -> None:
    """List claims and figures, with what each takes and shows."""
    click.echo("Claims (python -m experiments run NAME):")
    for claim in all_claims():
        figures = [figure.name for figure in FIGURES.values() if claim.name in figure.reads]
        count = f"{len(claim.statements.entries)} statements" if claim.statements.entries else "no statement"
        _describe(claim.name, claim.question, claim.takes, f"{count}; figures: {', '.join(figures) or 'none'}")
    click.echo("\nFigures (python -m figures NAME):")
    for figure in FIGURES.values():
        _describe(figure.name, figure.title, f"data of {figure.sources}", figure.caption)


def _describe(name: str, title: str, takes: str, shows: str) -> None:
    """Print one entry of the list."""
    click.echo(f"\n  {name}: {title}")
    for word, text in (("takes", takes), ("shows", shows)):
        click.echo(
            click.wrap_text(f"{word}: {text}", width=110, initial_indent="    ", subsequent_indent="           ")
        )


@cli.command("run")
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(NAMES)), metavar="NAME...")
@click.option("--results", type=click.Path(path_type=Path), help="data folder  [default: results]")
@click.pass_obj
def run_command(default: Path, names: tuple[str, ...], results: Path | None) -> None:
    """Make the data of single claims."""
    reproduce(names, (), results or default, say=click.echo)


@cli.command("results-page")
@click.pass_obj
def results_page_command(results: Path) -> None:
    """Write icl_theory/verification/RESULTS.md from data that are complete."""
    rows = [row for claim in all_claims() for row in rows_of(claim, *load_all(claim, results))]
    PAGE.write_text(results_page(rows, __version__))
    click.echo(f"wrote {PAGE}")


def everything(results: Path, fresh: bool) -> None:
    """Reproduce all claims and figures, write the report and print its path; exit with 1 if a statement fails."""
    began = time.monotonic()
    if fresh:
        old = set_aside(results)
        if old is not None:
            click.echo(f"set the older results aside: {old}")
    reproduce(list(NAMES), list(FIGURES), results, say=click.echo)
    page, rows = write_report(results, time.monotonic() - began)
    click.echo(count(rows))
    failing = [row.statement.name for row in rows if not row.holds]
    if failing:
        click.echo(f"not holding: {', '.join(failing)}")
    click.echo(f"report: {page} ({time.monotonic() - began:.0f} s)")
    if failing:
        sys.exit(1)


def main() -> None:
    """Run the command line."""
    run(cli, "experiments", interrupted="interrupted; what is complete is kept, the same command goes on")


if __name__ == "__main__":
    main()
