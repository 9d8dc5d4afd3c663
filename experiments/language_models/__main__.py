"""`python -m experiments.language_models FILE`: show a saved study."""

from __future__ import annotations

from pathlib import Path

import click

from icl_theory.cli.one_line import run
from icl_theory.llm.evaluation.study import shown


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
def main(path: Path) -> None:
    """Show a saved study."""
    click.echo(shown(path))


if __name__ == "__main__":
    run(main, "study", cache=False)
