"""`python -m figures` lists the figures; `python -m figures NAME …` draws them again from saved data."""

from __future__ import annotations

from pathlib import Path

import click

from figures import FIGURES
from figures.figure import draw
from icl_theory.cli.one_line import run


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(FIGURES)), metavar="[NAME]...")
@click.option("--results", default="results", show_default=True, type=click.Path(path_type=Path), help="data folder")
def main(names: tuple[str, ...], results: Path) -> None:
    """Draw figures from saved data; without a name, list them."""
    for name in names:
        click.echo(f"wrote {draw(FIGURES[name], results)} and .svg")
    if not names:
        for figure in FIGURES.values():
            click.echo(f"{figure.name:24} {figure.title}  (reads {figure.sources})")


if __name__ == "__main__":
    run(main, "figures", cache=False)
