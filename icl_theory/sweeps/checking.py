"""Checks of every value of a sweep before the first run, and of what varies along each axis."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from icl_theory.errors import InputError
from icl_theory.simulation.build import basis_and_mixture, has_fixed_task
from icl_theory.simulation.config import RunConfig
from icl_theory.simulation.prediction import PREDICTABLE, theory_of
from icl_theory.simulation.simulate import check_memory
from icl_theory.sweeps.axes import FIELDS, Axis, config_at
from icl_theory.sweeps.structure import data_numbers, identity, numbers_of, structure_of

# Traced in every run, and valid in an interval: on a long axis it is enough to check a few values.
ALWAYS_TRACED = ("rho", "learning_rate", "init_scale", "seed", "noise_std", "exponent", "eigenvalue_ratio")


class AxisFacts(NamedTuple):
    """Runs along an axis, grouped by whether one program can run them.

    Attributes:
        classes: A class number for each index. Indices of one class may run as one program.
        counts: The number of indices in each class.
        data: Whether the data vary along the axis within a class.
    """

    classes: tuple[int, ...]
    counts: Counter[int]
    data: bool


class Facts(NamedTuple):
    """Findings of the check.

    Attributes:
        axes: The facts of each axis.
        corners: One config for each combination of classes.
    """

    axes: tuple[AxisFacts, ...]
    corners: tuple[RunConfig, ...]

    @property
    def has_theory(self) -> bool:
        """True if some run may have a theory."""
        return any(theory_of(structure_of(config)) is not None for config in self.corners)


def find_facts(base: Mapping[str, Any], axes: Sequence[Axis], system: str) -> Facts:
    """Check every axis, then every combination of classes, and return the findings.

    Raises:
        InputError: A value or a combination cannot be run, or an axis changes nothing.
    """
    classes = [_classes(base, axes, system, position) for position in range(len(axes))]
    members: list[dict[int, list[int]]] = []  # the first two indices of each class
    for numbers in classes:
        found: dict[int, list[int]] = {}
        for index, number in enumerate(numbers):
            if len(found.setdefault(number, [])) < 2:
                found[number].append(index)
        members.append(found)
    effect, data = [len(axis) == 1 for axis in axes], [False] * len(axes)
    corners, built = [], set[RunConfig]()
    lists = any(_has_lists(axis) for axis in axes)
    for chosen in itertools.product(*members):
        corner = [found[number][0] for found, number in zip(members, chosen, strict=True)]
        config = config_at(base, axes, corner)
        structure = structure_of(config)
        check_memory(config)
        if lists or structure not in built:
            _check_built(config, system)
            built.add(structure)
        corners.append(config)
        here, drawn = identity(config), str(data_numbers(numbers_of(config)))
        for position, found in enumerate(members):
            for number, indices in found.items():
                for index in indices if number == chosen[position] else indices[:1]:
                    if index == corner[position] or (
                        effect[position] and (data[position] or number != chosen[position])
                    ):
                        continue
                    other = config_at(base, axes, [*corner[:position], index, *corner[position + 1 :]])
                    effect[position] |= identity(other) != here
                    if number == chosen[position]:
                        data[position] |= str(data_numbers(numbers_of(other))) != drawn
    for axis, matters in zip(axes, effect, strict=True):
        if not matters:
            raise InputError(axis.name, f"{len(axis)} values", _without_effect(corners[0]))
    return Facts(tuple(AxisFacts(c, Counter(c), d) for c, d in zip(classes, data, strict=True)), tuple(corners))


def _classes(base: Mapping[str, Any], axes: Sequence[Axis], system: str, position: int) -> tuple[int, ...]:
    """Return a class number for each index of an axis; a class may run as one program, whatever the other axes."""
    axis = axes[position]
    others = [range(len(other)) if _is_categorical(other) and i != position else (0,) for i, other in enumerate(axes)]
    checked = _to_check(axis)
    keys: list[list[Any]] = [[] for _ in checked]
    for combination in itertools.product(*others):
        for place, i in enumerate(checked):
            config = config_at(base, axes, [*combination[:position], i, *combination[position + 1 :]])
            if _has_lists(axis):
                _check_built(config, system)
            follows_seed = config.data_seed < 0  # whether the data depend on another axis, that of the seed
            keys[place].append((structure_of(config), config.num_steps, config.num_snapshots, follows_seed))
    if len(checked) < len(axis):
        return (0,) * len(axis)
    numbered: dict[Any, int] = {}
    return tuple(numbered.setdefault(tuple(key), len(numbered)) for key in keys)


def _to_check(axis: Axis) -> list[int]:
    """Return the indices to check: all, or for a traced number the first two, the smallest and the largest value."""
    if axis.name in ALWAYS_TRACED:
        values = [setting[axis.name] for setting in axis.settings]
        if all(type(value) is type(FIELDS[axis.name].default) for value in values):
            return sorted({0, min(1, len(axis) - 1), int(np.argmin(values)), int(np.argmax(values))})
    return list(range(len(axis)))


def _is_categorical(axis: Axis) -> bool:
    return axis.name == "point" or isinstance(FIELDS[axis.name].default, str)


def _has_lists(axis: Axis) -> bool:
    """Return True if the axis sets lists of numbers, such as eigenvalues, which are only checked when they are used."""
    return any(isinstance(FIELDS[name].default, tuple) for name in axis.fields)


def _check_built(config: RunConfig, system: str) -> None:
    """Check a config by building its mixture, and check that it has a theory if only that is to be trained."""
    _, mixture = basis_and_mixture(config)
    if config.init == "aligned" and has_fixed_task(config) and mixture.dim > 1:
        raise InputError("init", "aligned", "a fixed task shares no eigenbasis with the inputs; use random")
    if system == "reduced" and theory_of(config) is None:
        remedy = f"this run has no theory of the whole curve, only these have: {PREDICTABLE}; or take system = full"
        raise InputError("system", "reduced", remedy)


def _without_effect(config: RunConfig) -> str:
    facts = f"optimizer = {config.optimizer}, spectrum = {config.spectrum}, data = {config.data}, init = {config.init}"
    return f"it changes nothing with {facts}; leave it out or change those"
