"""Full-batch training of any loss with any optimizer, as one compiled scan run in chunks.

Everything that is a number (learning rate, ρ, spectra, prompts, number of steps, when to look) is traced: a
program is compiled once per structure (model, kind of loss, optimizer, shapes) and never again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from icl_theory.errors import DivergenceError, InputError, check_number
from icl_theory.features import Features
from icl_theory.sharpness import gd
from icl_theory.trajectory import Trajectory

SNAPSHOTS_PER_CHUNK = 32
DIVERGENCE_FACTOR = 1e3

OptimizerFactory = Callable[..., optax.GradientTransformation]
Progress = Callable[[int, int], None]


class Run(NamedTuple):
    """What training saw. A batch of runs puts its axis first in every field but `step` and `time`.

    Attributes:
        step: (S,) steps at which snapshots were taken.
        time: (S,) learning rate × step; (runs, S) where the learning rate differs between runs; NaN for an
            optimizer without a `learning_rate`.
        loss: (S,) at the unperturbed weights.
        tracked: what `track` returned, leaves (S, ...).
        params: parameters after the last step (the last good ones for a run that diverged).
        diverged_at: first snapshot at or before which the loss was not finite or too large; −1 where none.
    """

    step: np.ndarray
    time: np.ndarray
    loss: np.ndarray
    tracked: Any
    params: Any
    diverged_at: Any

    def trajectory(self, features: Features) -> Trajectory:
        """Loss and strengths in a basis of features, where the effective matrix was tracked.

        Raises:
            InputError: runs with different learning rates have no common time axis.
        """
        if self.time.ndim > 1:
            raise InputError("time", f"shape {self.time.shape}", "runs differ in learning rate: take them one by one")
        if np.ndim(self.tracked) < 3:
            raise InputError("tracked", type(self.tracked).__name__, "train with track=EffectiveMatrix(loss.graphdef)")
        return Trajectory(self.time, self.loss, features.strength(self.tracked))


def require_sound(run: Run) -> Run:
    """The run itself, where none of its runs diverged.

    Raises:
        InputError: some did.
    """
    count = int(np.sum(np.asarray(run.diverged_at) >= 0))
    if count:
        raise InputError("diverged_at", f"{count} runs", "lower the learning rate; a table of them would be untrue")
    return run


class _State(NamedTuple):
    params: Any
    optimizer: Any
    good: Any  # (params, optimizer state) at the last snapshot with a sound loss
    good_step: Any
    diverged_at: Any


def snapshot_schedule(num_steps: int, num_snapshots: int) -> np.ndarray:
    """Ascending steps from 0 to `num_steps`, evenly spaced, without repetition."""
    check_number("num_steps", num_steps, minimum=1, integer=True)
    check_number("num_snapshots", num_snapshots, minimum=2, integer=True)
    return np.unique(np.round(np.linspace(0, num_steps, num_snapshots)).astype(int))


def train(
    loss: Any,
    params: Any,
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
        loss: `loss(params) -> scalar`; a pytree (see `make_loss`), or any function of the parameters.
        params: pytree of arrays.
        hyperparameters: numbers that `optimizer` is called with, e.g. `{"learning_rate": 0.02, "rho": 0.05}`; traced.
            Anything else belongs to the factory: `functools.partial(optax.sgd, nesterov=True)`.
        optimizer: `gd`, `sam`, `unnormalised_sam` or any factory of an optax transformation (`optax.adam`).
        num_steps: steps to take.
        track: `track(params)`, saved at every snapshot (see `EffectiveMatrix`); default nothing.
        num_snapshots: evenly spaced snapshots, first and last step included.
        snapshots: the steps themselves, instead of `num_snapshots`; the last step is always added.
        progress: called with (steps done, steps in all) after every chunk.

    Returns:
        The `Run`; `time = learning_rate * step`.

    Raises:
        DivergenceError: the loss became NaN, infinite or 1000 times the larger of its start and 1; carries the step
            and the last good state.
        InputError: impossible hyperparameters, numbers of steps or snapshots.
    """
    run = _run(loss, params, None, hyperparameters, optimizer, num_steps, track, num_snapshots, snapshots, progress)
    return run


