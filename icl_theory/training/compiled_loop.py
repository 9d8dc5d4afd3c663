"""The compiled program of training: from one snapshot of the model to the next, for one run or a block of them.

Arrays of a block have the axis of runs last. All numbers are traced; optimizer, axes and mesh are static structure.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Int, PyTree

from icl_theory.training import run_sharding
from icl_theory.training.optimizer_step import initial_state, optimizer_step

DIVERGENCE_FACTOR = 1e3
NO_SNAPSHOT = -1


class State(NamedTuple):
    """State of one run, or of a block of runs with their axis last."""

    params: PyTree
    optimizer: PyTree
    good: PyTree  # (params, optimizer state) at the last snapshot with a sound loss
    good_step: Int[Any, "*runs"]
    diverged_at: Int[Any, "*runs"]


class Axes(NamedTuple):
    """Axes of runs in `loss` and `track`, each None (shared by all runs), 0 or a pytree of these."""

    loss: Any
    track: Any


SHARED = Axes(None, None)  # all runs share loss and track


@partial(
    jax.tree_util.register_dataclass, data_fields=("loss", "track"), meta_fields=("optimizer", "many", "axes", "mesh")
)
@dataclasses.dataclass(frozen=True)
class Program:
    """Everything that a compiled program depends on.

    The numbers in `loss` and `track` are traced; the rest is structure.

    Attributes:
        loss: Loss as a function of the parameters, a pytree. If it has `at_step(step)`, each step trains on that loss.
        track: Function of the parameters whose value is recorded, a pytree.
        optimizer: Factory that makes an optax transformation from hyperparameters.
        many: Whether the program is for a block of runs.
        axes: Axes of `loss` and `track` that differ between the runs of a block.
        mesh: Devices that share the runs; None for a single device.
    """

    loss: Any
    track: Any
    optimizer: Any
    many: bool = False
    axes: Axes = SHARED
    mesh: Mesh | None = None


class Block(NamedTuple):
    """A block of runs advanced together, or a single run: state, loss limit of divergence, hyperparameters."""

    state: State
    limit: Any
    hyperparameters: PyTree


@jax.jit
def start(program: Program, params: PyTree, hyperparameters: PyTree) -> Block:
    """Return the block of runs as it is before the first step."""

    def one(loss: Any, params: PyTree, hyperparameters: PyTree) -> tuple[State, Any]:
        optimizer_state = initial_state(program.optimizer, hyperparameters, params)
        zero = jnp.zeros((), int)
        state = State(params, optimizer_state, (params, optimizer_state), zero, zero - 1)
        return state, DIVERGENCE_FACTOR * jnp.maximum(loss(params), 1.0)

    loss, axis, last = program.loss, program.axes.loss, run_sharding.last
    begin: Any = jax.vmap(one, in_axes=(axis, -1, -1), out_axes=-1) if program.many else one
    given = (loss, params, hyperparameters)
    if program.mesh is not None:
        specs = (run_sharding.leading(loss, axis), last(params), last(hyperparameters))
        begin = run_sharding.shared_out(begin, program.mesh, specs, last(jax.eval_shape(begin, *given)))
    state, limit = begin(*given)
    return Block(state, limit, hyperparameters)


@jax.jit
def run_chunk(program: Program, block: Block, begin: Any, steps: Any) -> tuple[State, Any]:
    """Train from step `begin` through the ascending `steps`, taking a snapshot at each.

    A chunk with fewer snapshots is padded with `NO_SNAPSHOT`.

    Returns:
        The state after the last step, and (losses, tracked) of every snapshot.
    """
    run: Any = partial(_through_snapshots, program)
    given = (program.loss, program.track, block, begin, steps)
    if program.mesh is not None:
        held, seen = jax.eval_shape(run, *given)
        specs = (
            run_sharding.leading(program.loss, program.axes.loss),
            run_sharding.leading(program.track, program.axes.track),
            run_sharding.last(block),
            run_sharding.everywhere(begin),
            run_sharding.everywhere(steps),
        )
        run = run_sharding.shared_out(run, program.mesh, specs, (run_sharding.last(held), run_sharding.second(seen)))
    return run(*given)


def _through_snapshots(
    program: Program, loss: Any, track: Any, block: Block, begin: Any, steps: Any
) -> tuple[State, Any]:
    """Run a chunk on one device's share of the runs, with its `loss` and `track` in place of the program's."""
    state, limit, hyperparameters = block
    axes = program.axes

    def update_one(
        step: Any, loss: Any, hyperparameters: Any, params: PyTree, optimizer_state: PyTree, peak: Any
    ) -> tuple[Any, Any, Any]:
        batch = loss.at_step(step) if hasattr(loss, "at_step") else loss
        value, params, optimizer_state = optimizer_step(
            program.optimizer, hyperparameters, batch, params, optimizer_state
        )
        if batch is not loss:  # one batch may be bad by chance: only snapshots, of all data, decide on divergence
            value = jnp.where(jnp.isfinite(value), -jnp.inf, value)
        return params, optimizer_state, jnp.maximum(peak, value)  # NaN stays NaN

    def see_one(
        loss: Any, track: Any, limit: Any, state: State, params: PyTree, optimizer_state: PyTree, peak: Any, stop: Any
    ) -> tuple[State, Any]:
        value = loss(params)
        sound = jnp.isfinite(value) & (jnp.maximum(peak, value) <= limit) & (state.diverged_at < 0)
        good, good_step = jax.tree.map(
            partial(jnp.where, sound), ((params, optimizer_state), stop), (state.good, state.good_step)
        )
        diverged_at = jnp.where(sound | (state.diverged_at >= 0), state.diverged_at, stop)
        return State(params, optimizer_state, good, good_step, diverged_at), (value, track(params))

    update: Any = update_one
    see: Any = see_one
    if program.many:
        update = jax.vmap(update, in_axes=(None, axes.loss, -1, -1, -1, -1), out_axes=-1)
        see = jax.vmap(see, in_axes=(axes.loss, axes.track, -1, -1, -1, -1, -1, None), out_axes=(-1, 0))

    def snapshot(step: Any, state: State, stop: Any) -> tuple[Any, State, Any]:
        begun = (state.params, state.optimizer, jnp.full_like(limit, -jnp.inf))
        advanced = jax.lax.fori_loop(step, stop, lambda at, now: update(at, loss, hyperparameters, *now), begun)
        state, seen = see(loss, track, limit, state, *advanced, stop)
        return stop, state, seen

    def maybe_take(carry: Any, stop: Any) -> tuple[Any, Any]:
        nothing_new = lambda: carry  # noqa: E731
        carry = jax.lax.cond(stop != NO_SNAPSHOT, lambda: snapshot(carry[0], carry[1], stop), nothing_new)
        return carry, carry[2]

    shapes = jax.eval_shape(snapshot, begin, state, steps[0])[2]
    unseen = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (_, state, _), seen = jax.lax.scan(maybe_take, (begin, state, unseen), steps)
    return state, seen
