"""Curves and dots that take little room in a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path


def draw_dots(axis: Axes, x: np.ndarray, y: np.ndarray, colour: Any, *, size: float = 2.5) -> None:
    """Draw dots of a diameter in points as one path, whatever their number, so that files of many dots stay small.

    Each is a stroke with round caps, a ten-thousandth of the x-axis long; set the limits of that axis before.
    """
    seen = np.isfinite(x) & np.isfinite(y)
    ends = np.repeat(np.column_stack([x, y])[seen], 2, axis=0)
    ends[1::2, 0] += np.ptp(axis.get_xlim()) / 1e4
    codes = np.tile([Path.MOVETO, Path.LINETO], len(ends) // 2)
    style: Any = {"fill": False, "linewidth": size, "capstyle": "round", "snap": False}
    axis.add_patch(PathPatch(Path(ends, codes), edgecolor=colour, **style))


def few_of(time: np.ndarray, shown: int, *, start: float) -> np.ndarray:
    """Return indices of about `shown` samples, evenly spaced in the logarithm of time from `start` to the end."""
    places = np.searchsorted(time, np.geomspace(start, time[-1], shown))
    return np.unique(np.append(places, len(time) - 1).clip(max=len(time) - 1))
