"""Comparison of measurements and predictions over a sweep, as figures and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from icl_theory.errors import InputError
from icl_theory.simulation.prediction import PREDICTABLE
from icl_theory.sweeps.comparison_figures import (
    ROUNDING,
    SEEDS,
    draw_curves,
    draw_maps,
    draw_points,
    is_numeric,
    stacked_like,
)
from icl_theory.sweeps.measures import PREDICTED


def draw_comparison(
    data: xr.Dataset,
    variable: str = "learning_time_ratio",
    *,
    feature: int | None = None,
    across: str | None = None,
    select: Mapping[str, Any] | None = None,
) -> tuple[Figure, xr.Dataset]:
    """Draw curves over one swept setting, maps over two, or points if only seeds differ.

    Args:
        data: The data set of a sweep (`open_sweep`), with predictions.
        variable: `learning_time`, `learning_time_ratio` or `final_loss`.
        feature: Number of the feature, 1 for the simplest. The default is all in curves and the second in maps.
        across: The setting on the horizontal axis. The default is the longest.
        select: One value for each setting that is held fixed.

    Returns:
        The figure, and the measured values, predictions and errors that it shows.

    Raises:
        InputError: There are no predictions or no runs yet, settings or values are unknown, or more than two settings
            are left to draw.
    """
    names = [variable, PREDICTED + variable, f"{variable}_error"]
    if any(name not in data for name in names):
        remedy = f"the sweep holds no measurement beside a prediction; with system = auto these do: {PREDICTABLE}"
        raise InputError("variable", variable, remedy)
    shown = _selected(data[names], select or {})
    try:
        shown = shown.load()
    except Exception as error:
        remedy = f"a chunk is damaged ({type(error).__name__}); run the same sweep again, it runs what is damaged"
        raise InputError("folder", str(data.encoding.get("source", "")), remedy) from error
    shown = _features(shown, variable, feature)
    if not np.any(np.isfinite(shown[names[0]].values) & np.isfinite(shown[names[1]].values)):
        raise InputError("variable", variable, "no run has a measurement beside a prediction yet, or none learned")
    swept = [str(dim) for dim in shown[variable].dims if dim not in ("feature", *SEEDS)]
    swept.sort(key=lambda dim: -shown.sizes[dim])
    if across is not None:
        if across not in swept:
            raise InputError("x", across, "give one of " + (", ".join(swept) or "none: only seeds differ"))
        swept.sort(key=lambda dim: dim != across)
    if len(swept) > 2:
        raise InputError(
            "select", ", ".join(swept), f"choose one value of {len(swept) - 2} of them, --select FIELD=VALUE"
        )
    if len(swept) == 2 and "feature" in shown.dims:
        chosen = 2 if variable == "learning_time_ratio" or shown.sizes["feature"] > 1 else 1
        shown = shown.sel(feature=chosen if chosen in shown.feature else int(shown.feature[0]))
    draw = (draw_points, draw_curves, draw_maps)[len(swept)]
    return draw(shown, variable, swept), shown


def summary_of(shown: xr.Dataset, variable: str) -> list[str]:
    """Return lines of text with the median and the largest error, and the counts of values that are never reached."""
    error = shown[f"{variable}_error"]
    flat = error.stack(all=error.dims) if error.ndim else error.expand_dims("all")
    values = np.asarray(flat)
    finite = np.isfinite(values) & np.isfinite(np.asarray(stacked_like(shown[variable], error)))
    lines = []
    if finite.any():
        worst = int(np.nanargmax(np.where(finite, np.abs(values), np.nan)))
        labels = {str(d): flat[d].values[worst] for d in error.dims} if error.ndim else {}
        place = ", ".join(
            f"{name} = {value:g}" if _is_number(value) else f"{name} = {value}" for name, value in labels.items()
        )
        lines.append(f"{variable}: measured against predicted, median |error| {np.median(np.abs(values[finite])):.2g}")
        if abs(values[worst]) < ROUNDING:
            lines.append("measured and predicted agree to rounding")
        else:
            lines.append(f"largest |error| {abs(values[worst]):.2g}" + (f" at {place}" if place else ""))
    measured, predicted = (np.asarray(stacked_like(shown[name], error)) for name in (variable, PREDICTED + variable))
    both = np.isposinf(measured) & np.isposinf(predicted)
    one = np.isposinf(measured) ^ np.isposinf(predicted)
    missing = np.isnan(measured) | np.isnan(predicted)
    if both.any() or one.any() or missing.any():
        lines.append(
            f"never reached: {both.sum()} by both, {one.sum()} by one of the two; {missing.sum()} without a value"
        )
    return lines


def _selected(data: xr.Dataset, select: Mapping[str, Any]) -> xr.Dataset:
    for name, wanted in select.items():
        if name not in data.dims or name == "feature":
            dims = ", ".join(str(dim) for dim in data.dims if dim != "feature")
            raise InputError("select", name, f"it is not swept; give one of {dims}")
        labels = data[name].values
        if is_numeric(labels):
            try:
                found = np.flatnonzero(np.isclose(labels.astype(float), float(wanted), rtol=1e-9, atol=0.0))
            except (TypeError, ValueError):
                found = np.zeros(0, int)
        else:
            found = np.flatnonzero(labels == str(wanted))
        if not found.size:
            shown = ", ".join(f"{label:g}" if _is_number(label) else str(label) for label in labels[:8])
            raise InputError(
                "select",
                f"{name}={wanted}",
                f"it is not on that axis, which has {shown}{', ...' if len(labels) > 8 else ''}",
            )
        data = data.isel({name: int(found[0])})
    single = [dim for dim in data.dims if dim != "feature" and data.sizes[dim] == 1]
    return data.isel({dim: 0 for dim in single})


def _features(shown: xr.Dataset, variable: str, feature: int | None) -> xr.Dataset:
    """Select the features to draw: the one asked for, or all (without the first for ratios, where it is always 1)."""
    if "feature" not in shown[variable].dims:
        if feature is not None:
            raise InputError("feature", feature, f"{variable} has no features; leave it out")
        return shown
    if feature is not None:
        if feature not in shown.feature:
            raise InputError("feature", feature, f"give 1 to {shown.sizes['feature']}")
        return shown.sel(feature=[feature])
    return (
        shown.isel(feature=slice(1, None))
        if variable == "learning_time_ratio" and shown.sizes["feature"] > 1
        else shown
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating))
