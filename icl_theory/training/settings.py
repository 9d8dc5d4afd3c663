"""Checks of the settings of training, made once before it starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from icl_theory.errors import InputError, check_number
from icl_theory.training import run_sharding
from icl_theory.training.optimizer_step import OptimizerFactory


def check_axes(name: str, given: Any, axes: Any, runs: int) -> None:
    """Check that every axis is None or 0 and every mapped leaf has one row per run.

    Without the check, an index beyond the end would go unnoticed.
    """
    if axes is None:
        return
    chosen = jax.tree.leaves(axes, is_leaf=run_sharding.is_axis)
    if not all(axis is None or axis == 0 for axis in chosen):
        raise InputError(f"{name}_axes", axes, f"give None or 0, or a {name} of them")
    try:
        hash(axes)
        mapped = jax.tree.map(
            lambda axis, part: [] if axis is None else part, axes, given, is_leaf=run_sharding.is_axis
        )
    except (TypeError, ValueError):
        raise InputError(
            f"{name}_axes", axes, f"give None or 0, or a {name} of them (its own type, hashable)"
        ) from None
    for leaf in jax.tree.leaves(mapped):
        if np.shape(leaf)[:1] != (runs,):
            raise InputError(name, f"a leaf of shape {np.shape(leaf)}", f"its first axis must have the {runs} runs")


def checked_settings(
    hyperparameters: Mapping[str, Any], optimizer: OptimizerFactory, runs: int | None
) -> dict[str, np.ndarray]:
    try:
        settings = {name: np.asarray(value, dtype=float) for name, value in hyperparameters.items()}
    except (TypeError, ValueError):
        raise InputError("hyperparameters", dict(hyperparameters), "every value must be a number") from None
    try:
        inspect.signature(optimizer).bind(**settings)
    except TypeError as error:
        raise InputError("hyperparameters", list(settings), f"they do not fit the optimizer ({error})") from None
    for name, values in settings.items():
        for value in np.atleast_1d(values).ravel():
            check_number(name, float(value), minimum=0.0 if name in ("learning_rate", "rho") else -np.inf)
        if runs is not None:
            if values.ndim > 1 or values.size not in (1, runs):
                raise InputError(name, f"shape {values.shape}", f"give one number, or one for each of {runs} runs")
            settings[name] = np.broadcast_to(values, (runs,))
        elif values.ndim:
            raise InputError(name, values, "give one number, or use train_many for several runs")
    return settings


def as_pytree(function: Callable[..., Any]) -> Any:
    """Turn a callable into one that jit accepts: a pytree keeps its numbers, a plain function counts as structure."""
    is_leaf = jax.tree_util.all_leaves([function])
    return jax.tree_util.Partial(function) if is_leaf else function


def track_nothing(params: PyTree) -> tuple[()]:
    return ()