def train_many(
    loss: Any,
    params: Any,
    *,
    hyperparameters: Mapping[str, Any],
    optimizer: OptimizerFactory = gd,
    num_steps: int,
    loss_batched: bool = False,
    track: Any = None,
    num_snapshots: int = 200,
    snapshots: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train many runs at once as one program; arguments as for `train`, with a leading axis of runs.

    Args:
        params: every leaf (runs, ...).
        hyperparameters: numbers shared by all runs, or arrays (runs,).
        loss_batched: whether the leaves of `loss` have the axis of runs too (one spectrum a run, say).

    Returns:
        A `Run` whose fields lead with the axis of runs. A run that diverges is marked in `diverged_at`, and its
        `params` are its last good ones (its losses after that are not); the others go on.
    """
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(params)}
    if len(sizes) != 1 or 0 in sizes:
        raise InputError("params", f"leading axes {sorted(sizes)}", "every leaf needs the same leading axis of runs")
    axes = (0 if loss_batched else None, sizes.pop())
    return _run(loss, params, axes, hyperparameters, optimizer, num_steps, track, num_snapshots, snapshots, progress)


def _run(loss, params, batch, hyperparameters, optimizer, num_steps, track, num_snapshots, snapshots, progress):
    steps = _checked_schedule(num_steps, num_snapshots, snapshots)
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
        if batch is not None:
            if values.ndim > 1 or values.size not in (1, batch[1]):
                raise InputError(name, f"shape {values.shape}", f"give one number, or one for each of {batch[1]} runs")
            settings[name] = np.broadcast_to(values, (batch[1],))
        elif values.ndim:
            raise InputError(name, values, "give one number, or use train_many for several runs")
    if not jax.tree.leaves(params):
        raise InputError("params", params, "give at least one array")
    dtype = jax.tree.leaves(params)[0].dtype
    traced = {name: jnp.asarray(values, dtype) for name, values in settings.items()}
    loss, track = _as_pytree(loss), _as_pytree(track or _nothing)
    loss_axis, runs = batch or (None, None)
    state, limit = _start(loss, params, traced, optimizer, runs, loss_axis)
    if runs is None and not np.isfinite(limit):
        raise InputError(
            "loss", float(limit), "it is not finite at the initial parameters; lower their scale or the data's"
        )
    losses, tracked, done = [], [], 0
    while done < len(steps):
        chunk = steps[done : done + SNAPSHOTS_PER_CHUNK]
        begin = steps[done - 1] if done else np.int64(0)
        padded = np.concatenate([chunk, np.full(SNAPSHOTS_PER_CHUNK - len(chunk), chunk[-1])])
        state, (chunk_loss, chunk_tracked) = _run_chunk(
            state, begin, padded, limit, loss, track, traced, optimizer, runs, loss_axis
        )
        if runs is None and int(state.diverged_at) >= 0:
            raise _locate_divergence(state, limit, loss, track, traced, optimizer, settings)
        time_axis = 0 if runs is None else 1
        keep = partial(_keep, count=len(chunk), axis=time_axis)
        losses.append(keep(chunk_loss))
        tracked.append(jax.tree.map(keep, chunk_tracked))
        done += len(chunk)
        if progress is not None:
            progress(int(chunk[-1]), num_steps)
    axis = 0 if runs is None else 1
    rate = settings.get("learning_rate", np.asarray(np.nan))
    if rate.ndim and np.all(rate == rate[0]):
        rate = rate[0]
    bad = np.asarray(state.diverged_at)
    final = state.params
    if runs is not None and (bad >= 0).any():
        final = jax.tree.map(
            lambda good, last: jnp.where((bad >= 0).reshape(-1, *[1] * (last.ndim - 1)), good, last),
            state.good[0],
            final,
        )
    return Run(
        step=steps,
        time=np.multiply.outer(rate, steps),
        loss=np.concatenate(losses, axis=axis),
        tracked=jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=axis), *tracked),
        params=final,
        diverged_at=int(bad) if runs is None else bad,
    )


def _keep(leaf: Array, *, count: int, axis: int) -> np.ndarray:
    return np.asarray(jax.lax.slice_in_dim(leaf, 0, count, axis=axis))


def _checked_schedule(num_steps: int, num_snapshots: int, snapshots: np.ndarray | None) -> np.ndarray:
    check_number("num_steps", num_steps, minimum=1, integer=True)
    if snapshots is None:
        return snapshot_schedule(num_steps, num_snapshots)
    steps = np.asarray(snapshots)
    if not np.issubdtype(steps.dtype, np.integer):
        raise InputError("snapshots", steps, "give whole numbers of steps")
    if steps.ndim != 1 or steps.size == 0 or np.any(np.diff(steps) <= 0) or steps[0] < 0 or steps[-1] > num_steps:
        raise InputError("snapshots", steps, f"give ascending steps between 0 and num_steps = {num_steps}")
    return np.unique(np.append(steps, num_steps))


def _as_pytree(function: Callable) -> Any:
    """A callable that jit accepts: pytrees carry their numbers, plain functions count as structure."""
    is_leaf = jax.tree_util.all_leaves([function])
    return jax.tree_util.Partial(function) if is_leaf else function


def _nothing(params: Any) -> tuple:
    return ()


@partial(jax.jit, static_argnames=("optimizer", "runs", "loss_axis"))
def _start(loss, params, hyperparameters, optimizer, runs, loss_axis):
    def start(loss, params, hyperparameters):
        optimizer_state = optimizer(**hyperparameters).init(params)
        zero = jnp.zeros((), int)
        state = _State(params, optimizer_state, (params, optimizer_state), zero, zero - 1)
        return state, DIVERGENCE_FACTOR * jnp.maximum(loss(params), 1.0)

    return (start if runs is None else jax.vmap(start, in_axes=(loss_axis, 0, 0)))(loss, params, hyperparameters)


@partial(jax.jit, static_argnames=("optimizer", "runs", "loss_axis"))
def _run_chunk(state, begin, steps, limit, loss, track, hyperparameters, optimizer, runs, loss_axis):
    """From step `begin` through the ascending `steps`, with a look at each; repeated steps cost a look, no step."""

    def run(state, limit, loss, hyperparameters):
        transformation = optax.with_extra_args_support(optimizer(**hyperparameters))

        def update(_, carry):
            params, optimizer_state, peak = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, optimizer_state = transformation.update(
                grads, optimizer_state, params, value=value, grad=grads, value_fn=loss, grad_fn=jax.grad(loss)
            )
            return optax.apply_updates(params, updates), optimizer_state, jnp.maximum(peak, value)  # NaN stays NaN

        def look(carry, stop):
            step, state = carry
            begun = (state.params, state.optimizer, jnp.full_like(limit, -jnp.inf))
            params, optimizer_state, peak = jax.lax.fori_loop(step, stop, update, begun)
            value = loss(params)
            sound = jnp.isfinite(value) & (jnp.maximum(peak, value) <= limit) & (state.diverged_at < 0)
            good, good_step = jax.tree.map(
                partial(jnp.where, sound), ((params, optimizer_state), stop), (state.good, state.good_step)
            )
            diverged_at = jnp.where(sound | (state.diverged_at >= 0), state.diverged_at, stop)
            state = _State(params, optimizer_state, good, good_step, diverged_at)
            return (stop, state), (value, track(params))

        (_, state), seen = jax.lax.scan(look, (begin, state), steps)
        return state, seen

    if runs is None:
        return run(state, limit, loss, hyperparameters)
    return jax.vmap(run, in_axes=(0, 0, loss_axis, 0))(state, limit, loss, hyperparameters)


def _locate_divergence(state, limit, loss, track, hyperparameters, optimizer, settings) -> DivergenceError:
    """Narrow the divergence to one step by running again from the last good state, with the same program."""
    value = float("nan")
    while True:
        first, last = int(state.good_step), int(state.diverged_at)
        steps = np.unique(np.linspace(first, last, SNAPSHOTS_PER_CHUNK).astype(int))[1:]
        padded = np.concatenate([steps, np.full(SNAPSHOTS_PER_CHUNK - len(steps), last)])
        params, optimizer_state = state.good
        again = state._replace(
            params=params, optimizer=optimizer_state, diverged_at=jnp.full_like(state.diverged_at, -1)
        )
        state, (losses, _) = _run_chunk(
            again, np.int64(first), padded, limit, loss, track, hyperparameters, optimizer, None, None
        )
        value = float(losses[int(np.searchsorted(steps, int(state.diverged_at)))])
        if int(state.diverged_at) - int(state.good_step) <= 1:
            break
    return DivergenceError(
        step=int(state.diverged_at),
        loss=value,
        settings={name: float(values) for name, values in settings.items()},
        last_step=int(state.good_step),
        params=jax.device_get(state.good[0]),
    )
