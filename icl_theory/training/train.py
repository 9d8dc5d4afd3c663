"""Training of any loss, full batch or in minibatches, with any optimizer, as one compiled scan run in chunks.

Everything that is a number (learning rate, ρ, spectra, prompts, number of steps, when to take a snapshot) is traced: a
program is compiled once per structure (model, kind of loss, optimizer, shapes) and never again.

Many runs go as one program whose arrays carry the axis of runs last (see `contraction`), in blocks that fit the cache
of a core; blocks run side by side on the cores of a CPU. On an accelerator all runs are one block. Where there are
several local devices, the runs of a block are shared out among them (see `run_sharding`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from icl_theory.errors import DivergenceError, InputError
from icl_theory.numerics.cpu_workers import Workers, run_blocks
from icl_theory.numerics.tracing import device_array
from icl_theory.training import run_sharding
from icl_theory.training.compiled_loop import NO_SNAPSHOT, Axes, Program, State, run_chunk, start
from icl_theory.training.gradient_descent import gd
from icl_theory.training.optimizer_step import OptimizerFactory
from icl_theory.training.run import Run, checked_schedule
from icl_theory.training.settings import as_pytree, check_axes, checked_settings, track_nothing

SNAPSHOTS_PER_CHUNK = 32

Progress = Callable[[int, int], None]


def train(
    loss: Any,
    params: PyTree,
    *,
    hyperparameters: Mapping[str, Any],
    optimizer: OptimizerFactory = gd,
    num_steps: int,
    track: Any = None,
    num_snapshots: int = 200,
    snapshots: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train one set of parameters on one loss.

    Args:
        loss: Function `loss(params) -> scalar`: a callable pytree (see `make_loss`) or any function of the parameters.
            One of `make_minibatch_loss` is trained on a batch a step; snapshots have the loss of all data.
        params: Initial parameters, a pytree of arrays.
        hyperparameters: Numbers that `optimizer` is called with, e.g. `{"learning_rate": 0.02, "rho": 0.05}`. They are
            traced; any other setting belongs in the factory, as in `functools.partial(optax.sgd, nesterov=True)`.
        optimizer: `gd`, `sam`, `unnormalised_sam` or any factory of an optax transformation (`optax.adam`,
            `optax.lbfgs`). Values and functions that the transformation asks for are given to it.
        num_steps: Number of steps to take.
        track: Function whose value `track(params)` is saved at every snapshot (see `EffectiveMatrix`); none by default.
        num_snapshots: Number of evenly spaced snapshots, including the first and the last step.
        snapshots: Steps of the snapshots, instead of `num_snapshots`; the last step is always added.
        progress: Function called with (steps done, steps in all) after every chunk.

    Returns:
        The `Run`; `time = learning_rate * step`.

    Raises:
        DivergenceError: The loss became NaN, infinite or more than 1000 times the larger of its start and 1. The error
            holds the step and the last good parameters.
        InputError: The hyperparameters, number of steps or snapshots are invalid, the optimizer cannot train one loss,
            or the initial loss is not finite.
    """
    axes = Axes(None, None)
    return _train(
        loss, params, None, axes, hyperparameters, optimizer, num_steps, track, num_snapshots, snapshots, progress
    )


