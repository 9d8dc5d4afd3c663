"""The specification of a figure: the data it reads, how it is drawn, its caption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from icl_theory.errors import InputError
from icl_theory.plotting import save_figure
from icl_theory.verification.claims import load_claim
from icl_theory.verification.saved import load


class FigureSpec(NamedTuple):
    """One figure.

    Attributes:
        name: file and command-line name.
        title: heading in the report.
        caption: what the reader sees, in a few sentences.
        reads: names of the claims whose data it reads.
        draw: `draw(*data) -> Figure`, one data set per claim.
        saved: path of a measurement in the repository that it reads instead, if any.
    """

    name: str
    title: str
    caption: str
    reads: tuple[str, ...]
    draw: Callable[..., Figure]
    saved: str = ""

    @property
    def command(self) -> str:
        """Command that draws the figure again."""
        return f"python -m figures {self.name}"

    @property
    def sources(self) -> str:
        """Names of the claims whose data the figure reads, as text."""
        return self.saved or ", ".join(self.reads)


def draw(figure: FigureSpec, results: Path) -> Path:
    """Read the data, draw the figure, write `results/figures/NAME.png` and `.svg`; return the path of the PNG."""
    data = [load(load_claim(name), results) for name in figure.reads]
    stem = results / "figures" / figure.name
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure.draw(*data), stem)
    except OSError as error:
        raise InputError("figure", str(stem), f"cannot be written ({error.strerror})") from error
    return stem.with_suffix(".png")
