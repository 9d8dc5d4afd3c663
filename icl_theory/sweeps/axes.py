"""The axes of a sweep: the values of each swept setting, from Python, TOML or a text such as `rho=0:0.1:21`."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from icl_theory.errors import InputError
from icl_theory.simulation.config import RunConfig, overridden

MOST_VALUES = 10**7
SPACINGS = ("log",)
DECIMALS = {"float64": (12, 1e-14), "float32": (5, 5e-7)}  # digits of a decimal, and the relative error of a grid
FIELDS = {field.name: field for field in dataclasses.fields(RunConfig) if field.name != "groups"}


class Axis(NamedTuple):
    """One dimension of a sweep.

    Attributes:
        name: The name of the dimension: a field of `RunConfig`, or `point` for a list of settings.
        settings: The fields that each index sets, one dictionary per index.
    """

    name: str
    settings: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.settings)

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field that some index sets."""
        return tuple(dict.fromkeys(name for setting in self.settings for name in setting))


def field_axis(name: str, values: Any) -> Axis:
    """Return an axis over the values of one field, each float as the `decimal` that it stands for.

    Raises:
        InputError: The field is unknown, there are no values or too many, or a value occurs twice.
    """
    name = known_field(name)
    try:
        values = [] if isinstance(values, (str, bytes)) else list(_from_array(values))
    except TypeError:
        values = []
    if not values:
        raise InputError(name, values, "give a list of values")
    if len(values) > MOST_VALUES:
        raise InputError(name, f"{len(values)} values", f"give at most {MOST_VALUES:,}")
    given = [_plain_value(name, value) for value in values]
    values = [_plain_value(name, value) for value in _decimals(values)]
    if len(set(values)) < len(set(given)):  # different values stay different
        values = given
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise InputError(name, label(value), "it stands twice on its axis")
        seen.add(value)
    return Axis(name, tuple({name: value} for value in values))


def point_axis(points: Any) -> Axis:
    """Return an axis `point` over a list of settings, each a dictionary of fields.

    Raises:
        InputError: There are no points, or one is not a dictionary, is empty or names an unknown field.
    """
    if not isinstance(points, (list, tuple)) or not points:
        raise InputError("points", points, "give a list of tables (dictionaries of fields)")
    settings = []
    for index, point in enumerate(points):
        if not isinstance(point, Mapping) or not point:
            raise InputError(f"points[{index}]", point, "give a table with at least one field")
        settings.append({known_field(name): _plain_value(name, decimal(value)) for name, value in point.items()})
    return Axis("point", tuple(settings))


def parse_axis(text: str) -> Axis:
    """Read an axis from `FIELD=VALUES`, as written on the command line.

    `0,0.05,0.1` and `gd,sam` are lists. `0:0.1:21` is 21 evenly spaced values from 0 to 0.1, both included.
    `1e-3:1e-1:5:log` is five values at equal ratios. `0:256` is the whole numbers from 0 to 255. If the values of a
    field are lists, semicolons separate them, as in `eigenvalues=2,1;3,1`.

    Examples:
        >>> [setting["rho"] for setting in parse_axis("rho=0:0.1:5").settings]
        [0.0, 0.025, 0.05, 0.075, 0.1]

    Raises:
        InputError: There is no `=`, the field is unknown, or the values cannot be read.
    """
    name, equals, values = text.partition("=")
    if not equals:
        raise InputError("axis", text, "write FIELD=VALUES, such as rho=0:0.1:21 or seed=0:256")
    return field_axis(known_field(name), parse_values(known_field(name), values))


def parse_values(name: str, text: str) -> list[Any]:
    """Read the values of an axis from the text after the `=`."""
    default: Any = FIELDS[name].default
    if isinstance(default, str):
        return [part.strip() for part in text.split(",")]
    if isinstance(default, tuple):
        return [tuple(_number(name, part) for part in entry.split(",")) for entry in text.split(";")]
    whole = isinstance(default, int)
    if ":" not in text:
        return [_number(name, part) for part in text.split(",")]
    parts = [part.strip() for part in text.split(":")]
    if len(parts) == 2 and whole:
        start, stop = (_number(name, part) for part in parts)
        if start != int(start) or stop != int(stop) or not 0 < stop - start <= MOST_VALUES:
            raise InputError(
                name, text, f"give whole numbers FIRST:END with END larger, at most {MOST_VALUES:,} values"
            )
        return list(range(int(start), int(stop)))
    if len(parts) not in (3, 4) or (len(parts) == 4 and parts[3] not in SPACINGS):
        remedy = "write FIRST:LAST:COUNT" + (" or FIRST:END" if whole else "") + ", or FIRST:LAST:COUNT:log"
        raise InputError(name, text, remedy)
    first, stop, count = (_number(name, part) for part in parts[:3])
    if count != int(count) or not 1 <= count <= MOST_VALUES:
        raise InputError(name, text, f"COUNT is a whole number from 1 to {MOST_VALUES:,}")
    if len(parts) == 4 and not (first > 0 and stop > 0):
        raise InputError(name, text, "equal ratios need positive ends")
    space = np.geomspace if len(parts) == 4 else np.linspace
    values = space(first, stop, int(count))
    return [round(value) for value in values] if whole else [decimal(value) for value in values]


