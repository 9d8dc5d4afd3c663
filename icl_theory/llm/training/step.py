"""The optimizer step of fine-tuning, compiled as a function of weights, optimizer state, batch, learning rate and ρ."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PyTree

from icl_theory.errors import InputError, check_choice
from icl_theory.llm.data.batches import Batch
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.lora import lora_of, set_dropout
from icl_theory.llm.model.sharding import by_rows, on_mesh, place_weights, shardings
from icl_theory.llm.model.stacking import num_axes
from icl_theory.llm.optimizers.adamw_muon import PRECONDITIONERS, build_optimizer, preconditioned
from icl_theory.llm.optimizers.sam import Stages, loss_and_gradient
from icl_theory.llm.training.losses import row_losses, row_pulls


class Learner(NamedTuple):
    """Training state: trained weights, their optimizer state, number of steps taken, and weights that stay fixed."""

    params: PyTree
    optimizer: PyTree
    step: Int[Any, ""]
    frozen: PyTree


def batch_loss(model: Decoder, hidden: Float[Array, "B T C"], batch: Batch, total: Any) -> Float[Array, ""]:
    """Return `Σ_b s_b Σ_t ℓ_bt / total`, the mean loss over learned tokens if `total` is their weighted number.

    Args:
        model: the decoder.
        hidden: `model.hidden(...)` of the batch.
        batch: rows with their weights s.
        total: `Σ_b s_b · (learned tokens of b)`, as from `token_total`.
    """
    sums = row_losses(model.logits, hidden, batch.tokens, batch.learned, vocab_size=model.config.vocab_size)
    return jnp.sum(sums * batch.weight) / total


def batch_pull(
    model: Decoder, hidden: Float[Array, "B T C"], held: Decoder, held_hidden: Any, batch: Batch, total: Any
) -> Float[Array, ""]:
    """Return `Σ z · ∇_z ℓ` for the loss of `batch_loss`, with the gradient taken at the held model and constant."""
    size = model.config.vocab_size
    sums = row_pulls(model.logits, hidden, held.logits, held_hidden, batch.tokens, batch.learned, vocab_size=size)
    return jnp.sum(sums * batch.weight) / total


def token_total(batch: Batch) -> Float[Array, ""]:
    """Return the weighted number of learned tokens, at least 1e-9 to avoid division by zero."""
    return jnp.maximum(jnp.sum(batch.learned[:, 1:] * batch.weight[:, None]), 1e-9)


def start(model: Decoder, kind: str, **settings: float) -> tuple[nnx.GraphDef[Any], Learner]:
    """Return the graph of a model, and a learner with its weights and a new optimizer state.

    Of a model with adapters, they alone are trained.
    """
    graph, params, frozen = split(model)
    return graph, Learner(params, build_optimizer(kind, **settings).init(params), jnp.zeros((), jnp.int32), frozen)


def begin(
    model: Decoder, kind: str, *, mesh: Mesh | None = None, **settings: float
) -> tuple[nnx.GraphDef[Any], Learner]:
    """Return the same as `start`, with copied arrays placed on the mesh and the optimizer state created there.

    Fixed matrices are kept in the number type in which they are used, which changes no result.
    """
    graph, trained, fixed = split(model)

    def used(path: Any, leaf: Any) -> Any:
        return leaf.astype(model.dtype) if num_axes(path, leaf) >= 2 else leaf

    fixed = jax.tree_util.tree_map_with_path(used, fixed)
    params, frozen = place_weights(trained, mesh, own=True), place_weights(fixed, mesh, own=True)
    init = build_optimizer(kind, **settings).init
    step = jnp.zeros((), jnp.int32)
    if mesh is None:
        # Placed like what the step returns: else the second step would be compiled anew.
        return graph, Learner(params, place_weights(jax.jit(init)(params), None), place_weights(step, None), frozen)
    where = shardings(jax.eval_shape(init, params), mesh)
    return graph, Learner(params, jax.jit(init, out_shardings=where)(params), place_weights(step, mesh), frozen)


def split(model: Decoder) -> tuple[nnx.GraphDef[Any], PyTree, PyTree]:
    """Return the graph of a model, the weights to train, and those that stay fixed: none without adapters."""
    trained = nnx.Param if lora_of(model) is None else nnx.LoRAParam
    graph, *states = nnx.split(model, trained, nnx.Param)
    params, frozen = map(nnx.to_pure_dict, states)
    return graph, params, frozen


def model_of(graph: nnx.GraphDef[Any], params: PyTree, frozen: PyTree = None, dropout: Any = None) -> Decoder:
    """Return the decoder with these weights; a random key turns dropout of its adapters on."""
    model = nnx.merge(graph, params, frozen or {})
    if dropout is not None:
        set_dropout(model, dropout)
    return model


def stages_of(graph: nnx.GraphDef[Any], total: Any, frozen: PyTree = None) -> Stages:
    """Return hidden states, loss and pull as functions of weights and part of a batch, for `loss_and_gradient`.

    A part is that of `in_parts`. Both passes of a step see the same dropout.
    """

    def hidden_of(theta: Any, part: Any) -> Any:
        batch, dropout = part
        return model_of(graph, theta, frozen, dropout).hidden(batch.tokens, segments=batch.segments)

    def loss_of(theta: Any, hidden: Any, part: Any) -> Any:
        return batch_loss(model_of(graph, theta, frozen), hidden, part[0], total)

    def pull_of(theta: Any, hidden: Any, held: Any, held_hidden: Any, part: Any) -> Any:
        model, other = (model_of(graph, params, frozen) for params in (theta, held))
        return batch_pull(model, hidden, other, held_hidden, part[0], total)

    return Stages(hidden_of, loss_of, pull_of)


def in_parts(batch: Batch, count: int, dropout: Any = None) -> tuple[Batch, Any]:
    """Return the batch with its rows in `count` parts, along a new first axis, and a key of dropout for each part."""
    parts = jax.tree.map(lambda x: by_rows(x.reshape(count, -1, *x.shape[1:]), axis=1), batch)
    return parts, None if dropout is None else jax.random.split(dropout, count)


def make_step(
    graph: nnx.GraphDef[Any],
    optimizer: str,
    *,
    sharpness: str = "none",
    preconditioner: str = "none",
    accumulate: int = 1,
    clip: float | None = 1.0,
    dropout_seed: int | None = None,
    mesh: Mesh | None = None,
    **settings: Any,
) -> Callable[[Learner, Batch, Any, Any], tuple[Learner, dict[str, Array]]]:
    """Make the function `step(learner, batch, learning_rate, rho)`, compiled once per batch shape.

    The step donates the learner given to it, which cannot be used afterwards.

    Args:
        graph: graph of the model, from `start`.
        optimizer: "adamw" or "muon".
        sharpness: "none", "sam" or "fsam".
        preconditioner: "none", "current" or "past" (`preconditioned`; adamw only).
        accumulate: number of parts in which a batch is processed, one after the other; it must divide the rows. Loss
            and perturbation are always those of the whole batch. Between its passes fsam keeps the final hidden states
            of all parts.
        clip: maximum norm of the gradient; None for no clipping.
        dropout_seed: random seed of the dropout of adapters, drawn anew for each step; None for no dropout.
        mesh: mesh of `sharding.make_mesh` on which learner and batches are placed; None for one device.
        settings: settings of `build_optimizer`.

    Returns:
        The step. It returns the new learner, and a dictionary with the loss before the step and the gradient norm
        before clipping.

    Raises:
        InputError: settings that exclude each other.
    """
    check_preconditioner(preconditioner, optimizer, sharpness)
    transformation = build_optimizer(optimizer, **settings)

    def kept(tree: PyTree) -> Any:
        return tree if mesh is None else jax.lax.with_sharding_constraint(tree, shardings(tree, mesh))

    def step(learner: Learner, batch: Batch, learning_rate: Any, rho: Any) -> tuple[Learner, dict[str, Array]]:
        params, stages = learner.params, stages_of(graph, token_total(batch), learner.frozen)
        direction = partial(preconditioned, preconditioner, learner.optimizer, b2=settings.get("b2", 0.999))
        key = None if dropout_seed is None else jax.random.fold_in(jax.random.key(dropout_seed), learner.step)
        parts = in_parts(batch, accumulate, key)
        loss, gradient = loss_and_gradient(sharpness, stages, params, parts, rho=rho, direction_of=direction)
        gradient = kept(gradient)
        norm = optax.tree.norm(gradient)
        if clip is not None:
            gradient = jax.tree.map(lambda g: g * jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-12)), gradient)
        updates, state = transformation.update(gradient, learner.optimizer, params)
        params = jax.tree.map(lambda p, u: (p + learning_rate * u).astype(p.dtype), params, updates)
        after = Learner(params, state, learner.step + 1, learner.frozen)
        return kept(after), {"loss": loss, "gradient_norm": norm}

    return on_mesh(jax.jit(step, donate_argnums=0), mesh)


def check_preconditioner(preconditioner: str, optimizer: str, sharpness: str) -> None:
    """Raise `InputError` if preconditioning is asked for without adamw, or without sam or fsam."""
    check_choice("preconditioner", preconditioner, PRECONDITIONERS)
    if preconditioner != "none" and (optimizer != "adamw" or sharpness == "none"):
        remedy = "it needs adamw, whose second moment it uses, and sam or fsam"
        raise InputError("preconditioner", preconditioner, remedy)


def make_example_losses(graph: nnx.GraphDef[Any], mesh: Mesh | None = None) -> Callable[..., Float[Array, " B"]]:
    """Make the compiled function `losses(params, batch, frozen)`: the mean loss of each row over its learned tokens."""

    def losses(params: PyTree, batch: Batch, frozen: PyTree = None) -> Array:
        model = model_of(graph, params, frozen)
        hidden = model.hidden(batch.tokens, segments=batch.segments)
        sums = row_losses(model.logits, hidden, batch.tokens, batch.learned, vocab_size=model.config.vocab_size)
        return sums / jnp.maximum(batch.learned[:, 1:].sum(1), 1)

    return on_mesh(jax.jit(losses, out_shardings=None if mesh is None else NamedSharding(mesh, P())), mesh)


def learning_rate_at(step: int, *, peak: float, warmup: int, total: int, schedule: str = "cosine") -> float:
    """Return the learning rate of a step.

    It rises linearly over `warmup` steps. Then it stays constant, or falls to 0 at `total` linearly or as a cosine.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    done = (step - warmup) / max(total - warmup, 1)
    return peak * (0.5 * (1.0 + math.cos(math.pi * done)) if schedule == "cosine" else 1.0 - done)
