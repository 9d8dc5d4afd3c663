"""What a sweep is: settings that all runs share, and axes over the others."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from icl_theory.config import RunConfig, basis_and_mixture, overridden, read_toml
from icl_theory.errors import InputError, check_choice
from icl_theory.simulate import check_memory
from icl_theory.store import plain
from icl_theory.sweeps.axes import FIELDS, Axis, field_axis, known_field, parse_values, point_axis
from icl_theory.sweeps.batch import reduced_kind
from icl_theory.sweeps.measures import Variable, variables_of
from icl_theory.sweeps.structure import data_numbers, identity, numbers_of, structure_of

SYSTEMS = ("auto", "full", "reduced")
MOST_RUNS = 10**8
ALWAYS_TRACED = ("rho", "learning_rate", "init_scale", "seed", "noise_std", "exponent", "eigenvalue_ratio")
SWEEP_KEYS = ("grid", "points", "system", "curves")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Build with `Sweep.create` or `Sweep.from_toml`, which check every value on every axis.

    Attributes:
        base: settings as in a TOML file of `simulate`, groups included.
        axes: the dimensions, outermost first.
        system: `"full"` trains the full model, `"reduced"` the reduced system of the theory, `"auto"` the full model
            and, where there is one, the reduced system beside it.
        curves: keep losses and strengths of all snapshots.
        facts: what was found out about each axis while checking.
    """

    base: Mapping[str, Any]
    axes: tuple[Axis, ...]
    system: str = "auto"
    curves: bool = False
    facts: tuple[AxisFacts, ...] = dataclasses.field(default=(), compare=False, repr=False)

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
        """Check and build.

        Args:
            base: settings shared by all runs, a dictionary or a `RunConfig`; others have their defaults.
            grid: values by field, the product of all; texts such as `"0:0.1:21"` as on the command line.
            points: a list of settings instead, or as one more (the outermost) dimension.
            system, curves: see the attributes.

        Raises:
            InputError: what `RunConfig` refuses at any point; an axis without effect; two axes for one field.
        """
        check_choice("system", system, SYSTEMS)
        if not isinstance(curves, bool):
            raise InputError("curves", curves, "give true or false")
        if isinstance(base, RunConfig):
            base = _as_mapping(base)
        axes: tuple[Axis, ...] = () if points is None else (point_axis(points),)
        if isinstance(grid, Mapping):
            for name, values in grid.items():
                name = known_field(name)
                axes += (field_axis(name, parse_values(name, values) if isinstance(values, str) else values),)
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
        sweep = cls(dict(base or {}), axes, system, curves)
        if sweep.num_runs > MOST_RUNS:
            raise InputError("grid", f"{sweep.num_runs:,} runs", f"give at most {MOST_RUNS:,}")
        return dataclasses.replace(sweep, facts=tuple(_facts(sweep)))

    @classmethod
    def from_toml(
        cls, path: Path | str, *, base: Mapping[str, Any] | None = None, grid: Sequence[Axis] = (), **more: Any
    ) -> Sweep:
        """From a file of settings with a `[grid]` table, `[[points]]` tables, `system` and `curves`; what is given wins.

        Raises:
            InputError: what `create` and `read_toml` refuse.
        """
        values = read_toml(path)
        own = {name: values.pop(name) for name in SWEEP_KEYS if name in values}
        table = own.get("grid", {})
        if not isinstance(table, dict):
            raise InputError("grid", table, "write a [grid] table with a line for each axis")
        kept = cls._axes_of(table, {axis.name for axis in grid})
        settings = {name: own[name] for name in ("points", "system", "curves") if name in own}
        return cls.create(overridden(values, base or {}), grid=(*kept, *grid), **(settings | more))

    @staticmethod
    def _axes_of(table: Mapping[str, Any], replaced: set[str]) -> tuple[Axis, ...]:
        parsed = []
        for name, values in table.items():
            name = known_field(name)
            if name not in replaced:
                parsed.append(field_axis(name, parse_values(name, values) if isinstance(values, str) else values))
        return tuple(parsed)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def num_runs(self) -> int:
        """Product of the lengths."""
        return int(np.prod(self.shape, dtype=object))

    def config(self, index: Sequence[int]) -> RunConfig:
        """The settings of the run at one index of each axis."""
        chosen: dict[str, Any] = {}
        for axis, i in zip(self.axes, index, strict=True):
            chosen |= axis.settings[i]
        return RunConfig.from_mapping(overridden(self.base, chosen))

    @property
    def coordinates(self) -> dict[str, tuple[str, list[Any]]]:
        """Labels by name, with the dimension along which they lie; those named like a dimension are its index."""
        found: dict[str, tuple[str, list[Any]]] = {}
        for axis in self.axes:
            if axis.name == "point":
                found["point"] = ("point", list(range(len(axis))))
            for name in axis.fields:
                otherwise = self.base.get(name, FIELDS[name].default)
                found[name] = (
                    axis.name,
                    axis.labels(name, tuple(otherwise) if isinstance(otherwise, list) else otherwise),
                )
        return found

    @property
    def full(self) -> bool:
        """Whether the full model is trained."""
        return self.system != "reduced"

    @property
    def theory(self) -> bool:
        """Whether the reduced system is, for some of the runs at least."""
        return self.system != "full" and any(fact.has_theory for fact in self.facts)

    @property
    def variables(self) -> dict[str, Variable]:
        """What is stored of each run."""
        return variables_of(full=self.full, reduced=self.theory, curves=self.curves)

    @property
    def description(self) -> dict[str, Any]:
        """What makes it this sweep, as JSON: settings of its first run with their defaults, axes, system, curves."""
        return plain(
            {
                "settings": self.config([0] * len(self.axes)),
                "axes": [axis.name for axis in self.axes],
                "values": {axis.name: list(axis.settings) for axis in self.axes},
                "system": self.system,
                "curves": self.curves,
            }
        )


