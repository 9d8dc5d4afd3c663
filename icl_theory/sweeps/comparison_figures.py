"""Figures that compare the measurements of a sweep with predictions: curves, maps and points."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from icl_theory.analysis.intervals import median_interval
from icl_theory.plotting import COLUMN, GD, THEORY, feature_colour, new_figure, new_panels, styled
from icl_theory.sweeps.measures import MEASURES, PREDICTED

ROUNDING = 1e-9  # smaller errors are due to floating-point rounding


@styled
def draw_curves(shown: xr.Dataset, variable: str, swept: list[str]) -> Figure:
    figure, (left, right) = new_panels(2, height=2.7)
    (dim,) = swept
    labels, positions = shown[dim].values, _positions(shown[dim].values)
    numeric = is_numeric(labels)
    solid, dashed = ("o-", "--") if numeric else ("o", "_")  # categories have no values in between
    columns, largest = _by_feature(shown), 0.0
    for place, (number, column) in enumerate(columns):
        colour = GD if number is None else feature_colour(number - 1)
        at = positions if numeric else positions + 0.1 * (place - (len(columns) - 1) / 2)  # side by side
        measured, predicted = (_median(column[name], dim) for name in (variable, PREDICTED + variable))
        error = _median(_comparable(column, variable), dim, missing=False)
        largest = max(largest, _largest(error[0]))
        name = "measured" if number is None else f"feature {number}"
        _draw_medians(left, at, measured, solid, color=colour, linewidth=2.0, label=name)
        left.plot(at, _drawn(predicted[0]), dashed, color=THEORY, linewidth=1.0, markersize=12)
        _draw_medians(right, at, 100 * np.asarray(error), solid, color=colour)
    left.plot([], [], dashed, color=THEORY, linewidth=1.0, label="predicted")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    title = "Measured (solid)\nand predicted (dashed)" if numeric else "Measured (dots)\nand predicted (bars)"
    left.set(title=title, ylabel=NAMES[variable])
    right.axhline(0.0, color=THEORY, linewidth=0.8)
    ends = not np.isfinite(shown[[variable, PREDICTED + variable]].to_array().values).all()
    found = "Difference, where both have a value" if ends else f"They differ by at most {largest:.2g} %"
    if largest < 100 * ROUNDING:
        found = "They agree to rounding"
        right.set_ylim(-1.0, 1.0)
    right.set(title=found, ylabel="measured / predicted − 1, %")
    for axis in (left, right):
        _label_axis(axis, dim, labels, positions)
    _log_where_wide(left, shown[variable].values)
    if any(seed in shown[variable].dims for seed in SEEDS):
        words = "medians over seeds with 95 % intervals" + ("; a line ends where half never get there" if ends else "")
        figure.suptitle(words, fontsize=7, x=0.01, ha="left")
    return figure


@styled
def draw_maps(shown: xr.Dataset, variable: str, swept: list[str]) -> Figure:
    figure, axes = new_panels(3, 3, height=2.7)
    across, along = swept
    measured, predicted, error = (
        np.asarray(_over_seeds(values).transpose(along, across))
        for values in (shown[variable], shown[PREDICTED + variable], _comparable(shown, variable))
    )
    finite = np.concatenate([values[np.isfinite(values)] for values in (measured, predicted)])
    wide = finite.size and finite.min() > 0 and finite.max() > 20 * finite.min()
    scale: Any = LogNorm if wide else Normalize
    largest = _largest(error)
    rounding = largest < 100 * ROUNDING
    end = 1.0 if rounding else largest  # keeps rounding errors pale
    x, y = _positions(shown[across].values), _positions(shown[along].values)
    drawn: Any = {"shading": "nearest", "rasterized": True}
    bar: Any = {"location": "bottom", "aspect": 25}
    for axis, values, title in ((axes[0], measured, "Measured"), (axes[1], predicted, "Predicted")):
        norm = scale(finite.min(), finite.max())
        mesh = axis.pcolormesh(x, y, _drawn(values), norm=norm, cmap="viridis", **drawn)
        axis.set(title=title)
    figure.colorbar(mesh, ax=axes[:2], label=_named(shown, variable), **bar)
    mesh = axes[2].pcolormesh(x, y, 100 * _drawn(error), cmap="RdBu", vmin=-end, vmax=end, **drawn)
    figure.colorbar(mesh, ax=axes[2], label="measured / predicted − 1, %", **bar)
    axes[2].set(title="They agree to rounding" if rounding else f"They differ by\nat most {largest:.2g} %")
    for axis in axes:
        axis.grid(False)
        axis.set_facecolor("#DDDDDD")
        _label_axis(axis, across, shown[across].values, x)
        _label_axis(axis, along, shown[along].values, y, vertical=True)
    for axis in axes[1:]:
        axis.set_ylabel("")
    if any(seed in shown[variable].dims for seed in SEEDS):
        figure.suptitle("medians over seeds", fontsize=7, x=0.01, ha="left")
    if not (np.isfinite(measured).all() and np.isfinite(predicted).all()):
        never = Patch(color="#DDDDDD", label="never, or no value")
        figure.legend(handles=[never], loc="outside lower left")
    return figure


@styled
def draw_points(shown: xr.Dataset, variable: str, swept: list[str]) -> Figure:
    figure, ((axis,),) = new_figure(COLUMN, 3.3)
    for number, column in _by_feature(shown):
        colour = GD if number is None else feature_colour(number - 1)
        predicted, measured = (np.ravel(column[name]) for name in (PREDICTED + variable, variable))
        axis.plot(
            predicted, measured, "o", markersize=3, color=colour, label=None if number is None else f"feature {number}"
        )
    values = np.concatenate([np.ravel(shown[name]) for name in (variable, PREDICTED + variable)])
    finite = values[np.isfinite(values)]
    axis.plot(
        [finite.min(), finite.max()], [finite.min(), finite.max()], "--", color=THEORY, linewidth=1.0, label="equal"
    )
    axis.set(title="One point a run", xlabel=f"predicted {NAMES[variable]}", ylabel=f"measured {NAMES[variable]}")
    if finite.min() > 0 and finite.max() > 20 * finite.min():
        axis.set(xscale="log", yscale="log")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _by_feature(shown: xr.Dataset) -> list[tuple[int | None, xr.Dataset]]:
    if "feature" not in shown.dims:
        return [(None, shown)]
    return [(int(number), shown.sel(feature=number)) for number in shown.feature.values]


def _comparable(column: xr.Dataset, variable: str) -> xr.DataArray:
    """Return the errors of runs with a finite value and prediction, NaN if these are fewer than half of the seeds.

    Where both are never reached the error is 0, and a median over such runs would look like agreement in time.
    """
    finite: Any = np.isfinite
    both = finite(column[variable]) & finite(column[PREDICTED + variable])
    seeds = [dim for dim in both.dims if dim in SEEDS]
    return column[f"{variable}_error"].where(both & (both.mean(seeds) >= 0.5))


def _largest(error: np.ndarray) -> float:
    """Return the largest error in per cent, 0 if there is none."""
    return 100 * float(np.max(np.abs(error[np.isfinite(error)]), initial=0.0))


def _median(values: xr.DataArray, dim: str, *, missing: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the median over seeds along a dimension, with its interval; without seeds, the values themselves.

    Missing values count as infinite, or not at all.
    """
    rows = values.transpose(dim, ...).values.reshape(values.sizes[dim], -1)
    if rows.shape[1] == 1:
        return rows[:, 0], rows[:, 0], rows[:, 0]
    median, low, high = np.asarray([median_interval(row if missing else row[~np.isnan(row)]) for row in rows]).T
    return median, low, high


