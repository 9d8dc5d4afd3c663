"""`icl-theory compare-losses`: which of two runs has less simplicity bias, read off the losses of their examples."""

from __future__ import annotations

from pathlib import Path

import click

from icl_theory.errors import InputError
from icl_theory.plotting import save_figure
from icl_theory.results import exists
from icl_theory.upsampling.comparison_picture import draw_loss_comparison
from icl_theory.upsampling.comparison_summary import comparison_summary
from icl_theory.upsampling.record_comparison import compare_losses
from icl_theory.upsampling.record_files import load_loss_record


@click.command("compare-losses")
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--ranking", type=click.Path(path_type=Path), help="record of a third run, whose tenths decide, free of selection"
)
@click.option("--gaps", is_flag=True, help="accept losses that are NaN or infinite, and leave out their examples")
@click.option("--seed", default=0, show_default=True, help="seed of the bootstrap")
@click.option("--out", type=click.Path(path_type=Path), help="picture, .png and .svg  [default: A-B-compared.png]")
@click.option("--picture/--no-picture", default=True, show_default=True, help="draw what was found")
def compare_losses_command(
    first: Path, second: Path, ranking: Path | None, gaps: bool, seed: int, out: Path | None, picture: bool
) -> None:
    """Say which of two runs has less simplicity bias, by the losses of the same examples.

    A and B are loss records, as for `upsample`; one checkpoint is enough. At each step that both have, examples are
    parted into tenths by loss, and the loss of each tenth under B is held against that under A. B has less simplicity
    bias where its loss is higher on easy examples and lower on hard ones.

    Tenths of A favour that finding by chance, since a loss that is low in one run is less low in another; tenths of B
    favour the opposite. The verdict names a difference only if both show it.

    \b
    Examples:
      icl-theory compare-losses adamw.npz sam.npz
      icl-theory compare-losses adamw.zarr sam.zarr --ranking adamw-seed-1.zarr --out results/sam.png
    """
    picture_path = out or first.with_name(f"{first.stem}-{second.stem}-compared.png")
    stem = picture_path.with_suffix("") if picture_path.suffix in (".png", ".svg") else picture_path
    for suffix in (".png", ".svg") if picture else ():
        if exists(stem.with_name(stem.name + suffix)):
            raise InputError("--out", f"{stem}{suffix}", "it exists; give another or remove it")
    a, b = load_loss_record(first, gaps=gaps), load_loss_record(second, gaps=gaps)
    third = None if ranking is None else load_loss_record(ranking, gaps=gaps)
    found = compare_losses(a, b, ranking=third, seed=seed)
    for text in comparison_summary(a, found):
        click.echo(text)
    if not picture:
        return
    figure = draw_loss_comparison(found, title=f"A = {first.name}, B = {second.name}. {found.verdict}")
    try:
        save_figure(figure, stem)
    except OSError as error:
        raise InputError("--out", str(stem), f"cannot be written ({error.strerror})") from None
    click.echo(f"wrote {stem}.png and {stem}.svg")
