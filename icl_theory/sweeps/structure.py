"""Configs split into a structure, for which a program is compiled, and numbers, which are traced.

Configs of one structure run as one program. Settings that do not matter to a run (ρ under gradient descent, the number
of prompts under infinite data) are in neither part, so two configs with equal parts and schedules are the same run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from icl_theory.simulation.build import data_seed, has_fixed_task, hyperparameters
from icl_theory.simulation.config import GroupConfig, RunConfig

SPECTRUM_NUMBERS = {"given": "eigenvalues", "power-law": "exponent", "geometric": "eigenvalue_ratio"}

Numbers = dict[str, Any]


def structure_of(config: RunConfig) -> RunConfig:
    """Return the structure for which a program is compiled: the config with placeholders for its numbers."""
    groups = config.mixture
    return RunConfig(
        dim=config.dim,
        basis=config.basis,
        groups=tuple((1.0 / len(groups), _group_structure(group, config)) for _, group in groups),
        data=config.data,
        num_prompts=config.num_prompts if config.data == "prompts" else 1,
        engine="prompts" if uses_prompts(config) else "auto",
        model=config.model,
        num_heads=config.dim if config.init == "aligned" else config.num_heads,
        rank=config.rank,
        blocks=config.blocks,
        scores=config.scores,
        normalisation=config.normalisation,
        init=config.init,
        optimizer=config.optimizer,
        dtype=config.dtype,
    )


def numbers_of(config: RunConfig) -> Numbers:
    """Return the traced numbers of a config.

    They are `groups`, one dictionary with a `share` for each group, and those of `init_scale`, `learning_rate`, `rho`,
    `seed`, `data_seed` and `upsampling_factor` that matter. The schedule (steps, snapshots, threshold) is not included.
    """
    groups = config.mixture
    numbers: Numbers = {"groups": tuple({"share": share} | _group_numbers(group, config) for share, group in groups)}
    numbers |= {"init_scale": config.init_scale} | hyperparameters(config)
    if config.init != "aligned":
        numbers["seed"] = np.uint32(config.seed)
    if config.basis == "random" or config.data == "prompts" or has_fixed_task(config):
        numbers["data_seed"] = np.uint32(data_seed(config))
    if len(groups) > 1:
        numbers["upsampling_factor"] = config.upsampling_factor
    return numbers


def join_config(structure: RunConfig, numbers: Numbers) -> RunConfig:
    """Rebuild a config from its structure and numbers, unchecked since these may be traced and were checked before."""
    rest = {name: value for name, value in numbers.items() if name != "groups"}
    groups = tuple(
        (found["share"], _unchecked(group, {name: value for name, value in found.items() if name != "share"}))
        for (_, group), found in zip(structure.groups, numbers["groups"], strict=True)
    )
    return _unchecked(structure, rest | {"groups": groups})


def batch_numbers(configs: Sequence[RunConfig]) -> Numbers:
    """Return the numbers of configs of one structure, stacked with the runs first."""
    return jax.tree.map(lambda *values: np.stack(values), *(numbers_of(config) for config in configs))


def data_numbers(numbers: Numbers) -> Numbers:
    """Return the numbers on which the data depend."""
    return {name: numbers[name] for name in ("groups", "data_seed", "upsampling_factor") if name in numbers}


def identity(config: RunConfig) -> tuple[Any, ...]:
    """Return a value that is equal for two configs whose runs are equal."""
    return structure_of(config), _frozen(numbers_of(config)), config.num_steps, config.num_snapshots, config.threshold


def uses_prompts(config: RunConfig) -> bool:
    """Return True if training uses the prompts themselves, not their moments."""
    return config.data == "prompts" and (config.engine == "prompts" or config.scores == "softmax")


def _group_numbers(group: GroupConfig, config: RunConfig) -> Numbers:
    numbers: Numbers = {"noise_std": group.noise_std}
    name = SPECTRUM_NUMBERS.get(group.spectrum)
    if name:
        value = getattr(group, name)
        numbers[name] = np.asarray(value) if name == "eigenvalues" else value
    if group.task_eigenvalues:
        numbers["task_eigenvalues"] = np.asarray(group.task_eigenvalues)
    if group.fixed_task_share:
        numbers["fixed_task_share"] = group.fixed_task_share
    if config.data == "population":
        numbers["num_context"] = float(group.num_context)
    return numbers


def _group_structure(group: GroupConfig, config: RunConfig) -> GroupConfig:
    ones = (1.0,) * config.dim
    return GroupConfig(
        spectrum=group.spectrum,
        eigenvalues=ones if group.spectrum == "given" else (),
        task_eigenvalues=ones if group.task_eigenvalues else (),
        fixed_task_share=0.5 if group.fixed_task_share else 0.0,
        num_context=1 if config.data == "population" else group.num_context,
    )


def _unchecked(config: Any, values: Numbers) -> Any:
    """Return a copy with these fields, bypassing the constructor's checks, which traced numbers cannot pass."""
    copy = object.__new__(type(config))
    for field in dataclasses.fields(config):
        object.__setattr__(copy, field.name, values.get(field.name, getattr(config, field.name)))
    return copy


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((name, _frozen(entry)) for name, entry in sorted(value.items()))
    if isinstance(value, tuple):
        return tuple(_frozen(entry) for entry in value)
    return tuple(value.tolist()) if isinstance(value, np.ndarray) else float(value)
