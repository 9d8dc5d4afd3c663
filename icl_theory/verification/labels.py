"""Labelled data sets with dimension names, and the meaning and unit of every variable."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from icl_theory.analysis.simplicity_bias import SimplicityBias

TIME = "learning rate × steps"
LOSS = "mean square error, no ½"
SHARE = "share of the optimum"
UNITS = {  # unit by the end of a variable's name; all others are dimensionless
    "time": TIME,
    "times": TIME,
    "loss": LOSS,
    "losses": LOSS,
    "level": LOSS,
    "strength": SHARE,
}
MEANING = {  # descriptions of the measures of simplicity bias
    "learning_time": "time at which a feature reaches half of its optimum; infinite for never",
    "learning_order": "features in the order in which they are learned, 0 for the simplest",
    "learning_time_ratio": "t_d / t_1",
    "progress": "w_d / w_d* when the first feature of all is learned",
    "rank_agreement": "Kendall's τ of learning order and order of drives, 1 for simplest first",
}
BIAS = dict(zip(SimplicityBias._fields, MEANING, strict=True))  # field of `SimplicityBias` -> variable


def variable(dims: str, values: Any, meaning: str, units: str = "") -> tuple[Any, ...]:
    """Return dimensions, values and attributes of a variable for `xarray.Dataset`; `dims` are separated by spaces."""
    values = np.asarray(values)
    return tuple(dims.split()), values, {"long_name": meaning} | ({"units": units} if units else {})


def bias_variables(bias: SimplicityBias, dims: str, prefix: str = "") -> dict[str, tuple[Any, ...]]:
    """Return the measures of simplicity bias as variables; `dims` are all dimensions except the feature's."""
    found = {}
    for field, name in BIAS.items():
        along = dims if field == "rank_agreement" else f"{dims} feature"
        found[f"{prefix}{name}"] = variable(along, getattr(bias, field), MEANING[name])
    return found


def dataset(variables: Mapping[Any, Any], known: Mapping[Any, Any] | None = None, **coordinates: Any) -> xr.Dataset:
    """Return variables as one data set with units; features are numbered from 1, the simplest.

    Args:
        variables: variables made by `variable`, or those of another data set.
        known: coordinates of another data set to include.
        coordinates: labels along each dimension by name; other coordinates are tuples as from `variable`.
    """
    data = xr.Dataset(dict(variables), coords={**(known or {}), **coordinates})
    if "feature" in data.sizes and "feature" not in data.coords:
        data = data.assign_coords(feature=np.arange(1, data.sizes["feature"] + 1))
    for name in data.variables:
        data[name].attrs.setdefault("units", unit_of(name))
    return data


def unit_of(name: Hashable) -> str:
    """Return the unit of a variable, which the end of its name determines; "1" for a dimensionless one."""
    return UNITS.get(str(name).rsplit("_", 1)[-1], "1")
