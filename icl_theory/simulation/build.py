"""Objects built from a config: optimizer settings, task mixture, features and model.

All of it may be built inside `jit` and `vmap` from a config whose numbers are traced (see `sweeps.structure`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key

from icl_theory.errors import InputError
from icl_theory.models.attention import MergedAttention, SeparateAttention
from icl_theory.models.cubic_mlp import CubicFeatureMLP
from icl_theory.models.parameters import merge_model, split_model, widen_parameters
from icl_theory.numerics.draws import standard_normal
from icl_theory.numerics.tracing import is_traced
from icl_theory.simulation.config import SAM_OPTIMIZERS, GroupConfig, RunConfig
from icl_theory.tasks.features import Features, features_along, find_group_features, group_matrices
from icl_theory.tasks.mixture import TaskDistribution, TaskMixture
from icl_theory.tasks.spectra import (
    geometric_spectrum,
    given_spectrum,
    linear_spectrum,
    power_law_spectrum,
    random_basis,
    white_spectrum,
)


def hyperparameters(config: RunConfig) -> dict[str, float]:
    """Return the arguments of the optimizer factory: the learning rate, and ρ for SAM."""
    rate = {"learning_rate": config.learning_rate}
    return rate | {"rho": config.rho} if config.optimizer in SAM_OPTIMIZERS else rate


def has_fixed_task(config: RunConfig) -> bool:
    """Return True if some prompts have one fixed task vector, which in general leaves no joint eigenbasis."""
    return any(group.fixed_task_share for _, group in config.mixture)


def data_seed(config: RunConfig) -> Any:
    """Return the seed of the basis, the fixed task and the prompts."""
    return config.data_seed if is_traced(config.data_seed) or config.data_seed >= 0 else config.seed


def prompts_key(config: RunConfig) -> Key[Array, ""]:
    """Return the random key from which a config's prompts are drawn."""
    return jax.random.fold_in(jax.random.key(data_seed(config)), 2)


def basis_and_mixture(config: RunConfig) -> tuple[Any, TaskMixture]:
    """Return the eigenbasis that all groups share (None for the axes) and the task mixture before upsampling."""
    basis_key, task_key = jax.random.split(jax.random.fold_in(jax.random.key(data_seed(config)), 0))
    basis = random_basis(basis_key, config.dim) if config.basis == "random" else None
    built: list[TaskDistribution] = []
    shares: list[Any] = []
    for share, group in config.mixture:
        task = TaskDistribution.create(
            _spectrum(group, config.dim),
            num_context=group.num_context,
            task_eigenvalues=group.task_eigenvalues if len(group.task_eigenvalues) else None,
            noise_std=group.noise_std,
            basis=basis,
            count_query=config.normalisation == "tokens",
        )
        part = TaskMixture.create([task], [1.0])
        if is_traced(group.fixed_task_share) or group.fixed_task_share:
            part = part.with_fixed_task(group.fixed_task_share, standard_normal(task_key, (config.dim,)))
        built += part.groups
        shares.append(share * part.shares)
    return basis, TaskMixture.create(built, jnp.concatenate(shares))


def build_mixture(config: RunConfig) -> TaskMixture:
    """Return the task mixture that training draws from, with its last group upsampled."""
    _, mixture = basis_and_mixture(config)
    return mixture.upsampled(upsampling_factors(config, mixture)) if config.groups else mixture


def config_features(config: RunConfig) -> Features:
    """Return the features of the mixture that training draws from, numbered by their drive before upsampling.

    Raises:
        InputError: The groups (or a fixed task) share no eigenbasis.
    """
    basis, mixture = basis_and_mixture(config)
    if has_fixed_task(config):
        found = find_group_features(mixture)
    else:
        directions = np.eye(config.dim) if basis is None else np.asarray(basis, float)
        matrices = [group_matrices(group) for group in mixture.groups]
        found = features_along(directions, matrices, np.asarray(mixture.shares))
    return found.upsampled(np.asarray(upsampling_factors(config, mixture)))


def upsampling_factors(config: RunConfig, mixture: TaskMixture) -> Any:
    """Return κ_g of each group of the mixture: `upsampling_factor` for the config's last group, 1 for the others."""
    parts = len(mixture.groups)
    last = [False] * parts
    if config.groups:
        share = config.groups[-1][1].fixed_task_share
        count = 2 if is_traced(share) or share else 1  # a share of fixed tasks splits a group into two
        last[-count:] = [True] * count
    return jnp.where(jnp.asarray(last), jnp.asarray(config.upsampling_factor, float), 1.0)


def build_model(config: RunConfig) -> nnx.Module:
    """Build the model of a config, randomly initialised (on the reduced blocks alone, if the config says so)."""
    model = _random_model(config, config.blocks)
    if config.init != "reduced":
        return model
    graphdef, _ = split_model(model)
    _, params = split_model(_random_model(config, "reduced"))
    return merge_model(graphdef, widen_parameters(params))


def _random_model(config: RunConfig, blocks: str) -> nnx.Module:
    rngs = nnx.Rngs(params=jax.random.fold_in(jax.random.key(config.seed), 1))
    common: dict[str, Any] = {"init_scale": config.init_scale, "rngs": rngs}
    if config.model == "cubic-mlp":
        return CubicFeatureMLP(config.dim, config.num_heads, **common)
    common |= {"blocks": blocks, "scores": config.scores}
    if config.model == "merged":
        return MergedAttention(config.dim, config.num_heads, **common)
    heads = config.dim if config.init == "aligned" else config.num_heads
    return SeparateAttention(config.dim, heads, rank=config.rank, **common)


def _spectrum(group: GroupConfig, dim: int) -> Any:
    if len(group.eigenvalues):
        if len(group.eigenvalues) != dim:
            raise InputError("eigenvalues", group.eigenvalues, f"give {dim} of them, or set dim")
        return given_spectrum(group.eigenvalues)
    if group.spectrum == "given":
        raise InputError("eigenvalues", "()", "the given spectrum needs its eigenvalues")
    if group.spectrum == "power-law":
        return power_law_spectrum(dim, group.exponent)
    if group.spectrum == "geometric":
        return geometric_spectrum(dim, group.eigenvalue_ratio)
    return linear_spectrum(dim) if group.spectrum == "linear" else white_spectrum(dim)
