"""`python -m figures.explorer OUT.html` writes the explorer as one page that needs no network."""

from __future__ import annotations

from pathlib import Path

import click

from figures.explorer import page
from icl_theory.cli.one_line import run
from icl_theory.errors import InputError
from icl_theory.verification.claims import load_claim
from icl_theory.verification.saved import load


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--results", type=click.Path(path_type=Path), help="data folder with `generalisation`, to compare held-out losses"
)
def main(out: Path, results: Path | None) -> None:
    """Write the explorer to OUT, a page of its own."""
    data = None if results is None else load(load_claim("generalisation"), results)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(data), encoding="utf-8")
    except OSError as error:
        raise InputError("out", str(out), f"cannot be written ({error.strerror})") from error
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    run(main, "figures.explorer", cache=False)
