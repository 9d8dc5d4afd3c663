"""`python -m figures` lists the figures; `python -m figures NAME …` draws them again from saved data."""

from __future__ import annotations

from pathlib import Path

import click

from figures import FIGURES
from figures.figure import FORMATS, WIDTHS, draw
from icl_theory.cli.one_line import run


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(FIGURES)), metavar="[NAME]...")
@click.option("--results", default="results", show_default=True, type=click.Path(path_type=Path), help="data folder")
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(FORMATS), help="format, repeatable  [default: all three]"
)
@click.option(
    "--width", default="page", show_default=True, type=click.Choice(list(WIDTHS)), help="page or column width"
)
def main(names: tuple[str, ...], results: Path, formats: tuple[str, ...], width: str) -> None:
    """Draw figures from saved data; without a name, list them."""
    for name in names:
        click.echo(f"wrote {', '.join(map(str, draw(FIGURES[name], results, formats or FORMATS, width)))}")
    if not names:
        for figure in FIGURES.values():
            click.echo(f"{figure.name:24} {figure.title}  (reads {figure.sources})")


if __name__ == "__main__":
    run(main, "python -m figures", cache=False)
