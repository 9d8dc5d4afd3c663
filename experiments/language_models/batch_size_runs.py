"""Runs of the study of batch sizes, for one optimizer, batch size and seed: a pilot, plain, and two upsampled.

A pilot run, in an order of its own, says which examples are late and at what steps either group is learned. The noise
scale of both groups is measured at four of its states. Then three runs share start and order: plain, the late × κ, and
as many random examples × κ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import icl_theory as icl
from experiments.language_models.arithmetic_study import KINDS, a_decoder, problems
from experiments.language_models.problems import Problems, order
from experiments.language_models.trainer import PILOT_DRAW, answered
from icl_theory.llm.data.batches import Batch, Tokenized
from icl_theory.llm.optimizers.adamw_muon import build_optimizer
from icl_theory.llm.training.noise_scale import measure_noise
from icl_theory.llm.training.step import batch_loss, make_example_losses, model_of, start, token_total
from icl_theory.upsampling.noise_scale import joined
from icl_theory.upsampling.optimizer_rule import median_times

OPTIMIZERS = ("adamw", "muon", "sgd")
ARMS = ("plain", "late", "random")
REFERENCE = 32  # batch size at which rates are given
MOMENTUM, DECAY = 0.9, 0.01
TOGETHER = 500  # examples whose losses are computed at once


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the study.

    Rates are for batches of 32 and grow with the root of the batch size. They rise over a twentieth of the steps, and
    fall to 0 over the last quarter. Gradients are not clipped.

    Attributes:
        seeds: number of seeds, each for problems, start and order.
        examples: number of examples that each run sees; batch sizes divide it.
        batches: batch sizes.
        factor: κ of the late and of the random examples.
        late: quantile of the pilot's learning steps above which examples are late.
        adamw_rate: learning rate of AdamW, as in the study of arithmetic.
        muon_rate: learning rate of Muon: the better of 0.01 and 0.005 on seed 100, at both ends of the batch sizes.
        sgd_rate: learning rate of SGD with momentum 0.9: the better of 0.1 and 0.03 on seed 100, outside the study.
        records: number of records of the losses, at steps even in their logarithm.
        followed: number of examples whose losses are recorded, except in the pilot run.
        width: width of the decoder.
        layers: number of layers of the decoder.
        train: number of problems to train on.
        test: number of problems to test on.
    """

    seeds: int = 8
    examples: int = 153600
    batches: tuple[float, ...] = (8, 32, 128, 512)
    factor: float = 4.0
    late: float = 0.75
    adamw_rate: float = 2e-3
    muon_rate: float = 5e-3
    sgd_rate: float = 0.03
    records: int = 40
    followed: int = 1500
    width: int = 64
    layers: int = 2
    train: int = 6000
    test: int = 3000

    def __post_init__(self) -> None:
        for size in self.batches:
            if size < 1 or self.examples % size:
                raise icl.InputError("batches", size, f"it must divide the {self.examples} examples of a run")
            if size > self.train:
                raise icl.InputError("batches", size, f"the set has {self.train} examples; give at most as many")

    def rate(self, optimizer: str, batch_size: int) -> float:
        """Return the learning rate of an optimizer at a batch size."""
        known = {"adamw": self.adamw_rate, "muon": self.muon_rate, "sgd": self.sgd_rate}
        return known[optimizer] * (batch_size / REFERENCE) ** 0.5


