"""The specification of a sweep: the settings that all runs share, and axes over the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icl_theory.errors import InputError, check_choice
from icl_theory.results import plain
from icl_theory.simulation.config import RunConfig, overridden, read_toml
from icl_theory.sweeps import SYSTEMS
from icl_theory.sweeps.axes import FIELDS, Axis, config_at, field_axis, known_field, label, parse_values, point_axis
from icl_theory.sweeps.checking import Facts, find_facts
from icl_theory.sweeps.measures import Variable, variables_of

MOST_RUNS = 10**8
SWEEP_KEYS = ("grid", "points", "system", "curves")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Specification of a sweep; build it with `Sweep.create` or `Sweep.from_toml`, which check every value.

    Attributes:
        base: The shared settings, as in a TOML file of `simulate`, groups included.
        axes: The dimensions, outermost first.
        system: What to train: `"full"` the full model, `"reduced"` the theory alone, `"auto"` the full model
            and, where there is one, the theory too.
        curves: Whether to keep losses and strengths of all snapshots.
        facts: The findings of the check.
    """

    base: Mapping[str, Any]
    axes: tuple[Axis, ...]
    system: str = "auto"
    curves: bool = False
    facts: Facts = dataclasses.field(default=Facts((), ()), compare=False, repr=False)

    @classmethod
    def create(
        cls,
        base: Mapping[str, Any] | RunConfig | None = None,
        *,
        grid: Mapping[str, Any] | Sequence[Axis] = (),
        points: Any = None,
        system: str = "auto",
        curves: Any = False,
    ) -> Sweep:
        """Check the settings and build the sweep.

        Args:
            base: Settings shared by all runs, a dictionary or a `RunConfig`. Others have their defaults.
            grid: Values of each swept field, combined as a product. Texts such as `"0:0.1:21"` are read too.
            points: A list of settings, instead of a grid or as one more (the outermost) dimension.
            system: What to train, as in the attribute.
            curves: Whether to keep all snapshots, as in the attribute.

        Raises:
            InputError: `RunConfig` refuses a combination, an axis has no effect, or two axes set one field.
        """
        check_choice("system", system, SYSTEMS)
        if not isinstance(curves, bool):
            raise InputError("curves", curves, "give true or false")
        axes: tuple[Axis, ...] = () if points is None else (point_axis(points),)
        if isinstance(grid, Mapping):
            axes += tuple(_axis(name, values) for name, values in grid.items())
        else:
            axes += tuple(grid)
        if not axes:
            raise InputError("grid", "{}", "give at least one axis, such as rho=0:0.1:21")
        names = [name for axis in axes for name in axis.fields]
        for name in names:
            if names.count(name) > 1:
                raise InputError(name, "two axes", "a field can be on one axis only")
        if curves and {"num_steps", "num_snapshots"} & set(names):
            raise InputError("curves", True, "they need one schedule; take num_steps and num_snapshots off the axes")
        base = _without(_as_mapping(base), names) if isinstance(base, RunConfig) else dict(base or {})
        for axis in axes:
            if axis.name in base:
                raise InputError(axis.name, base[axis.name], "it is on an axis too; leave out one of the two")
        sweep = cls(base, axes, system, curves)
        if sweep.num_runs > MOST_RUNS:
            raise InputError("grid", f"{sweep.num_runs:,} runs", f"give at most {MOST_RUNS:,}")
        return dataclasses.replace(sweep, facts=find_facts(sweep.base, sweep.axes, sweep.system))

    @classmethod
    def from_toml(
        cls, path: Path | str, *, base: Mapping[str, Any] | None = None, grid: Sequence[Axis] = (), **more: Any
    ) -> Sweep:
        """Build a sweep from a file of settings with a `[grid]` table, `[[points]]` tables, `system` and `curves`.

        Arguments win over the file: a setting replaces an axis of the file, and an axis replaces a setting.

        Raises:
            InputError: `create` or `read_toml` refuses its input.
        """
        values = read_toml(path)
        own = {name: values.pop(name) for name in SWEEP_KEYS if name in values}
        table = own.get("grid", {})
        if not isinstance(table, dict):
            raise InputError("grid", table, "write a [grid] table with a line for each axis")
        given, axes = dict(base or {}), {axis.name for axis in grid}
        kept = [_axis(name, entry) for name, entry in table.items() if known_field(name) not in axes | given.keys()]
        settings = {name: own[name] for name in ("points", "system", "curves") if name in own}
        return cls.create(overridden(_without(values, axes), given), grid=(*kept, *grid), **(settings | more))

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def num_runs(self) -> int:
        """The number of runs, the product of the axes' lengths."""
        return int(np.prod(self.shape, dtype=object))

    def config(self, index: Sequence[int]) -> RunConfig:
        """Return the settings of the run at one index of each axis."""
        return config_at(self.base, self.axes, index)

    @property
    def coordinates(self) -> dict[str, tuple[str, list[Any]]]:
        """The dimension and labels of each coordinate, by name; one with the name of its dimension is the index."""
        found: dict[str, tuple[str, list[Any]]] = {}
        for axis in self.axes:
            if axis.name == "point":
                found["point"] = ("point", list(range(len(axis))))
                alone = [self.config([i if other is axis else 0 for other in self.axes]) for i in range(len(axis))]
                found |= {name: ("point", [label(getattr(run, name)) for run in alone]) for name in axis.fields}
            else:
                found[axis.name] = (axis.name, [label(setting[axis.name]) for setting in axis.settings])
        return found

    @property
    def full(self) -> bool:
        """True if the full model is trained."""
        return self.system != "reduced"

    @property
    def theory(self) -> bool:
        """True if theory predicts some of the runs."""
        return self.system != "full" and self.facts.has_theory

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables that are stored for each run."""
        return variables_of(full=self.full, reduced=self.theory, curves=self.curves)

    @property
    def description(self) -> dict[str, Any]:
        """Identity of the sweep as JSON: settings, axes, system and curves, and all settings of its first run."""
        return plain(
            {
                "settings": self.config([0] * len(self.axes)),
                "base": self.base,
                "axes": [axis.name for axis in self.axes],
                "values": {axis.name: list(axis.settings) for axis in self.axes},
                "system": self.system,
                "curves": self.curves,
            }
        )


def _axis(name: str, values: Any) -> Axis:
    name = known_field(name)
    return field_axis(name, parse_values(name, values) if isinstance(values, str) else values)


def _without(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in set(names)}


def _as_mapping(config: RunConfig) -> dict[str, Any]:
    """Return the settings as `RunConfig.from_mapping` takes them."""
    values = {name: getattr(config, name) for name in FIELDS}
    if config.groups:
        values["groups"] = [{"share": share} | dataclasses.asdict(group) for share, group in config.groups]
    if not config.eigenvalues:
        del values["eigenvalues"]
    return values
