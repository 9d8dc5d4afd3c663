"""The theory that applies to a run, for single runs, sweeps and their comparison alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import PyTree

from icl_theory.analysis.trajectory import Dynamics
from icl_theory.simulation.build import has_fixed_task
from icl_theory.simulation.config import RunConfig
from icl_theory.tasks.features import Features
from icl_theory.theory.aligned_dynamics import AlignedDescent, Ascent
from icl_theory.theory.fixed_points import nested_plateau_losses
from icl_theory.theory.merged_dynamics import MergedFlow, effective_head
from icl_theory.theory.random_start_cascade import RandomStartCascade

Theory = Literal["aligned", "merged", "cascade"]
ASCENTS: dict[str, Callable[[float], Ascent]] = {  # the ascent step of each optimizer that the reduced system knows
    "gd": lambda rho: Ascent(),
    "sam": Ascent,
    "unnormalised-sam": lambda rho: Ascent(rho, normalised=False),
}
PREDICTABLE = (  # for messages
    "separate heads of rank 1 (gd, sam, unnormalised-sam; init = aligned, or random if every feature has a drive) and "
    "merged heads (gd), with population data, reduced blocks and no fixed task"
)


def theory_of(config: RunConfig) -> Theory | None:
    """Return which reduced system predicts the whole curve of a run, or None if none does.

    `"aligned"` has one head aligned with each feature, under gradient descent or SAM, and is exact. `"merged"` has
    merged heads from a random start under gradient descent. `"cascade"` has separate heads of rank one from a random
    start under gradient descent or SAM, and needs a positive drive of every feature. The last two are gradient flow,
    and accurate for a small start. All need infinite data and a common eigenbasis.
    """
    if (config.data, config.blocks, config.scores) != ("population", "reduced", "linear") or has_fixed_task(config):
        return None
    if config.init == "aligned" and config.optimizer in ASCENTS:
        return "aligned"
    if config.model == "merged" and config.optimizer == "gd":
        return "merged"
    separate = (config.model, config.rank, config.init) == ("separate", 1, "random") and config.optimizer in ASCENTS
    return "cascade" if separate and _every_feature_has_a_drive(config) else None


def predicted_dynamics(config: RunConfig, features: Features | None, params: PyTree) -> Dynamics | None:
    """Return the theory of one run from its initial parameters, or None if there is none or nothing moves."""
    theory = theory_of(config)
    if theory is None or features is None or not config.learning_rate or not config.init_scale:
        return None
    if theory == "aligned":
        ascent = ASCENTS[config.optimizer](config.rho)
        return AlignedDescent(features, np.full(config.dim, config.init_scale), config.learning_rate, ascent)
    if theory == "cascade":
        return RandomStartCascade.from_params(features, params, ASCENTS[config.optimizer](config.rho))
    return MergedFlow(features, effective_head(params["value"], params["merged"], features))


def _every_feature_has_a_drive(config: RunConfig) -> bool:
    """Return True if inputs and tasks of some group vary along each axis. Only lists of eigenvalues can hold a 0."""
    driven = np.zeros(config.dim, bool)
    for share, group in config.mixture:
        lists = [np.asarray(values) > 0 for values in (group.eigenvalues, group.task_eigenvalues) if len(values)]
        driven |= np.logical_and.reduce([np.full(config.dim, share > 0), *lists])
    return bool(driven.all())


def predicted_plateaus(config: RunConfig, features: Features | None) -> np.ndarray:
    """Return the losses at which a run rests, or none if no theory predicts them.

    At rank one these are the losses of nested sets of features. Other models than `separate` rest at start and optimum.
    """
    if features is None or (config.blocks, config.scores) != ("reduced", "linear"):
        return np.zeros(0)
    levels = nested_plateau_losses(features)
    if config.model != "separate":
        return levels[[0, -1]]
    return levels if config.rank == 1 else np.zeros(0)
