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
from icl_theory.llm.model.sharding import by_rows, on_mesh, place_weights, shardings
from icl_theory.llm.optimizers.adamw_muon import PRECONDITIONERS, build_optimizer, preconditioned
from icl_theory.llm.optimizers.sam import Stages, loss_and_gradient
from icl_theory.llm.training.losses import row_losses, row_pulls


class Learner(NamedTuple):
    """Training state: weights, optimizer state, and number of steps taken."""

    params: PyTree
    optimizer: PyTree
    step: Int[Any, ""]


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
    """Return the graph of a model, and a learner with its weights and a new optimizer state."""
    graph, state = nnx.split(model, nnx.Param)
    params = nnx.to_pure_dict(state)
    return graph, Learner(params, build_optimizer(kind, **settings).init(params), jnp.zeros((), jnp.int32))


def begin(
    model: Decoder, kind: str, *, mesh: Mesh | None = None, **settings: float
) -> tuple[nnx.GraphDef[Any], Learner]:
    """Return the same as `start`, with copied arrays placed on the mesh and the optimizer state created there."""
    graph, state = nnx.split(model, nnx.Param)
    params = place_weights(nnx.to_pure_dict(state), mesh, own=True)
    init = build_optimizer(kind, **settings).init
    step = jnp.zeros((), jnp.int32)
    if mesh is None:
        return graph, Learner(params, jax.jit(init)(params), step)
    where = shardings(jax.eval_shape(init, params), mesh)
    return graph, Learner(params, jax.jit(init, out_shardings=where)(params), place_weights(step, mesh))


def model_of(graph: nnx.GraphDef[Any], params: PyTree) -> Decoder:
    """Return the decoder with these weights."""
    return nnx.merge(graph, params)


def stages_of(graph: nnx.GraphDef[Any], total: Any) -> Stages:
    """Return hidden states, loss and pull as functions of weights and part of a batch, for `loss_and_gradient`."""

    def hidden_of(theta: Any, batch: Batch) -> Any:
        return model_of(graph, theta).hidden(batch.tokens, segments=batch.segments)

    def loss_of(theta: Any, hidden: Any, batch: Batch) -> Any:
        return batch_loss(model_of(graph, theta), hidden, batch, total)

    def pull_of(theta: Any, hidden: Any, held: Any, held_hidden: Any, batch: Batch) -> Any:
        return batch_pull(model_of(graph, theta), hidden, model_of(graph, held), held_hidden, batch, total)

    return Stages(hidden_of, loss_of, pull_of)


def in_parts(batch: Batch, count: int) -> Batch:
    """Return the batch with its rows in `count` parts, along a new first axis."""
    return jax.tree.map(lambda x: by_rows(x.reshape(count, -1, *x.shape[1:]), axis=1), batch)


def make_step(
    graph: nnx.GraphDef[Any],
    optimizer: str,
    *,
    sharpness: str = "none",
    preconditioner: str = "none",
    accumulate: int = 1,
    clip: float | None = 1.0,
    mesh: Mesh | None = None,
    **settings: float,
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
        params, stages = learner.params, stages_of(graph, token_total(batch))
        direction = partial(preconditioned, preconditioner, learner.optimizer, b2=settings.get("b2", 0.999))
        parts = in_parts(batch, accumulate)
        loss, gradient = loss_and_gradient(sharpness, stages, params, parts, rho=rho, direction_of=direction)
        gradient = kept(gradient)
        norm = optax.tree.norm(gradient)
        if clip is not None:
            gradient = jax.tree.map(lambda g: g * jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-12)), gradient)
        updates, state = transformation.update(gradient, learner.optimizer, params)
        params = jax.tree.map(lambda p, u: (p + learning_rate * u).astype(p.dtype), params, updates)
        return kept(Learner(params, state, learner.step + 1)), {"loss": loss, "gradient_norm": norm}

    return on_mesh(jax.jit(step, donate_argnums=0), mesh)


def check_preconditioner(preconditioner: str, optimizer: str, sharpness: str) -> None:
    """Raise `InputError` if preconditioning is asked for without adamw, or without sam or fsam."""
    check_choice("preconditioner", preconditioner, PRECONDITIONERS)
    if preconditioner != "none" and (optimizer != "adamw" or sharpness == "none"):
        remedy = "it needs adamw, whose second moment it uses, and sam or fsam"
        raise InputError("preconditioner", preconditioner, remedy)


def make_example_losses(
    graph: nnx.GraphDef[Any], mesh: Mesh | None = None
) -> Callable[[Any, Batch], Float[Array, " B"]]:
    """Make the compiled function `losses(params, batch)`: the mean loss of each row over its learned tokens."""

    def losses(params: PyTree, batch: Batch) -> Array:
        model = model_of(graph, params)
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
