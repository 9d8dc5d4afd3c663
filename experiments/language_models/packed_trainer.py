"""Training of several seeds on packed batches, with losses recorded at steps that are evenly spaced in logarithm."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_models.packed_rows import Layout, flat, packed
from experiments.language_models.problems import order
from experiments.language_models.seeds import over_seeds
from icl_theory.llm.data.batches import Batch, Tokenized, pad
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.training.step import learning_rate_at, make_example_losses, make_step, model_of, start

BUCKETS = 4  # examples are evaluated in as many groups of similar length
TOGETHER = 32  # rows that are evaluated at once
MULTIPLE = 16  # they are padded to a multiple of this


@dataclasses.dataclass(frozen=True)
class Training:
    """Settings that all runs share.

    Attributes:
        optimizer: "adamw" or "muon".
        rate: peak of the learning rate, reached after `warmup` steps and followed by a half cosine to 0.
        batch_size: examples of a step.
        length: tokens of a row.
        steps: steps of a run of full length; arrays of other runs are padded to a multiple, so that few are compiled.
        warmup: steps of warm-up.
        decay: weight decay.
    """

    optimizer: str
    rate: float
    batch_size: int
    length: int
    steps: int
    warmup: int
    decay: float = 0.01


class Course(NamedTuple):
    """Training data of one seed in an arm.

    Attributes:
        indices: examples of the first half of the steps, repeated as often as they are drawn in an epoch.
        later: examples of the second half.
        weights: (P,) weight of each example in the loss; None for 1.
    """

    indices: np.ndarray
    later: np.ndarray
    weights: np.ndarray | None = None


class Run(NamedTuple):
    """A finished run.

    Attributes:
        steps: (T,) steps of the records.
        losses: (seeds, T, followed) loss of each followed example at each record.
        params: weights of each seed, stacked.
    """

    steps: np.ndarray
    losses: np.ndarray
    params: Any


class PackedTrainer:
    """Runs of several seeds from their starts.

    Args:
        training: settings of the runs.
        seeds: seeds of the orders.
        examples: training examples of each seed, those that are only for some arms at the end.
        models: model that each seed starts from.
    """

    def __init__(
        self,
        training: Training,
        seeds: Sequence[int],
        examples: Sequence[Sequence[Tokenized]],
        models: Sequence[Decoder],
    ):
        self.training, self.seeds = training, seeds
        self.flat = [flat(one) for one in examples]
        widest = max(map(len, examples)) * training.length  # the same for all seeds, so that one program serves them
        self.tokens, self.learned = (
            np.stack([np.pad(array, (0, widest - len(array))) for array in arrays])
            for arrays in zip(*(one[:2] for one in self.flat), strict=True)
        )
        self.graph = start(models[0], training.optimizer)[0]
        learners = [start(model, training.optimizer, weight_decay=training.decay)[1] for model in models]
        self.start = jax.tree.map(lambda *leaves: jnp.stack(leaves), *learners)
        self._examples = examples
        self._groups: dict[int, list[Any]] = {}

    def run(
        self,
        courses: Sequence[Course],
        num_steps: int,
        records: Sequence[int],
        *,
        followed: int,
        sharpness: str = "none",
        rho: float = 0.0,
        draw: int = 0,
        at_record: Callable[[int, Any], None] = lambda *_: None,
    ) -> Run:
        """Train every seed on its course.

        Args:
            courses: what each seed is trained on.
            num_steps: steps of the run.
            records: steps after which losses are recorded, ascending, the last `num_steps`; 0 is added.
            followed: number of examples, from the first, whose losses are recorded.
            sharpness: "none", "sam" or "fsam".
            rho: ρ of these.
            draw: another number gives another order.
            at_record: called with step and learner (seeds stacked) at each record, for further measurements.
        """
        settings, seeds = self.training, len(self.seeds)
        layout = self._layout(courses, num_steps, draw)
        advance = advance_of(self.graph, settings.optimizer, sharpness, settings.decay)
        rate_at = partial(learning_rate_at, peak=settings.rate, warmup=settings.warmup, total=num_steps)
        padded = layout.weights.shape[1]
        rates = np.tile(np.array([rate_at(step) for step in range(padded)], np.float32), (seeds, 1))
        inputs = jax.device_put((self.tokens, self.learned, layout, rates, np.full(seeds, rho, np.float32)))
        learner = jax.tree.map(jnp.copy, self.start)  # a copy, as each call reuses the memory of its learner
        steps = np.array([0, *records])
        groups = self._followed(followed)
        losses = [self.losses(learner.params, groups)]
        for begin, end in itertools.pairwise(steps):
            learner = advance(learner, *inputs, begin, end)
            losses.append(self.losses(learner.params, groups))
            at_record(int(end), learner)
        return Run(steps, np.stack(losses, 1), learner.params)

    def losses(self, params: Any, groups: Sequence[Any]) -> np.ndarray:
        """Return (seeds, P) the mean loss over learned tokens of the examples in groups of `buckets`."""
        found = np.empty((len(self.seeds), sum(rows.shape[1] for rows, _, _ in groups)), np.float32)
        for rows, tokens, learned in groups:
            np.put_along_axis(found, rows, np.asarray(losses_of(self.graph)(params, tokens, learned)), axis=1)
        return found

    def model(self, params: Any, place: int) -> Decoder:
        """Return the decoder of the seed at a place, with its weights among the stacked ones."""
        return model_of(self.graph, jax.tree.map(lambda leaf: leaf[place], params))

    def _followed(self, count: int) -> list[Any]:
        if count not in self._groups:
            self._groups[count] = list(buckets([own[:count] for own in self._examples]))
        return self._groups[count]

    def _layout(self, courses: Sequence[Course], num_steps: int, draw: int) -> Layout:
        size, half = self.training.batch_size, num_steps // 2
        layouts = []
        for seed, course, examples in zip(self.seeds, courses, self.flat, strict=True):
            parts = [order(course.indices, half * size, seed, draw)]
            if course.later is course.indices:
                parts = [order(course.indices, num_steps * size, seed, draw)]
            else:
                parts.append(order(course.later, (num_steps - half) * size, seed, draw + 1))
            weights = np.ones(len(examples.sizes)) if course.weights is None else course.weights
            batches = np.concatenate(parts).reshape(num_steps, size)
            layouts.append(packed(batches, weights, examples, self.training.length))
        most = max(layout.weights.shape[1] for layout in layouts)
        full = self.training.steps
        steps = -(-num_steps // full) * full
        return Layout(
            *(np.stack([_widened(array, steps, most) for array in arrays]) for arrays in zip(*layouts, strict=True))
        )


@cache
def advance_of(graph: Any, optimizer: str, sharpness: str, decay: float) -> Any:
    """Return the compiled function that takes some steps, the same for all trainers of one model."""
    step = make_step(graph, optimizer, sharpness=sharpness, weight_decay=decay)

    def one_seed(
        learner: Any, tokens: Any, learned: Any, layout: Layout, rates: Any, rho: Any, begin: Any, end: Any
    ) -> Any:
        def body(place: Any, learner: Any) -> Any:
            places, segments, weights = (array[place] for array in layout)
            batch = Batch(tokens[places], learned[places], weights, segments)
            return step(learner, batch, rates[place], rho)[0]

        return jax.lax.fori_loop(begin, end, body, learner)

    return over_seeds(one_seed, donated=0, shared=2)


@cache
def losses_of(graph: Any) -> Any:
    """Return the compiled function from weights, tokens and what is learned of them to losses."""
    one_row = make_example_losses(graph)

    def one_seed(params: Any, tokens: Any, learned: Any) -> Any:
        def of(row: Any) -> Any:
            return one_row(params, Batch(row[0][None], row[1][None], jnp.ones(1)))[0]

        return jax.lax.map(of, (tokens, learned), batch_size=TOGETHER)

    return over_seeds(one_seed)


def record_steps(num_steps: int, count: int) -> list[int]:
    """Return `count` steps from 1 to `num_steps`, evenly spaced in logarithm; fewer where they would coincide."""
    return np.unique(np.rint(np.geomspace(1, num_steps, count)).astype(int)).tolist()


def buckets(examples: Sequence[Sequence[Tokenized]]) -> Any:
    """Yield groups of similar length: (seeds, n) row numbers, (seeds, n, T) tokens and what is learned of them."""
    sizes = np.array([[len(example.tokens) for example in one] for one in examples])
    ordered = np.argsort(sizes, axis=1, kind="stable")
    for rows in np.array_split(ordered, BUCKETS, axis=1):
        if not rows.shape[1]:
            continue
        longest = -(-int(np.take_along_axis(sizes, rows, axis=1).max()) // MULTIPLE) * MULTIPLE
        batches = [pad([one[row] for row in own], longest) for one, own in zip(examples, rows, strict=True)]
        yield rows, np.stack([batch.tokens for batch in batches]), np.stack([batch.learned for batch in batches])


def _widened(array: np.ndarray, steps: int, rows: int) -> np.ndarray:
    """Pad an array of a layout to numbers of steps and rows."""
    return np.pad(array, [(0, steps - len(array)), (0, rows - array.shape[1])] + [(0, 0)] * (array.ndim - 2))
