"""Picture of an upsampling: trajectories of the groups, learning times, and typical examples of each group."""

from __future__ import annotations

import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icl_theory.errors import InputError
from icl_theory.plotting import EARLY, LATE, PAGE, draw_letter, new_figure, save_picture, styled, text_colour
from icl_theory.upsampling.conversations import texts_of
from icl_theory.upsampling.groups import group_centres, relative_rows
from icl_theory.upsampling.loss_record import LossRecord, step_text
from icl_theory.upsampling.rule import Upsampling

SHOWN = 3  # examples of each group
BINS = 40
WIDTH, LINES = 52, 5  # of the text of an example: characters a line, and lines
SAMPLE = 100_000  # about how many evenly spread examples the bands of trajectories are computed from


def nearest(distance: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the few examples of a group nearest to its centre, nearest first (ties in their order)."""
    members = np.flatnonzero(group)
    return members[np.argsort(distance[members], kind="stable")[:SHOWN]]


def with_examples(
    record: LossRecord,
    found: Upsampling,
    *,
    rows_of: Callable[[np.ndarray], Iterable[dict[str, Any]]],
    name_of: Callable[[int], str],
    title: str,
) -> Figure:
    """Look up the typical examples and call `draw_upsampling` with them.

    Args:
        record: The record, in the order of the data.
        found: The result of `upsample`.
        rows_of: Returns the rows of examples given by ascending numbers.
        name_of: Returns the name of an example.
        title: Title of the figure.
    """
    distance = group_centres(record, found)[1]
    shown = {group: nearest(distance, found.late == group) for group in (False, True)}
    wanted = np.sort(np.concatenate(list(shown.values())))
    rows = dict(zip(wanted.tolist(), rows_of(wanted), strict=True))
    typical = {
        group: [(f"{name_of(place)}, {_when(found.times[place])}", rows[place]) for place in places.tolist()]
        for group, places in shown.items()
    }
    return draw_upsampling(record, found, typical=typical, title=title)


def save_upsampling_picture(figure: Figure, path: Path) -> None:
    """Write the picture; characters that the font lacks become boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        save_picture(figure, path)


def _when(time: float) -> str:
    return "never learned" if np.isinf(time) else f"learned at step {step_text(time)}" if time else "nothing to learn"


@styled
def draw_upsampling(
    record: LossRecord, found: Upsampling, *, typical: dict[bool, list[tuple[str, dict[str, Any]]]], title: str
) -> Figure:
    """Draw the losses, learning times and groups of an upsampling.

    Args:
        record: The record, in the order of the data.
        found: The result of `upsample`.
        typical: Names and rows of the examples nearest to the centre of the early (False) and the late group (True).
        title: Title of the figure.
    """
    figure, axes = new_figure(PAGE, 5.7, 2, 2, height_ratios=(1.0, 1.25))
    left, right, early, late = axes.ravel()
    for axis, letter in zip(axes.ravel(), "abcd", strict=True):
        draw_letter(axis, letter)
    _trajectories(left, record, found)
    _histogram(right, record, found)
    for axis, group, name, colour in ((early, False, "Early", EARLY), (late, True, "Late", LATE)):
        _examples(axis, typical.get(group, []), f"{name}: nearest to the centre", colour)
    figure.suptitle(_cut(title, 2, 88), x=0.01, ha="left", parse_math=False)
    return figure


def _trajectories(axis: Axes, record: LossRecord, found: Upsampling) -> None:
    """Draw the median and quartiles of the relative losses of both groups."""
    step = max(1, record.num_examples // SAMPLE)
    rows = relative_rows(record, slice(None, None, step), found.floor)
    late = found.late[::step]
    curves = {}
    for group, name, colour in ((~late, "early", EARLY), (late, "late", LATE)):
        if group.any():
            low, middle, high = np.quantile(rows[:, group], [0.25, 0.5, 0.75], axis=1)
            axis.plot(record.steps, middle, color=colour, marker=".")
            axis.fill_between(record.steps, low, high, color=colour, alpha=0.2, linewidth=0)
            curves[name] = middle
    if len(curves) == 2:  # named where they lie farthest apart, each on its outer side
        place = int(np.argmax(curves["late"] - curves["early"]))
        for name, shift, colour in (("early", -4, EARLY), ("late", 4, LATE)):
            at: Any = {
                "xytext": (shift, shift),
                "textcoords": "offset points",
                "color": text_colour(colour),
                "fontsize": 7,
            }
            side: Any = {"ha": "right", "va": "top"} if shift < 0 else {"ha": "left", "va": "bottom"}
            axis.annotate(name, (record.steps[place], curves[name][place]), **at, **side)
    axis.axhline(found.remaining, color="#999999", linewidth=0.8, linestyle=":")
    axis.text(1, found.remaining, "learned", transform=axis.get_yaxis_transform(), ha="right", va="bottom", fontsize=7)
    title = f"The late take {found.ratio:.3g} × as long" if np.isfinite(found.ratio) else "Loss of the examples"
    axis.set(title=f"{title}\n(medians and quartiles)", xlabel="step", ylabel="share of the first loss left")
    axis.set_ylim(bottom=0)


def _histogram(axis: Axes, record: LossRecord, found: Upsampling) -> None:
    """Draw the learning times, with a separate bar beyond the last step for examples that are never learned."""
    last = record.steps[-1]
    width = (last - record.steps[0]) / BINS
    edges = np.append(np.linspace(record.steps[0], last, BINS + 1), [last + width, last + 3 * width])
    shown = np.where(np.isinf(found.times), last + 2 * width, np.clip(found.times, record.steps[0], last - 1e-9 * last))
    counts = [np.histogram(shown[group], edges)[0] for group in (~found.late, found.late)]
    below = np.zeros(len(edges) - 1)
    for count, colour in zip(counts, (EARLY, LATE), strict=True):
        axis.bar(edges[:-1], count, np.diff(edges), bottom=below, align="edge", color=colour)
        below += count
    if np.isinf(found.times).any():
        axis.annotate(
            "never", (last + 2 * width, below[-1]), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom"
        )
    axis.set_ylim(top=1.12 * below.max())
    early, late = (count.sum() for count in counts)
    axis.set(title=f"{early} examples are early,\n{late} are late", ylabel="examples")
    axis.set_xlabel("step at which the example is learned")


def _examples(axis: Axes, rows: list[tuple[str, dict[str, Any]]], title: str, colour: str) -> None:
    axis.axis("off")
    axis.set_title(title, color=text_colour(colour))
    if not rows:
        axis.text(0, 0.95, "none", va="top", transform=axis.transAxes)
    for place, (name, row) in enumerate(rows):
        top = 0.98 - place / SHOWN
        axis.text(0, top, name, va="top", fontsize=7, color="#666666", transform=axis.transAxes, parse_math=False)
        text = axis.text(0, top - 0.058, _shown(row), va="top", fontsize=7, transform=axis.transAxes, parse_math=False)
        text.set_in_layout(False)


def _shown(row: dict[str, Any]) -> str:
    """Return prompt and completion, cut to a few lines."""
    try:
        texts = texts_of(row)
    except InputError:  # a field that should hold a text does not
        texts = None
    if texts is None:
        return _cut(str(row), LINES)
    asked = _cut(texts.prompt, LINES - 2 if texts.completion else LINES)
    return f"{asked}\n{_cut('→ ' + texts.completion, 2)}" if texts.completion else asked


def _cut(text: str, lines: int, width: int = WIDTH) -> str:
    """Return the first lines of a text, shorter ones if it has many double-width characters."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * width * lines]).split())
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return "\n".join(
        textwrap.wrap(text, 3 * width // 7 if 4 * wide > len(text) else width, max_lines=lines, placeholder=" …")
    )