class Task:
    """All runs of one optimizer, batch size and seed.

    Args:
        settings: settings of the study.
        optimizer: a name in `OPTIMIZERS`.
        batch_size: rows of a step.
        seed: seed of problems, start and order.
    """

    def __init__(self, settings: Settings, optimizer: str, batch_size: int, seed: int):
        self.settings, self.optimizer, self.batch_size, self.seed = settings, optimizer, batch_size, seed
        random = np.random.default_rng([7, seed])
        self.train, self.test = problems(settings.train, random), problems(settings.test, random)
        self.num_steps = settings.examples // batch_size
        self.graph, learner = start(a_decoder(seed, settings.width, settings.layers), "adamw")
        self.params = learner.params
        self.advance, self.losses_of, self.answered = _programs(optimizer, settings.width, settings.layers)

    @property
    def steps(self) -> list[int]:
        """Steps at which losses are recorded."""
        spaced = np.geomspace(1, self.num_steps, self.settings.records)
        return [0, *np.unique(np.rint(spaced).astype(int)).tolist()]

    def pilot(self) -> dict[str, Any]:
        """Train the pilot run; return who is late, learning steps of both groups, and the noise scale's fields."""
        ends = (0, *(max(self.num_steps // part, 1) for part in (16, 4, 1)))
        kept: dict[int, Any] = {}
        nearest = {min(self.steps, key=lambda step, end=end: abs(step - end)) for end in ends}  # type: ignore[misc]
        found = self._run(np.arange(self.settings.train), self.settings.train, draw=PILOT_DRAW, kept=kept, keep=nearest)
        record = icl.LossRecord(found["steps"], found["losses"])
        chosen = icl.upsample(record, late=f"quantile={self.settings.late}", factor=self.settings.factor)
        if not chosen.late.any():
            return {"late": None, "accuracy": found["accuracy"]}
        examples = [Tokenized(*row) for row in zip(self.train.tokens, self.train.learned, strict=True)]
        parts = [
            measure_noise(model_of(self.graph, params), examples, chosen.late, step=step, together=32, seed=self.seed)
            for step, params in kept.items()
        ]
        noise = {f"noise_{name}": value for name, value in joined(parts)._asdict().items()}
        times = np.array(median_times(chosen.times, chosen.late, float(found["steps"][-1])))
        return {"late": chosen.late, "times": times, "accuracy": found["accuracy"], **noise}

    def arm(self, name: str, late: np.ndarray) -> dict[str, Any]:
        """Train an arm; return losses over training and answers.

        Args:
            name: "plain", "late" or "random".
            late: True for late examples.
        """
        group = {"plain": np.zeros_like(late), "late": late, "random": icl.random_group(late, seed=self.seed)}[name]
        copies = icl.example_copies(group, self.settings.factor, seed=self.seed)
        return self._run(np.repeat(np.arange(len(copies)), copies), self.settings.followed)

    def _run(
        self, indices: np.ndarray, followed: int, *, draw: int = 0, kept: Any = None, keep: Any = frozenset()
    ) -> dict[str, Any]:
        drawn = order(indices, self.settings.examples, self.seed, draw)
        rows = jnp.asarray(drawn.reshape(self.num_steps, self.batch_size))
        tokens, learned = jnp.asarray(self.train.tokens), jnp.asarray(self.train.learned)
        params = jax.tree.map(jnp.copy, self.params)
        state = _transformation(self.optimizer).init(params)
        peak = self.settings.rate(self.optimizer, self.batch_size)
        rates = jnp.asarray(peak * rate_of(np.arange(self.num_steps), self.num_steps), jnp.float32)
        losses, before = [], 0
        for step in self.steps:
            params, state = self.advance(params, state, tokens, learned, rows, rates, before, step)
            losses.append(_losses(partial(self.losses_of, params), self.train, followed))
            if step in keep:
                kept[step] = jax.tree.map(np.asarray, params)
            before = step
        right, loss = map(np.asarray, self.answered(params, self.test.tokens, self.test.learned))
        by_kind = [float(right[self.test.kind == kind].mean()) for kind in range(len(KINDS))]
        return {
            "steps": np.array(self.steps),
            "losses": np.nan_to_num(np.stack(losses), nan=1e3, posinf=1e3).astype(np.float32),
            "accuracy": float(right.mean()),
            "loss": float(loss.mean()),
            "by_kind": np.array(by_kind),
        }


def rate_of(step: np.ndarray, num_steps: int) -> np.ndarray:
    """Return the share of the peak rate: it rises over a twentieth of the steps and falls over the last quarter."""
    rise = (step + 1) / max(num_steps // 20, 1)
    return np.minimum(1.0, np.minimum(rise, (num_steps - step) / max(num_steps / 4, 1.0)))


def _transformation(optimizer: str) -> optax.GradientTransformation:
    if optimizer == "sgd":
        return optax.sgd(1.0, momentum=MOMENTUM)
    return build_optimizer(optimizer, weight_decay=DECAY)


@cache
def _programs(
    optimizer: str, width: int, layers: int
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return the compiled functions of all tasks of one optimizer: steps, losses of examples, and answers."""
    graph, _ = start(a_decoder(0, width, layers), "adamw")
    transformation = _transformation(optimizer)

    def loss_of(params: Any, batch: Batch) -> Any:
        model = model_of(graph, params)
        return batch_loss(model, model.hidden(batch.tokens), batch, token_total(batch))

    def advance(params: Any, state: Any, tokens: Any, learned: Any, rows: Any, rates: Any, begin: Any, end: Any) -> Any:
        def step(place: Any, both: Any) -> Any:
            params, state = both
            batch = Batch(tokens[rows[place]], learned[rows[place]], jnp.ones(rows.shape[1]))
            updates, state = transformation.update(jax.grad(loss_of)(params, batch), state, params)
            return jax.tree.map(lambda p, u: p + rates[place] * u, params, updates), state

        return jax.lax.fori_loop(begin, end, step, (params, state))

    return (
        jax.jit(advance, donate_argnums=(0, 1)), make_example_losses(graph), jax.jit(partial(answered, graph))
    )  # fmt: skip


def _losses(losses_of: Callable[[Batch], Any], given: Problems, count: int) -> np.ndarray:
    """Return the losses of the first examples, computed in parts of one shape."""
    parts = []
    for begin in range(0, count, TOGETHER):
        rows = np.arange(begin, begin + TOGETHER) % len(given.tokens)
        parts.append(
            np.asarray(losses_of(Batch(given.tokens[rows], given.learned[rows], np.ones(TOGETHER, np.float32))))
        )
    return np.concatenate(parts)[:count]
