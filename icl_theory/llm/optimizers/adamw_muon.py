"""AdamW, and Muon for the matrices of the blocks with AdamW for the rest, at a learning rate given step by step."""

from __future__ import annotations

from typing import Any

import jax
import optax
from jaxtyping import PyTree
from optax.contrib import muon

from icl_theory.errors import check_choice

OPTIMIZERS = ("adamw", "muon")
MATCHED_RMS = 0.2  # updates of Muon as large as AdamW's, so that both take one learning rate (Liu et al. 2025)


def build_optimizer(
    kind: str, *, weight_decay: float = 0.0, b1: float = 0.9, b2: float = 0.999, momentum: float = 0.95
) -> optax.GradientTransformation:
    """The updates of an optimizer at learning rate 1: multiply them by the learning rate of the step.

    Decoupled weight decay is on matrices, embeddings included, and not on norms and biases.

    Args:
        kind: "adamw" or "muon".
        weight_decay: times the learning rate, as in PyTorch.
        b1: decay rate of Adam's first moment.
        b2: decay rate of Adam's second moment.
        momentum: Muon's.

    Raises:
        InputError: another kind.
    """
    check_choice("optimizer", kind, OPTIMIZERS)
    adamw = optax.adamw(1.0, b1=b1, b2=b2, weight_decay=weight_decay, mask=is_matrix)
    if kind == "adamw":
        return adamw
    matrices = muon(1.0, beta=momentum, weight_decay=weight_decay, consistent_rms=MATCHED_RMS)
    return optax.multi_transform({"muon": matrices, "adamw": adamw}, muon_labels)


def is_matrix(params: PyTree) -> Any:
    """True for what is decayed."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def muon_labels(params: PyTree) -> Any:
    """Label each leaf: every matrix of the blocks "muon"; embedding, output, norms and biases "adamw".

    Not left to `muon` itself, which takes embeddings for matrices, decays norms and biases, and runs its Adam with
    Nesterov's momentum.
    """

    def label(path: Any, leaf: Any) -> str:
        inside = any(getattr(part, "key", None) == "blocks" for part in path)
        return "muon" if inside and leaf.ndim == 2 else "adamw"

    return jax.tree_util.tree_map_with_path(label, params)


def second_moment(state: PyTree, gradient: Any, b2: float = 0.999) -> Any:
    """Return `(b2 v + (1 − b2) g²)/(1 − b2^t)`, Adam's divisor at step t, from the state of "adamw" before it and g."""
    adam = next(part for part in jax.tree.leaves(state, is_leaf=_is_adam) if _is_adam(part))
    correction = 1.0 - b2 ** (adam.count + 1)
    return jax.tree.map(lambda v, g: (b2 * v + (1.0 - b2) * g * g) / correction, adam.nu, gradient)


def _is_adam(part: Any) -> bool:
    return isinstance(part, optax.ScaleByAdamState)
