"""`icl-theory compare`: draw what a sweep measured beside what theory predicted."""

from __future__ import annotations

from pathlib import Path

import click

from icl_theory.errors import InputError
from icl_theory.plotting import save_figure
from icl_theory.sweeps.comparison import draw_comparison, summary_of
from icl_theory.sweeps.folder import open_sweep
from icl_theory.sweeps.measures import COMPARED


@click.command("compare")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--variable", type=click.Choice(COMPARED), default="learning_time_ratio", show_default=True, help="what to compare"
)
@click.option("--feature", type=int, help="feature, 1 = simplest  [default: all in curves, the second in maps]")
@click.option("--x", "across", metavar="FIELD", help="swept setting on the horizontal axis  [default: the longest]")
@click.option("--select", multiple=True, metavar="FIELD=VALUE", help="look at one value of a swept setting only")
@click.option("--out", type=click.Path(path_type=Path), help="picture, .png and .svg  [default: FOLDER-compare.png]")
def compare_command(
    folder: Path, variable: str, feature: int | None, across: str | None, select: tuple[str, ...], out: Path | None
) -> None:
    """Draw analytic against empirical over a sweep, with their difference, and print the largest one.

    One swept setting gives curves, two give maps; over `seed` and `data_seed` the median is taken, with its 95 %
    interval where there are curves. Of further settings choose one value each with --select.

    \b
    Examples:
      icl-theory compare results/sweeps/mine
      icl-theory compare results/sweeps/mine --variable learning_time --feature 3 --select num_context=31
    """
    folder = folder.resolve()
    data = open_sweep(folder)
    chosen = {}
    for text in select:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError("--select", text, "write FIELD=VALUE")
        chosen[name.strip().replace("-", "_")] = value
    picture = out or folder.with_name(f"{folder.name}-compare.png")
    stem = picture.with_suffix("") if picture.suffix in (".png", ".svg") else picture
    for suffix in (".png", ".svg"):
        if out is not None and stem.with_name(stem.name + suffix).exists():
            raise InputError("--out", f"{stem}{suffix}", "it exists; give another or remove it")
    figure, shown = draw_comparison(data, variable, feature=feature, across=across, select=chosen)
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, stem)
    except OSError as error:
        raise InputError("--out", str(stem), f"cannot be written ({error.strerror})") from None
    for line in summary_of(shown, variable):
        click.echo(line)
    click.echo(f"wrote {stem}.png and {stem}.svg")
