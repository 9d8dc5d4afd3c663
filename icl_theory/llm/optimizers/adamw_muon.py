"""AdamW, and Muon for the matrices of the blocks with AdamW for all other weights."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from icl_theory.errors import check_choice
from icl_theory.llm.model.stacking import is_stacked, num_axes

OPTIMIZERS = ("adamw", "muon")
TOGETHER = 2**26  # entries of the matrices that are orthogonalised together
PRECONDITIONERS = ("none", "current", "past")
CURRENT_EPS, PAST_EPS = 1e-8, 1e-6  # Adam's own, and that of Singh et al. 2025
MATCHED_RMS = 0.2  # scales Muon's updates to the size of AdamW's, so that both share a learning rate (Liu et al. 2025)


def build_optimizer(
    kind: str,
    *,
    weight_decay: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    momentum: float = 0.95,
    dtype: Any = jnp.float32,
) -> optax.GradientTransformation:
    """Build an optimizer with learning rate 1: the caller multiplies its updates by the learning rate of the step.

    Decoupled weight decay applies to matrices, embeddings included, and not to norms and biases.

    Args:
        kind: "adamw" or "muon".
        weight_decay: coefficient of weight decay; it is multiplied by the learning rate, as in PyTorch.
        b1: decay rate of Adam's first moment.
        b2: decay rate of Adam's second moment.
        momentum: momentum coefficient of Muon.
        dtype: number type in which Muon orthogonalises.

    Raises:
        InputError: another kind.
    """
    check_choice("optimizer", kind, OPTIMIZERS)
    adamw = optax.adamw(1.0, b1=b1, b2=b2, weight_decay=weight_decay, mask=is_matrix)
    if kind == "adamw":
        return adamw
    matrices = optax.chain(
        _muon(beta=momentum, ns_steps=0),  # without steps, the Nesterov momentum of each matrix, of norm 1
        optax.stateless(lambda updates, _: orthogonalised(updates, dtype)),
        optax.add_decayed_weights(weight_decay),
        optax.scale(-1.0),
    )
    return optax.multi_transform({"muon": matrices, "adamw": adamw}, muon_labels)


def orthogonalised(updates: PyTree, dtype: Any) -> PyTree:
    """Orthogonalise matrices by Muon's Newton–Schulz steps, times `0.2 √(larger side)`.

    Matrices of one shape are taken together, about `TOGETHER` entries at a time.

    Args:
        updates: stacks (L, I, O) of matrices of Frobenius norm 1.
        dtype: number type of the steps.
    """
    leaves, tree = jax.tree.flatten(updates)
    places: dict[tuple[int, ...], list[int]] = {}
    for place, leaf in enumerate(leaves):
        places.setdefault(leaf.shape[1:], []).append(place)
    steps = _muon(beta=0.0, nesterov=False)  # without momentum, the steps alone

    def one(matrix: Any) -> Any:
        return steps.update(matrix, steps.init(matrix))[0]

    for shape, alike in places.items():
        stack = jnp.concatenate([leaves[place].astype(dtype) for place in alike])
        made = jax.lax.map(one, stack, batch_size=max(1, TOGETHER // math.prod(shape)))
        scale = MATCHED_RMS * max(shape) ** 0.5
        ends = itertools.accumulate(len(leaves[place]) for place in alike)
        for place, some in zip(alike, jnp.split(made, [*ends][:-1]), strict=True):
            leaves[place] = scale * some.astype(leaves[place].dtype)
    return jax.tree.unflatten(tree, leaves)


def _muon(**settings: Any) -> optax.GradientTransformation:
    """Return Muon's momentum and Newton–Schulz steps for matrices, or stacks of them."""
    last_two = MuonDimensionNumbers(-2, -1)
    return scale_by_muon(weight_dimension_numbers=lambda updates: jax.tree.map(lambda _: last_two, updates), **settings)


def is_matrix(params: PyTree) -> Any:
    """Mark matrices, to which weight decay applies."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: num_axes(path, leaf) >= 2, params)


def muon_labels(params: PyTree) -> Any:
    """Label each leaf with its optimizer: "muon" for matrices of the blocks, "adamw" for all other weights.

    Optax's own `muon` would also take embeddings, decay norms and biases, and run its Adam with Nesterov momentum.
    """

    def label(path: Any, leaf: Any) -> str:
        return "muon" if is_stacked(path) and num_axes(path, leaf) == 2 else "adamw"

    return jax.tree_util.tree_map_with_path(label, params)


def preconditioned(kind: str, state: PyTree, gradient: Any, b2: float = 0.999) -> Any:
    """Return the direction of a perturbation that Adam's second moment preconditions.

    "none" gives g, "current" gives `g/(√v̂ + 10⁻⁸)` as in Adam's own step, with the bias-corrected second moment
    `v̂ = (b2 v + (1 − b2) g²)/(1 − b2^t)` of step t. "past" gives `g/(√v + 10⁻⁶)` with the second moment v of the steps
    before this one, without bias correction.

    Args:
        kind: "none", "current" or "past".
        state: state of "adamw" before the step, which holds v.
        gradient: gradient g of the step.
        b2: decay rate of the second moment.
    """
    if kind == "none":
        return gradient
    adam = next(part for part in jax.tree.leaves(state, is_leaf=_is_adam) if _is_adam(part))
    if kind == "past":
        return jax.tree.map(lambda g, v: g / (jnp.sqrt(v) + PAST_EPS), gradient, adam.nu)
    correction = 1.0 - b2 ** (adam.count + 1)

    def divided(g: Any, v: Any) -> Any:
        return g / (jnp.sqrt((b2 * v + (1.0 - b2) * g * g) / correction) + CURRENT_EPS)

    return jax.tree.map(divided, gradient, adam.nu)


def _is_adam(part: Any) -> bool:
    return isinstance(part, optax.ScaleByAdamState)