def known_field(name: Any) -> str:
    """Return the name of a known field, with `-` replaced by `_`.

    Raises:
        InputError: There is no such field; the nearest one is named.
    """
    wanted = str(name).strip().replace("-", "_")
    if wanted in FIELDS:
        return wanted
    near = difflib.get_close_matches(wanted, FIELDS, n=1)
    raise InputError("axis", str(name), "unknown field" + (f"; did you mean {near[0]}?" if near else "; see --help"))


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(name, text, "is not a number") from None
    if not math.isfinite(value):
        raise InputError(name, text, "give finite numbers")
    return value


def _plain_value(name: str, value: Any) -> Any:
    """Convert numbers of arrays to Python's, lists to tuples, and numbers to int or float as the field requires."""
    value = _from_array(value)
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and not any(isinstance(entry, (list, tuple)) for entry in value):
        return tuple(_plain_value(name, entry) for entry in value)
    if not isinstance(value, (bool, int, float, str)):
        raise InputError(name, value, "give numbers or texts (or lists of numbers, for fields that are lists)")
    default = FIELDS[known_field(name)].default
    if isinstance(default, int) and isinstance(value, float) and value == value and abs(value) < 2**63:
        return int(value) if value == int(value) else value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    return value


def decimal(value: Any) -> Any:
    """Return the decimal that a float of a grid stands for; any other value is returned as it is.

    `np.linspace(0, 0.5, 6)` holds 0.30000000000000004, under which `.sel(rho=0.3)` would find nothing. A float that is
    farther from a short decimal than grids are by rounding, such as 1/3, stays as it is.

    Examples:
        >>> decimal(0.30000000000000004), decimal(np.float32(0.3)), decimal(1 / 3)
        (0.3, 0.3, 0.3333333333333333)
    """
    value = _from_array(value)
    if not isinstance(value, (float, np.floating)):
        return value
    digits, rounding = _digits_and_rounding(value)
    exact = float(str(value))  # the shortest decimal that gives this number in its own precision
    short = float(f"{exact:.{digits}g}")
    return short if abs(short - exact) <= rounding * abs(exact) else exact


def _decimals(values: list[Any]) -> list[Any]:
    """Return the `decimal` of each value, and zero for a value of evenly spaced ones that is zero but for rounding.

    The last value of `np.arange(0.5, -0.05, -0.1)` is 1.1102230246251565e-16. A short decimal such as 1e-16 stays.
    """
    found = [decimal(value) for value in values]
    if len(found) < 3 or not all(isinstance(value, float) and math.isfinite(value) for value in found):
        return found
    digits, rounding = _digits_and_rounding(_from_array(values[0]))
    error = rounding * np.abs(found).max()
    if np.ptp(np.diff(found)) > 2 * error:
        return found
    return [0.0 if abs(value) <= error and value != float(f"{value:.{digits}g}") else value for value in found]


def _digits_and_rounding(value: Any) -> tuple[int, float]:
    return DECIMALS.get(np.dtype(type(value)).name, (12, 0.0))


def _from_array(value: Any) -> Any:
    """Return an array of any library, or a number in one, as numpy's with the same dtype; else the value itself."""
    return np.asarray(value)[()] if hasattr(value, "__array__") else value


def label(value: Any) -> Any:
    """Return the label of a value on an axis; a list of numbers becomes a text such as `2,1`."""
    if isinstance(value, tuple):
        return ",".join(f"{entry:.12g}" if isinstance(entry, float) else str(entry) for entry in value)
    return value


def config_at(base: Mapping[str, Any], axes: Sequence[Axis], index: Sequence[int]) -> RunConfig:
    """Return the settings of the run at one index of each axis."""
    chosen: dict[str, Any] = {}
    for axis, i in zip(axes, index, strict=True):
        chosen |= axis.settings[i]
    return RunConfig.from_mapping(overridden(base, chosen))