@dataclasses.dataclass(frozen=True)
class AxisFacts:
    """What varies along an axis.

    Attributes:
        classes: which indices may run as one program, a number for each index.
        data: whether the data depend on it.
        has_theory: whether some index has a reduced system.
        configs: one config of each structure that was seen.
    """

    classes: tuple[int, ...]
    data: bool
    has_theory: bool
    configs: tuple[RunConfig, ...] = dataclasses.field(repr=False)

    @cached_property
    def counts(self) -> Counter[int]:
        """How many indices each class has."""
        return Counter(self.classes)


def _facts(sweep: Sweep) -> Iterator[AxisFacts]:
    """Go along every axis, for each combination of the axes of texts and points, and check every config."""
    chosen = [_is_categorical(axis) for axis in sweep.axes]
    for position, axis in enumerate(sweep.axes):
        others = [range(len(a)) if chosen[i] and i != position else (0,) for i, a in enumerate(sweep.axes)]
        checked = _to_check(axis)
        keys: list[list[Any]] = [[] for _ in checked]
        effect, data, theory = len(axis) == 1, False, False
        structures: dict[RunConfig, RunConfig] = {}
        for combination in itertools.product(*others):
            seen, drawn = set(), set()
            for place, i in enumerate(checked):
                index = list(combination)
                index[position] = i
                config = sweep.config(index)
                structure, numbers = structure_of(config), numbers_of(config)
                if structure not in structures or _always_built(axis):
                    structures.setdefault(structure, config)
                    _check_config(config, sweep.system)
                theory |= reduced_kind(structure) is not None
                keys[place].append((structure, config.num_steps, config.num_snapshots))
                seen.add(identity(config))
                drawn.add((structure, str(data_numbers(numbers))))
            effect |= len(seen) > 1
            data |= len(drawn) > len({structure for structure, _ in drawn})
        if not effect:
            raise InputError(axis.name, f"{len(axis)} values", _without_effect(axis, sweep))
        numbered: dict[Any, int] = {}
        classes = tuple(numbered.setdefault(tuple(key), len(numbered)) for key in keys)
        if len(checked) < len(axis):
            classes = (0,) * len(axis)
        yield AxisFacts(classes, data, theory, tuple(structures.values()))


def _to_check(axis: Axis) -> list[int]:
    """All indices; of a long axis of plain numbers, whose structure is one and whose bounds are an interval, a few."""
    if axis.name in ALWAYS_TRACED:
        values = [setting[axis.name] for setting in axis.settings]
        if all(type(value) is type(FIELDS[axis.name].default) for value in values):
            return sorted({0, min(1, len(axis) - 1), int(np.argmin(values)), int(np.argmax(values))})
    return list(range(len(axis)))


def _is_categorical(axis: Axis) -> bool:
    return axis.name == "point" or isinstance(FIELDS[axis.name].default, str)


def _always_built(axis: Axis) -> bool:
    """Lists of eigenvalues are checked only where they are used."""
    return any(isinstance(FIELDS[name].default, tuple) for name in axis.fields)


def _check_config(config: RunConfig, system: str) -> None:
    """What only shows when a config is used: spectra, and whether there is a theory where one is asked for."""
    check_memory(config)
    _, mixture = basis_and_mixture(config)
    fixed = any(group.fixed_task_share for _, group in config.groups or ((1.0, config),))
    if config.init == "aligned" and fixed and mixture.dim > 1:
        raise InputError("init", "aligned", "a fixed task shares no eigenbasis with the inputs; use random")
    if system == "reduced" and reduced_kind(config) is None:
        remedy = "the reduced system stands for aligned heads (init = aligned; gd, sam) and merged heads under gd"
        raise InputError("system", "reduced", f"{remedy}, on infinite data; use another or system = full")


def _without_effect(axis: Axis, sweep: Sweep) -> str:
    config = sweep.config([0] * len(sweep.axes))
    facts = f"optimizer = {config.optimizer}, spectrum = {config.spectrum}, data = {config.data}, init = {config.init}"
    return f"it changes nothing with {facts}; leave it out or change those"


def _as_mapping(config: RunConfig) -> dict[str, Any]:
    """What `RunConfig.from_mapping` takes."""
    values = {name: getattr(config, name) for name in FIELDS}
    if config.groups:
        values["groups"] = [{"share": share} | dataclasses.asdict(group) for share, group in config.groups]
    if not config.eigenvalues:
        del values["eigenvalues"]
    return values
