"""The specification of a figure: the data it reads, how it is drawn, its caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

from icl_theory.errors import InputError
from icl_theory.plotting import COLUMN, PAGE, save_figure
from icl_theory.verification.claims import load_claim
from icl_theory.verification.saved import load

FORMATS = ("png", "svg", "pdf")
WIDTHS = {"column": COLUMN, "page": PAGE}


class FigureSpec(NamedTuple):
    """One figure.

    Attributes:
        name: file and command-line name.
        title: what it shows, a sentence: the heading in the report, and its text for those who cannot see it.
        caption: what each panel shows, by its letter, in a few sentences.
        reads: names of the claims whose data it reads; none for a figure drawn from closed forms alone.
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
        return self.saved or ", ".join(self.reads) or "closed forms alone"


def draw(figure: FigureSpec, results: Path, formats: Sequence[str] = FORMATS, width: str = "page") -> list[Path]:
    """Read the data, draw the figure and write it.

    Args:
        figure: what to draw.
        results: folder with the data; files are written to its folder `figures`.
        formats: "png", "svg" or "pdf", each written as `NAME.FORMAT`.
        width: "page", or "column", which has one panel a row and is written as `NAME-column.FORMAT`.

    Returns:
        Paths of the files, in the order of the formats.

    Raises:
        InputError: data are missing, or a file cannot be written.
    """
    data = [load(load_claim(name), results) for name in figure.reads]
    stem = results / "figures" / (figure.name if width == "page" else f"{figure.name}-{width}")
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context({"figure.figsize": (WIDTHS[width], WIDTHS[width])}):
            save_figure(figure.draw(*data), stem, formats)
    except OSError as error:
        raise InputError("figure", str(stem), f"cannot be written ({error.strerror})") from error
    return [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
