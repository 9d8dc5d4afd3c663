"""Readings of the generalisation data: changes against gradient descent, over all seeds of the selected cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from icl_theory.verification.changes import Change, log_change, median_change

ARMS = ("gd", "sam", "late", "two-phase", "residual", "random", "early", "fresh late", "fresh random", "fresh early")
MIXTURES = ("one group", "two groups")
TESTS = ("training", "white", "reversed", "short", "long")
FEW, MANY = (100, 300), (1000, 5000)  # numbers of prompts
HALF_WAY = 0.5  # the level of the training loss


def only(values: xr.DataArray, **labels: Any) -> xr.DataArray:
    """Select by one or several labels of each name; a name is a dimension or a property of cases.

    Examples:
        >>> import xarray as xr
        >>> loss = xr.DataArray([[1.0, 2.0], [3.0, 4.0]], dims=("case", "seed"))
        >>> only(loss.assign_coords(num_prompts=("case", [100, 300]), seed=[0, 1]), num_prompts=300, seed=1).item()
        4.0
    """
    for name, wanted in labels.items():
        values = values.sel({name: wanted}) if name in values.dims else values.isel(case=np.isin(values[name], wanted))
    return values


def pooled(changes: xr.DataArray, arm: str, test: str = "training", **labels: Any) -> Change:
    """Return the median over the seeds of all selected cases together.

    Args:
        changes: one of the variables `…_change`.
        arm: name of the arm.
        test: name of the held-out test.
        labels: `mixture`, `num_prompts` or `noise_std` of the cases, as for `only`; none for all cases.
    """
    return median_change(only(changes, arm=arm, test=test, **labels))


def each_case(changes: xr.DataArray, arm: str, **labels: Any) -> list[Change]:
    """Return the median over the seeds of each selected case, on the training distribution."""
    return [median_change(values) for values in only(changes, arm=arm, test="training", **labels)]


def between(changes: xr.DataArray, arm: str, other: str, **labels: Any) -> Change:
    """Return the difference of two arms in their changes on the training distribution, paired by seed."""
    chosen = only(changes, test="training", **labels)
    with np.errstate(invalid="ignore"):
        return median_change(chosen.sel(arm=arm).values - chosen.sel(arm=other).values)


def ratio_changes(
    data: xr.Dataset, arms: Sequence[str], features: Sequence[int] = (2, 3), **labels: Any
) -> list[Change]:
    """Return the changes of ln(t_d/t_1) against gradient descent over the selected cases, for each arm and feature."""
    ratios = only(data.learning_time_ratio, **labels)
    return [
        log_change(ratios.sel(arm=arm, feature=feature), ratios.sel(arm="gd", feature=feature))
        for arm in arms
        for feature in features
    ]


def half_way(data: xr.Dataset) -> xr.DataArray:
    """Return the changes at equal training loss, when it has fallen half-way to its lowest value."""
    return data.matched_change.sel(level=HALF_WAY)
