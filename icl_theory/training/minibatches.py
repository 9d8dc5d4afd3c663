"""Losses of minibatches, drawn anew at every step inside the compiled loop (theory notes, §17).

`train` and `train_many` ask a loss that has `at_step` for the loss of each step's batch, and record the loss of all
data at snapshots. The draws of a step depend on the key and the step alone, so a run can be repeated from any step.
SAM takes both of its gradients on the same batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Float, PyTree

from icl_theory.errors import InputError, as_floats, check_choice, check_number
from icl_theory.models.cubic_features import cubic_features
from icl_theory.models.parameters import merge_model
from icl_theory.moments.compressed_prompts import CompressedPrompts, compress
from icl_theory.moments.empirical import Moments
from icl_theory.moments.mixture_moments import mixture_moments
from icl_theory.moments.population_full import full_population_moments
from icl_theory.numerics.tracing import device_array
from icl_theory.tasks.fresh_prompts import FreshPrompts
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.prompts import Prompts, check_weights
from icl_theory.training.losses import MomentsLoss, make_loss

WEIGHTINGS = ("sampling", "loss")
DRAWS = ("prompts", "groups")


class RowsLoss(NamedTuple):
    """Mean square error (no ½) over rows of features, `(1/b) Σ_p s_p (y_p − ⟨T, φ_p⟩)²`, for linear attention."""

    graphdef: nnx.GraphDef[Any]
    features: Float[Any, "b F"]
    target: Float[Any, " b"]
    weight: Float[Any, " b"] | None

    def __call__(self, params: PyTree) -> Float[Array, ""]:
        tensor = merge_model(self.graphdef, params).effective_tensor()
        error = self.target - jnp.matmul(self.features, tensor, precision=jax.lax.Precision.HIGHEST)
        return jnp.mean(error**2 if self.weight is None else self.weight * error**2)


class Rows(NamedTuple):
    """Rows of a finite set, drawn with replacement.

    Attributes:
        features: φ_p, (P, F).
        target: y_p, (P,).
        loss_weight: Weights in the loss of rows drawn uniformly, of mean one, (P,); or None.
        keep: Probability to keep row p once drawn (Walker's alias method), (P,); None for uniform rows.
        alias: Row taken in its place otherwise, (P,); None for uniform rows.
    """

    features: Float[Any, "P F"]
    target: Float[Any, " P"]
    loss_weight: Float[Any, " P"] | None = None
    keep: Float[Any, " P"] | None = None
    alias: Any = None

    def draw(self, loss: MomentsLoss, key: Any, size: int) -> RowsLoss:
        """Gather the rows of a batch."""
        first, second = jax.random.split(key)
        count = len(self.target)
        row = (jax.random.bits(first, (size,), jnp.uint32) % np.uint32(count)).astype(jnp.int32)
        if self.keep is not None:
            kept = jax.random.uniform(second, (size,), jnp.float32) < self.keep[row]
            row = jnp.where(kept, row, self.alias[row])
        weight = None if self.loss_weight is None else self.loss_weight[row]
        return RowsLoss(loss.graphdef, self.features[row], self.target[row], weight)


class GroupCounts(NamedTuple):
    """Batches of groups: each of the b examples draws a group, which stands for its mean over infinite data.

    The loss is `Σ_g (n_g/b) L_g` with multinomial counts n_g. It has the noise of groups and none within a group.

    Attributes:
        size: A batch size b below that of the loss, (), so that runs may differ in it; None for that of the loss.
    """

    size: Any = None

    def draw(self, loss: MomentsLoss, key: Any, size: int) -> MomentsLoss:
        """Count the groups of a batch."""
        if np.ndim(self.size):
            shown = f"one run with batch sizes of shape {np.shape(self.size)}"
            raise InputError("loss_axes", shown, "give train_many those that with_batch_sizes describes")
        shares, counted = loss.moments.shares, size if self.size is None else self.size
        group = jnp.where(jnp.arange(size) < counted, _drawn_groups(key, shares, size), -1)
        counts = jnp.sum(group[:, None] == jnp.arange(shares.shape[-1]), axis=0).astype(shares.dtype)
        return loss._replace(moments=loss.moments._replace(shares=counts / counted))


@struct.dataclass
class NewPrompts:
    """Fresh prompts of a mixture at every step; drawing them takes about b·N·D normal numbers."""

    prompts: FreshPrompts
    blocks: str = struct.field(pytree_node=False)

    def draw(self, loss: MomentsLoss, key: Any, size: int) -> RowsLoss:
        """Draw the prompts of a batch and take their features."""
        which, what = jax.random.split(key)
        prompts = self.prompts.draw(what, _drawn_groups(which, loss.moments.shares, size))
        return RowsLoss(loss.graphdef, cubic_features(prompts, blocks=self.blocks), prompts.y_query, None)


@struct.dataclass
class Minibatches:
    """A loss of which training sees a new batch at every step. Called, it is the loss of all data.

    Attributes:
        loss: Loss of all data, the mean of the batches'.
        source: Where batches come from: `Rows`, `GroupCounts` or `NewPrompts`.
        key: Words of the random key, (2,), or (runs, 2) if each run draws its own batches.
        batch_size: b.
    """

    loss: Any
    source: Any
    key: Any
    batch_size: int = struct.field(pytree_node=False)

    def __call__(self, params: PyTree) -> Float[Array, ""]:
        return self.loss(params)

    def at_step(self, step: Any) -> Any:
        """Return the loss of the batch of a step.

        Raises:
            InputError: Runs have keys or batch sizes of their own, and `loss_axes` does not say so.
        """
        if np.ndim(self.key) != 1:
            shown = f"one run with a key of shape {np.shape(self.key)}"
            raise InputError("loss_axes", shown, "give train_many the loss and the loss_axes that own_batches returned")
        key = jax.random.fold_in(jax.random.wrap_key_data(self.key), step)
        return self.source.draw(self.loss, key, self.batch_size)

    def own_batches(self, runs: int) -> tuple[Minibatches, Minibatches]:
        """Give each run batches of its own.

        Returns:
            The loss and its `loss_axes`, for `train_many`. Without them all runs share the batches.
        """
        check_number("runs", runs, minimum=1, integer=True)
        keys = jax.random.key_data(jax.random.split(jax.random.wrap_key_data(self.key), runs))
        return self.replace(key=keys), self.axes(key=0)  # type: ignore[attr-defined]

    def with_batch_sizes(self, sizes: Any) -> Minibatches:
        """Give each run a batch size of its own, (runs,), at most that of the loss; for batches of groups.

        `train_many` needs `loss_axes=loss.axes(source=GroupCounts(0))`, with `key=0` too if each run draws its own.

        Raises:
            InputError: Batches are not drawn by group, or a size is no whole number from 1 to the loss's batch size.
        """
        values = as_floats("sizes", sizes)
        if not isinstance(self.source, GroupCounts):
            raise InputError("sizes", sizes, 'runs may differ in batch size with draw="groups" only')
        if not np.all((values >= 1) & (values <= self.batch_size) & (values == np.floor(values))):
            raise InputError("sizes", sizes, f"give whole numbers from 1 to {self.batch_size}")
        return self.replace(source=GroupCounts(device_array(values, int)))  # type: ignore[attr-defined]

    def axes(self, *, loss: Any = None, source: Any = None, key: int | None = None) -> Minibatches:
        """Return `loss_axes` for `train_many`: 0 for what has the axis of runs."""
        return Minibatches(loss, source, key, self.batch_size)


def make_minibatch_loss(
    model: nnx.Module,
    data: TaskMixture | Prompts | CompressedPrompts | Moments,
    *,
    batch_size: int,
    seed: int = 0,
    draw: str = "prompts",
    weight: Any = None,
    weighting: str = "sampling",
) -> tuple[Minibatches, dict[str, Array]]:
    """Build the loss of minibatches of a linear attention, and return it with the model's parameters.

    Rows of a finite set are gathered from its compressed features, so prompts are not touched in training. They are
    drawn with replacement.

    Args:
        model: A linear attention.
        data: A `TaskMixture`, or a finite set: `Prompts` or `CompressedPrompts`. `Moments` hold no examples to draw.
        batch_size: Number b of examples a step, at most that of a finite set.
        seed: Seed of the batches.
        draw: Of a mixture: `"prompts"` draws fresh prompts at every step; `"groups"` draws the group of each example,
            which then stands for the group's mean. It is cheaper and has no noise within groups.
        weight: Weight of each row of a finite set, (P,); the set's own by default.
        weighting: Of a finite set: `"sampling"` draws rows in proportion to their weights. `"loss"` draws them
            uniformly and weights their losses. The mean gradient is the same, its noise is not, and Adam sees the
            difference.

    Returns:
        `(loss, params)`; the loss is for `train` and `train_many`, with any optimizer.

    Raises:
        InputError: The batch is larger than the set, all of a group has weight or share zero, weights are invalid, the
            model is not linear, or an option does not fit the data.
    """
    check_choice("draw", draw, DRAWS)
    check_choice("weighting", weighting, WEIGHTINGS)
    check_number("batch_size", batch_size, minimum=1, integer=True)
    check_number("seed", seed, minimum=0, below=2**32, integer=True)
    if not getattr(model, "is_linear", False):
        raise InputError(
            "model", type(model).__name__, "minibatches are drawn from cubic features; give linear attention"
        )
    blocks: str = model.blocks  # type: ignore[attr-defined]
    source: Any
    if isinstance(data, TaskMixture):
        if weight is not None:
            raise InputError("weight", "given with a TaskMixture", "set the mixture's shares instead")
        if weighting != "sampling":
            raise InputError("weighting", weighting, "a TaskMixture has no rows to weight; set its shares instead")
        if not np.all(np.asarray(data.shares) > 0):
            raise InputError("shares", data.shares, "a group is never drawn; leave it out")
        full, params = make_loss(model, data)
        means = [full_population_moments(TaskMixture((group,), np.ones(1))).restricted(blocks) for group in data.groups]
        dtype = jax.tree.leaves(params)[0].dtype
        full = full._replace(moments=mixture_moments(means, np.asarray(data.shares, float), dtype=dtype))
        source = GroupCounts() if draw == "groups" else NewPrompts(FreshPrompts.of(data), blocks)
    elif isinstance(data, (Prompts, CompressedPrompts)):
        if draw != "prompts":
            raise InputError("draw", draw, "batches of a finite set are rows; leave it out, or give a TaskMixture")
        rows = compress(data, blocks=blocks) if isinstance(data, Prompts) else data
        weights = _checked_weights(rows, weight, batch_size)
        full, params = make_loss(model, rows.moments(weights))
        source = _rows(rows, weights, weighting, blocks)
    else:
        raise InputError("data", type(data).__name__, "give a TaskMixture, Prompts or CompressedPrompts")
    key = jax.random.key_data(jax.random.key(int(seed)))
    return Minibatches(full, source, key, int(batch_size)), params


def _checked_weights(rows: CompressedPrompts, weight: Any, batch_size: int) -> np.ndarray:
    count = len(rows.target)
    if batch_size > count:
        raise InputError(
            "batch_size", batch_size, f"the set has {count} examples; give at most that, or train full batch"
        )
    weights = rows.weight if weight is None else weight
    check_weights("weight", weights, count)
    weights, group = np.asarray(weights, float), np.zeros(count, int) if rows.group is None else np.asarray(rows.group)
    for index in np.unique(group):
        if not weights[group == index].any():
            raise InputError("weight", f"zero for all of group {index}", "it is never drawn; leave its examples out")
    return weights


def _rows(rows: CompressedPrompts, weights: np.ndarray, weighting: str, blocks: str) -> Rows:
    features = np.asarray(rows.features)
    if rows.blocks != blocks:  # reduced features come first among the full ones; `make_loss` refused the other way
        features = features[:, : rows.dim**2]
    found = Rows(device_array(features, float), device_array(np.asarray(rows.target), float))
    if np.all(weights == weights[0]):
        return found
    if weighting == "loss":
        return found._replace(loss_weight=device_array(weights / weights.mean(), float))
    keep, alias = alias_table(weights)
    return found._replace(keep=device_array(keep, np.float32), alias=device_array(alias, np.int32))


def alias_table(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Walker's alias table, which draws row p with probability `s_p / Σ s` from two uniform numbers.

    Draw a row uniformly. Keep it with its probability in the first array, else take its row in the second.

    Examples:
        >>> alias_table(np.array([1.0, 3.0]))
        (array([0.5, 1. ]), array([1, 1]))
    """
    scaled = (weights * len(weights) / weights.sum()).tolist()
    keep, alias = np.ones(len(weights)), np.arange(len(weights))
    small = [row for row, value in enumerate(scaled) if value < 1.0]
    large = [row for row, value in enumerate(scaled) if value >= 1.0]
    while small and large:
        low, high = small.pop(), large[-1]
        keep[low], alias[low] = scaled[low], high
        scaled[high] -= 1.0 - scaled[low]
        if scaled[high] < 1.0:
            small.append(large.pop())
    return keep, alias


def _drawn_groups(key: Any, shares: Any, size: int) -> Array:
    """Draw the group of each example, (b,)."""
    uniform = jax.random.uniform(key, (size,), shares.dtype)
    return jnp.sum(uniform[:, None] >= jnp.cumsum(shares)[:-1], axis=1)
