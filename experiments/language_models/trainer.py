"""The arms of a study of language models: one optimizer, trained on a set as it is, upsampled, or under SAM.

A pilot run finds the late examples and their factor, in an order of its own, so that no arm shares its luck. All arms
then have one start and one seed of the order: plain; the late upsampled; as many random or early examples upsampled by
the same factor; SAM and functional SAM at equal steps (twice the gradients) and at equal gradients (half the steps).
Upsampled sets have equal steps too. On request there are two arms at equal epochs, as the published recipe has them:
the late half taken twice, with half as many steps more, and plain with as many steps, which shows what longer training
does alone. The cost of the pilot is not counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import icl_theory as icl
from experiments.language_models.learning import learning
from experiments.language_models.problems import Problems, order, unseen
from experiments.language_models.seeds import over_seeds
from icl_theory.llm.data.batches import Batch
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.optimizers.sam import SHARPNESS
from icl_theory.llm.training.losses import token_losses
from icl_theory.llm.training.step import learning_rate_at, make_example_losses, make_step, model_of, start

OPTIMIZERS = ("adamw", "muon")
TOGETHER = 32  # rows that are evaluated at once; all their logits are held in memory
PILOT = "pilot"  # name of the run that finds the late examples
PILOT_DRAW = 1000  # number of the draw of its order


@dataclasses.dataclass(frozen=True)
class Plan:
    """Settings that the arms of one optimizer share.

    Attributes:
        optimizer: "adamw" or "muon".
        seeds: seeds of orders and draws; several are trained together, as one program.
        num_steps: steps of a run at full length, a multiple of `2 records`, so that half of it ends at a record.
        rate: peak of the learning rate, reached after `warmup` steps and followed by a half cosine to 0.
        batch_size: rows of a step.
        rhos: ρ of SAM and functional SAM.
        records: how often losses are recorded in a run at full length.
        followed: number of examples whose losses are recorded in all arms; the pilot run records all, for the rule.
        warmup: steps of warm-up.
        decay: weight decay.
        equal_epochs: whether to add the arms at equal epochs.
    """

    optimizer: str
    seeds: tuple[int, ...]
    num_steps: int
    rate: float
    batch_size: int
    rhos: tuple[float, ...]
    records: int = 20
    followed: int = 1000
    warmup: int = 30
    decay: float = 0.01
    equal_epochs: bool = False

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.num_steps % (2 * self.records):
            raise icl.InputError(f"{self.optimizer} steps", self.num_steps, f"give a multiple of {2 * self.records}")
        if not self.rhos or min(self.rhos) < 0:
            raise icl.InputError("rhos", self.rhos, "give numbers from 0")

    @property
    def num_arms(self) -> int:
        """Number of arms."""
        return 4 + 4 * len(self.rhos) + 2 * self.equal_epochs


def all_arms(
    trainer: Trainer,
    known: Mapping[str, Any] = MappingProxyType({}),
    said: Callable[[str, dict[str, Any]], None] = lambda *_: None,
) -> dict[str, Any]:
    """Train every arm of a plan; return by name, which begins with the optimizer's, what `Trainer.summary` says of it
    and the factor of each seed.

    Args:
        trainer: trainer of the plan.
        known: arms that are done already, and the losses of the pilot run, under the same names.
        said: function called with the name and content of each other arm when done, and of the pilot's losses.
    """
    plan, count = trainer.plan, trainer.train.tokens.shape[1]
    whole = [np.arange(count)] * len(plan.seeds)
    pilot = known.get(first := f"{plan.optimizer} {PILOT}")
    if pilot is None:
        found = trainer.run("none", 0.0, whole, plan.num_steps, followed=count, draw=PILOT_DRAW)
        pilot = {"steps": found["steps"], "losses": found["losses"].tolist()}
        said(first, pilot)
    records = [icl.LossRecord(pilot["steps"], np.array(losses, np.float32)) for losses in pilot["losses"]]
    picked = [icl.upsample(record) for record in records]

    def upsampled(group: str, factor: float | None = None) -> list[np.ndarray]:
        return [
            icl.upsample(record, factor=factor or one.factor, group=group, seed=seed).indices(seed=seed)
            for seed, record, one in zip(plan.seeds, records, picked, strict=True)
        ]

    steps, half, longer = plan.num_steps, plan.num_steps // 2, 3 * plan.num_steps // 2
    wanted = {"plain": partial(trainer.run, "none", 0.0, whole, steps)}
    for group in ("late", "random", "early"):
        wanted[group] = partial(trainer.run, "none", 0.0, upsampled(group), steps)
    for sharpness in ("sam", "fsam"):
        for rho in plan.rhos:
            wanted[f"{sharpness} {rho:g}"] = partial(trainer.run, sharpness, rho, whole, steps)
            wanted[f"{sharpness} {rho:g}, half the steps"] = partial(trainer.run, sharpness, rho, whole, half)
    if plan.equal_epochs:
        wanted["late × 2, equal epochs"] = partial(trainer.run, "none", 0.0, upsampled("late", 2.0), longer)
        wanted["plain, 1½ × the steps"] = partial(trainer.run, "none", 0.0, whole, longer)
    arms: dict[str, Any] = {}
    for short, run in wanted.items():
        name = f"{plan.optimizer} {short}"
        arms[name] = known.get(name) or trainer.summary(run(), picked) | {"factors": [one.factor for one in picked]}
        if name not in known:
            said(name, arms[name])
    return arms


class Trainer:
    """Runs of one optimizer from the starts of some seeds, each kind of step compiled once.

    Args:
        plan: settings of the arms.
        train: training problems of each seed, arrays stacked along a first axis.
        test: test problems of each seed, stacked the same way.
        kinds: names of the kinds of problems.
        models: model that each seed starts from.
    """

    def __init__(self, plan: Plan, train: Problems, test: Problems, kinds: Sequence[str], models: Sequence[Decoder]):
        self.plan, self.train, self.test, self.kinds = plan, train, test, kinds
        self.unseen = [unseen(*both) for both in zip(test.tokens, train.tokens, strict=True)]
        self.graph = start(models[0], plan.optimizer)[0]
        learners = [start(model, plan.optimizer, weight_decay=plan.decay)[1] for model in models]
        self.start = jax.tree.map(lambda *leaves: jnp.stack(leaves), *learners)
        self._losses = over_seeds(partial(_losses, make_example_losses(self.graph)))
        self._answered = over_seeds(partial(answered, self.graph))
        self._steps: dict[str, Any] = {}

    def run(
        self,
        sharpness: str,
        rho: float,
        indices: list[np.ndarray],
        num_steps: int,
        followed: int | None = None,
        draw: int = 0,
    ) -> dict[str, Any]:
        """Train every seed on its `indices` into its problems; return losses over training and the final answers.

        `draw` selects another draw of the order.
        """
        plan = self.plan
        size, chunk, seeds = plan.batch_size, plan.num_steps // plan.records, len(plan.seeds)
        rows = np.stack(
            [order(one, num_steps * size, seed, draw) for seed, one in zip(plan.seeds, indices, strict=True)]
        )
        rows = rows.reshape(seeds, num_steps, size)
        rates = [
            learning_rate_at(step, peak=plan.rate, warmup=plan.warmup, total=num_steps) for step in range(num_steps)
        ]
        advance = self._advance(sharpness)
        tokens, learned = (array[:, : followed or plan.followed] for array in (self.train.tokens, self.train.learned))
        learner = jax.tree.map(jnp.copy, self.start)  # a copy, as each call reuses the memory of its learner
        steps, losses = [0], [self._losses(learner.params, tokens, learned)]
        for begin in range(0, num_steps, chunk):
            taken = slice(begin, begin + chunk)
            now, rhos = np.tile(np.array(rates[taken], np.float32), (seeds, 1)), np.full(seeds, rho, np.float32)
            learner = advance(learner, self.train.tokens, self.train.learned, rows[:, taken], now, rhos)
            steps.append(begin + chunk)
            losses.append(self._losses(learner.params, tokens, learned))
        return {
            "steps": steps,
            "losses": np.stack([np.asarray(one) for one in losses], 1),
            "answered": self.answers(learner.params),
        }

    def answers(self, params: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Return (seeds, P) whether each test answer is right, and (seeds, P) losses; by default before training."""
        params = self.start.params if params is None else params
        right, losses = self._answered(params, self.test.tokens, self.test.learned)
        return np.asarray(right), np.asarray(losses)

    def accuracies(self, right: np.ndarray, losses: np.ndarray) -> dict[str, Any]:
        """Return for each seed the mean loss and accuracies: of all, of those unseen in training, of each kind."""
        return {
            "accuracy": right.mean(1).tolist(),
            "loss": losses.mean(1, dtype=float).round(4).tolist(),
            "unseen": [
                float(one[new].mean()) if new.any() else None for one, new in zip(right, self.unseen, strict=True)
            ],
            "by_kind": {
                name: [float(one[kind == place].mean()) for one, kind in zip(right, self.test.kind, strict=True)]
                for place, name in enumerate(self.kinds)
            },
        }

    def compile(self, pool: Executor) -> None:
        """Begin to compile all kinds of steps in parallel; without this call each is compiled at its first use."""
        chunk = self.plan.num_steps // self.plan.records
        seeds, size = len(self.plan.seeds), self.plan.batch_size
        arguments = (
            self.start,
            self.train.tokens,
            self.train.learned,
            np.zeros((seeds, chunk, size), int),
            np.zeros((seeds, chunk), np.float32),
            np.zeros(seeds, np.float32),
        )
        steps = {sharpness: self._advance(sharpness) for sharpness in SHARPNESS}
        for sharpness, step in steps.items():
            compiled = pool.submit(lambda step, arguments: step.lower(*arguments).compile(), step, arguments)
            self._steps[sharpness] = partial(_call, compiled)

    def summary(self, found: dict[str, Any], picked: Sequence[icl.Upsampling]) -> dict[str, Any]:
        """Return for each seed accuracies, and how the examples of its pilot run were learned (`learning`)."""
        known = {"steps": found["steps"]} | learning(found["steps"], found["losses"], picked)
        return self.accuracies(*found["answered"]) | known

    def _advance(self, sharpness: str) -> Any:
        if sharpness not in self._steps:
            plan = self.plan
            step = make_step(self.graph, plan.optimizer, sharpness=sharpness, weight_decay=plan.decay)

            def one_seed(learner: Any, tokens: Any, learned: Any, rows: Any, rates: Any, rho: Any) -> Any:
                def body(learner: Any, now: Any) -> Any:
                    chosen, rate = now
                    batch = Batch(tokens[chosen], learned[chosen], jnp.ones(len(chosen)))
                    return step(learner, batch, rate, rho)[0], None

                return jax.lax.scan(body, learner, (rows, rates))[0]

            self._steps[sharpness] = over_seeds(one_seed, donated=0)
        return self._steps[sharpness]


def answered(graph: Any, params: Any, tokens: Any, learned: Any) -> tuple[Any, Any]:
    """Return (P,) whether greedy generation would give the whole answer, as every learned token is the likeliest after
    those before it; and (P,) the mean loss of learned tokens."""
    model = model_of(graph, params)

    def of(row: Any) -> Any:
        logits, targets, asked = model(row[0][None])[0, :-1], row[0][1:], row[1][1:]
        right = ((logits.argmax(-1) == targets) | ~asked).all()
        return right, jnp.where(asked, token_losses(logits, targets), 0.0).sum() / jnp.maximum(asked.sum(), 1)

    return jax.lax.map(of, (tokens, learned), batch_size=TOGETHER)


def _losses(losses_of: Any, params: Any, tokens: Any, learned: Any) -> Any:
    return losses_of(params, Batch(tokens, learned, jnp.ones(len(tokens))))


def _call(compiled: Future[Any], *arguments: Any) -> Any:
    return compiled.result()(*arguments)
