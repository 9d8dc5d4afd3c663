"""What a figure is: which data it reads, how it is drawn, what it shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from experiments import EXPERIMENTS
from experiments.experiment import load
from icl_theory.errors import InputError
from icl_theory.plotting import save_figure
from icl_theory.verification import Data


class FigureSpec(NamedTuple):
    """One figure.

    Attributes:
        name: module, file and command-line name.
        title: heading in the report.
        caption: what the reader sees, in a few sentences.
        reads: names of the experiments whose data it needs.
        draw: `draw(*data) -> Figure`, one argument per experiment.
        saved: a measurement in the repository that it reads instead.
    """

    name: str
    title: str
    caption: str
    reads: tuple[str, ...]
    draw: Callable[..., Figure]
    saved: str = ""

    @property
    def command(self) -> str:
        """What to type to draw it again."""
        return f"python -m figures {self.name}"

    @property
    def sources(self) -> str:
        """What it reads, in words."""
        return self.saved or ", ".join(self.reads)


def draw(figure: FigureSpec, results: Path) -> Path:
    """Read the data, draw, write `results/figures/NAME.png` and `.svg`; the path of the PNG."""
    data: list[Data] = [load(EXPERIMENTS[name], results) for name in figure.reads]
    stem = results / "figures" / figure.name
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure.draw(*data), stem)
    except OSError as error:
        raise InputError("figure", str(stem), f"cannot be written ({error.strerror})") from error
    return stem.with_suffix(".png")