def train_many(
    loss: Any,
    params: PyTree,
    *,
    hyperparameters: Mapping[str, Any],
    optimizer: OptimizerFactory = gd,
    num_steps: int,
    loss_axes: Any = None,
    track: Any = None,
    track_axes: Any = None,
    num_snapshots: int = 200,
    snapshots: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train many runs at once as one program. Arguments not listed here are those of `train`.

    Args:
        params: Initial parameters, every leaf (runs, ...).
        hyperparameters: Numbers shared by all runs, or arrays (runs,).
        loss_axes: Leaves of `loss` that differ between runs, as in `jax.vmap`. None means none of them (moments shared
            by all runs make one matrix product per step), and 0 means every leaf. Otherwise give a loss of Nones with 0
            at the leaves that have the axis of runs, e.g.
            `MomentsLoss(None, MomentsMixture(None, None, None, shares=0))`.
        track_axes: Leaves of `track` that differ between runs, in the same form, e.g. 0 for
            `FeatureStrength(graphdef, directions)` with different directions for each run.

    Returns:
        A `Run` with the axis of runs first in its fields (see `Run`). A run that diverges is marked in `diverged_at`
        and its `params` are its last good ones; its later losses are meaningless. The other runs go on.
    """
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(params)}
    if len(sizes) != 1 or 0 in sizes:
        raise InputError("params", f"leading axes {sorted(sizes)}", "every leaf needs the same leading axis of runs")
    return _train(
        loss,
        params,
        sizes.pop(),
        Axes(loss_axes, track_axes),
        hyperparameters,
        optimizer,
        num_steps,
        track,
        num_snapshots,
        snapshots,
        progress,
    )


def _train(
    loss: Any,
    params: PyTree,
    runs: int | None,
    axes: Axes,
    hyperparameters: Mapping[str, Any],
    optimizer: OptimizerFactory,
    num_steps: int,
    track: Any,
    num_snapshots: int,
    snapshots: np.ndarray | None,
    progress: Progress | None,
) -> Run:
    steps = checked_schedule(num_steps, num_snapshots, snapshots)
    if not jax.tree.leaves(params):
        raise InputError("params", params, "give at least one array")
    settings = checked_settings(hyperparameters, optimizer, runs)
    dtype = jax.tree.leaves(params)[0].dtype
    loss, track = as_pytree(loss), as_pytree(track_nothing if track is None else track)
    if runs is not None:
        check_axes("loss", loss, axes.loss, runs)
        check_axes("track", track, axes.track, runs)
    mesh = run_sharding.runs_mesh() if runs else None
    program = Program(loss, track, optimizer, runs is not None, axes, mesh)
    blocks = [
        _Progressing(program, params, settings, dtype, chosen)
        for chosen in (run_blocks(runs, 1 if mesh is None else mesh.size) if runs else [slice(None)])
    ]
    if runs is None and not np.isfinite(blocks[0].now.limit):
        remedy = "it is not finite at the initial parameters; lower their scale or the data's"
        raise InputError("loss", float(blocks[0].now.limit), remedy)
    done = 0
    if len(blocks) > 1 and mesh is None:  # compile on an empty chunk before several threads ask for it
        nowhere = np.full(SNAPSHOTS_PER_CHUNK, NO_SNAPSHOT)
        run_chunk(blocks[0].program, blocks[0].now, np.int64(0), nowhere)
    with Workers(1 if mesh is not None else len(blocks)) as workers:  # a mesh is busy with one block
        while done < len(steps):
            chunk = steps[done : done + SNAPSHOTS_PER_CHUNK]
            workers.map(partial(_advance, begin=int(steps[done - 1]) if done else 0, steps=chunk), blocks)
            if runs is None and int(blocks[0].state.diverged_at) >= 0:
                raise _locate_divergence(blocks[0], settings)
            done += len(chunk)
            if progress is not None:
                progress(int(chunk[-1]), num_steps)
    rate = settings.get("learning_rate", np.asarray(np.nan))
    if rate.ndim and np.all(rate == rate[0]):
        rate = rate[0]
    if runs is None:
        found = blocks[0]
        diverged_at: Any = int(found.state.diverged_at)
        seen, final = found.seen(axis=0), found.state.params
    else:
        seen, final, diverged_at = _joined(blocks, runs)
    return Run(
        step=steps,
        time=np.multiply.outer(rate, steps),
        loss=seen[0],
        tracked=seen[1],
        params=final,
        diverged_at=diverged_at,
    )


class _Progressing:
    """A block of runs (or a single run) in training, with its snapshots so far."""

    def __init__(self, program: Program, params: PyTree, settings: dict[str, np.ndarray], dtype: Any, chosen: Any):
        hyperparameters: Any = {name: device_array(values, dtype) for name, values in settings.items()}
        if program.many:
            mesh, axes = program.mesh, program.axes
            params, hyperparameters = _rows(params, chosen, axis=-1), _rows(hyperparameters, chosen)
            loss, track = _chosen(program.loss, axes.loss, chosen), _chosen(program.track, axes.track, chosen)
            if mesh is not None:
                params, hyperparameters = (
                    run_sharding.place(tree, mesh, run_sharding.last(tree)) for tree in (params, hyperparameters)
                )
                loss = run_sharding.place(loss, mesh, run_sharding.leading(loss, axes.loss))
                track = run_sharding.place(track, mesh, run_sharding.leading(track, axes.track))
            program = dataclasses.replace(program, loss=loss, track=track)
        self.program, self.now = program, start(program, params, hyperparameters)
        self.snapshots: list[Any] = []

    @property
    def state(self) -> State:
        """State after the last step."""
        return self.now.state

    def seen(self, axis: int) -> Any:
        """Return (losses, tracked), the snapshots joined along their axis."""
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=axis), *self.snapshots)


def _chosen(given: Any, axes: Any, runs: Any) -> Any:
    """Select the rows of these runs in every leaf that has the axis of runs."""
    take = lambda axis, part: part if axis is None else _rows(part, runs)  # noqa: E731
    return jax.tree.map(take, axes, given, is_leaf=run_sharding.is_axis)


def _rows(tree: PyTree, runs: np.ndarray, *, axis: int = 0) -> Any:
    """Select these rows of every leaf and move their axis to `axis`, on the host; unchanged leaves are not copied."""

    def rows(leaf: Any) -> Any:
        if (axis == 0 or np.ndim(leaf) == 1) and np.array_equal(runs, np.arange(len(leaf))):
            return leaf
        return device_array(np.ascontiguousarray(np.moveaxis(np.asarray(leaf)[runs], 0, axis)))

    return jax.tree.map(rows, tree)


def _joined(blocks: list[_Progressing], runs: int) -> tuple[Any, Any, np.ndarray]:
    """Return (losses, tracked), the final (or last good) parameters and the steps of divergence, runs first."""
    first = lambda leaf: np.moveaxis(np.asarray(leaf), -1, 0)  # noqa: E731
    join = lambda *leaves: np.concatenate(leaves)[:runs]  # noqa: E731
    seen = jax.tree.map(join, *(block.seen(axis=1) for block in blocks))
    states = [
        jax.tree.map(first, (block.state.params, block.state.good[0], block.state.diverged_at)) for block in blocks
    ]
    final, good, diverged_at = jax.tree.map(join, *states)
    if (diverged_at >= 0).any():

        def pick(good: Any, last: Any) -> np.ndarray:
            return np.where((diverged_at >= 0).reshape(-1, *[1] * (last.ndim - 1)), good, last)

        final = jax.tree.map(pick, good, final)
    return seen, jax.tree.map(device_array, final), diverged_at


def _advance(block: _Progressing, begin: int, steps: np.ndarray) -> None:
    padded = np.concatenate([steps, np.full(SNAPSHOTS_PER_CHUNK - len(steps), NO_SNAPSHOT)])
    state, seen = run_chunk(block.program, block.now, np.int64(begin), padded)
    block.now = block.now._replace(state=state)
    snapshot_axis = 1 if block.program.many else 0
    seen = jax.tree.map(np.asarray, seen)
    if block.program.many:  # (snapshots, runs, ...) to (runs, snapshots, ...)
        seen = jax.tree.map(lambda leaf: np.moveaxis(leaf, 0, 1), seen)
    block.snapshots.append(jax.tree.map(lambda leaf: np.take(leaf, np.arange(len(steps)), axis=snapshot_axis), seen))


def _locate_divergence(block: _Progressing, settings: dict[str, np.ndarray]) -> DivergenceError:
    """Narrow the divergence to one step by running again from the last good state, with the same program."""
    state, value = block.state, float("nan")
    while True:
        first, last = int(state.good_step), int(state.diverged_at)
        steps = np.unique(np.linspace(first, last, SNAPSHOTS_PER_CHUNK).astype(int))[1:]
        params, optimizer_state = state.good
        never = jnp.full_like(state.diverged_at, -1)
        begun = state._replace(params=params, optimizer=optimizer_state, diverged_at=never)
        block.now = block.now._replace(state=begun)
        _advance(block, first, steps)
        state = block.state
        value = float(block.snapshots[-1][0][int(np.searchsorted(steps, int(state.diverged_at)))])
        if int(state.diverged_at) - int(state.good_step) <= 1:
            break
    return DivergenceError(
        step=int(state.diverged_at),
        loss=value,
        settings={name: float(values) for name, values in settings.items()},
        last_step=int(state.good_step),
        params=jax.device_get(state.good[0]),
    )