def _over_seeds(values: xr.DataArray) -> xr.DataArray:
    seeds = [dim for dim in values.dims if dim in SEEDS]
    return values.median(seeds) if seeds else values


def _draw_medians(axis: Axes, positions: np.ndarray, found: Any, style: str, *, color: str, **line: Any) -> None:
    """Draw medians with their intervals, as a band on a numeric axis and as bars at categories."""
    median, low, high = (_drawn(values) for values in found)
    axis.plot(positions, median, style, markersize=3 if "-" in style else 4, color=color, **line)
    if "-" in style:
        axis.fill_between(positions, low, high, color=color, alpha=0.18, linewidth=0)
    else:
        axis.vlines(positions, low, high, color=color, linewidth=1.5)
        axis.margins(x=0.2)


def _drawn(values: np.ndarray) -> np.ndarray:
    """Replace infinite values (never reached) by NaN, which leaves a gap."""
    return np.where(np.isfinite(values), values, np.nan)


def _positions(labels: np.ndarray) -> np.ndarray:
    return labels if is_numeric(labels) else np.arange(len(labels))


def _label_axis(axis: Axes, dim: str, labels: np.ndarray, positions: np.ndarray, *, vertical: bool = False) -> None:
    set_label, set_ticks = (axis.set_ylabel, axis.set_yticks) if vertical else (axis.set_xlabel, axis.set_xticks)
    set_label(
        {"rho": "ρ", "learning_rate": "learning rate η", "num_context": "context tokens N"}.get(
            dim, dim.replace("_", " ")
        )
    )
    if not is_numeric(labels):
        set_ticks(list(positions), [str(label) for label in labels])


def _named(shown: xr.Dataset, variable: str) -> str:
    name = NAMES[variable]
    if MEASURES[variable].dims and "feature" in shown.coords and shown.feature.ndim == 0:
        name = name.replace("t_d", f"t_{{{int(shown.feature)}}}")
    return name


def _log_where_wide(axis: Axes, values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
        axis.set_yscale("log")


def stacked_like(values: xr.DataArray, error: xr.DataArray) -> xr.DataArray:
    return values.stack(all=error.dims) if error.ndim else values.expand_dims("all")


def is_numeric(labels: np.ndarray) -> bool:
    return labels.dtype.kind in "iuf"


SEEDS = ("seed", "data_seed")


NAMES = {"learning_time": "learning time $t_d$", "learning_time_ratio": "$t_d / t_1$", "final_loss": "final loss"}
