"""`python -m experiments.arithmetic_study`: a small decoder learns easy and hard arithmetic; late examples upsampled, SAM, functional SAM.

The claim (theory notes, claim D): upsampling what is learned late, or SAM, lowers the simplicity bias and generalises better. Arms,
for AdamW and Muon each: plain; late examples upsampled by the rule, from the plain run of the same seed; the same factor on as
many examples at random, and on as many early ones; SAM and functional SAM at several ρ, at equal steps (twice the gradients) and
at equal gradients (half the steps). All seeds of an arm are one program.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.stats import t as student_t

import icl_theory as icl
from experiments.command_line import run
from icl_theory.errors import InputError
from icl_theory.llm.config import DecoderConfig
from icl_theory.llm.decoder import Decoder
from icl_theory.llm.step import Batch, learning_rate_at, make_example_losses, make_step, model_of, start
from icl_theory.store import machine

LETTERS = "0123456789+*=$ "
KINDS = {"a+b": 0.5, "ab+cd": 0.25, "abc+def": 0.1, "product": 0.15}  # share of each in the mixture
LENGTH = 13
TRAIN, TEST = 6000, 3000
LEARNING_RATE = {"adamw": 2e-3, "muon": 5e-3}  # of 2e-3 and 5e-3, and 5e-3 and 1e-2, what learned faster on seed 0
WARMUP, DECAY = 30, 0.01
RHOS = (0.02, 0.1)
CHUNK = 50  # steps between recorded losses


class Problems(NamedTuple):
    """Attributes: tokens (P, 13), learned (P, 13), kind (P,)."""

    tokens: np.ndarray
    learned: np.ndarray
    kind: np.ndarray


def problems(count: int, random: np.random.Generator) -> Problems:
    """Sums of one to three digits and products of numbers from 2 to 29, their digits from the last to the first."""
    tokens = np.full((count, LENGTH), LETTERS.index(" "), np.int32)
    learned = np.zeros((count, LENGTH), bool)
    kinds = random.choice(len(KINDS), count, p=list(KINDS.values()))
    for row, kind in enumerate(kinds):
        low, high = ((0, 10), (10, 100), (100, 1000), (2, 30))[kind]
        a, b = (int(number) for number in random.integers(low, high, 2))
        asked, answer = (f"{a}*{b}=", a * b) if kind == 3 else (f"{a}+{b}=", a + b)
        text = asked + str(answer)[::-1] + "$"
        tokens[row, : len(text)] = [LETTERS.index(letter) for letter in text]
        learned[row, len(asked) : len(text)] = True
    return Problems(tokens, learned, kinds)


def a_decoder(seed: int, width: int) -> Decoder:
    """Four layers, four heads."""
    config = DecoderConfig(len(LETTERS), width, 4 * width, 4, 4, 4, width // 4, gated=False)
    return Decoder(config, rngs=nnx.Rngs(seed))


class Study:
    """What all arms share: the problems and starts of each seed.

    Args:
        seeds: of problems, starts and orders.
        batch_size: rows of a step.
        width: of the decoder.
    """

    def __init__(self, seeds: int, batch_size: int, width: int):
        self.seeds, self.batch_size, self.width = seeds, batch_size, width
        draw = [np.random.default_rng([7, seed]) for seed in range(seeds)]
        self.train = Problems(*map(np.stack, zip(*(problems(TRAIN, one) for one in draw), strict=True)))
        self.test = Problems(*map(np.stack, zip(*(problems(TEST, one) for one in draw), strict=True)))
        self._programs: dict[Any, Any] = {}

    def run(
        self, optimizer: str, sharpness: str, rho: float, indices: list[np.ndarray], num_steps: int
    ) -> dict[str, Any]:
        """Train every seed on its set of rows; losses of all problems over training, and who is right in the end."""
        models = [a_decoder(seed, self.width) for seed in range(self.seeds)]
        graph = start(models[0], optimizer)[0]
        learners = [start(model, optimizer, weight_decay=DECAY)[1] for model in models]
        learner = jax.tree.map(lambda *leaves: jnp.stack(leaves), *learners)
        advance, losses_of, right_of = self._program(graph, optimizer, sharpness)
        rows = np.stack([_order(one, num_steps * self.batch_size, seed) for seed, one in enumerate(indices)])
        rows = rows.reshape(self.seeds, num_steps, self.batch_size)
        rates = [
            learning_rate_at(step, peak=LEARNING_RATE[optimizer], warmup=WARMUP, total=num_steps)
            for step in range(num_steps)
        ]
        steps, losses = [0], [losses_of(learner.params)]
        for begin in range(0, num_steps, CHUNK):
            taken = slice(begin, begin + CHUNK)
            learner = advance(learner, rows[:, taken], np.array(rates[taken], np.float32), np.float32(rho))
            steps.append(begin + CHUNK)
            losses.append(losses_of(learner.params))
        return {
            "steps": steps,
            "losses": np.stack([np.asarray(one) for one in losses], 1),
            "right": np.asarray(right_of(learner.params)),
        }

    def _program(self, graph: Any, optimizer: str, sharpness: str) -> Any:
        if (optimizer, sharpness) in self._programs:
            return self._programs[optimizer, sharpness]
        step = make_step(graph, optimizer, sharpness=sharpness, weight_decay=DECAY)
        train, test = jax.device_put((self.train, self.test))

        def one_seed(learner: Any, tokens: Any, learned: Any, rows: Any, rates: Any, rho: Any) -> Any:
            def body(learner: Any, now: Any) -> Any:
                chosen, rate = now
                batch = Batch(tokens[chosen], learned[chosen], jnp.ones(self.batch_size))
                return step(learner, batch, rate, rho)[0], None

            return jax.lax.scan(body, learner, (rows, rates))[0]

        many = jax.jit(jax.vmap(one_seed, in_axes=(0, 0, 0, 0, None, None)))
        losses = jax.jit(jax.vmap(partial(_losses, make_example_losses(graph)), in_axes=(0, 0, 0)))
        right = jax.jit(jax.vmap(partial(_right, graph), in_axes=(0, 0, 0)))
        self._programs[optimizer, sharpness] = (
            lambda learner, rows, rates, rho: many(learner, train.tokens, train.learned, rows, rates, rho),
            lambda params: losses(params, train.tokens, train.learned),
            lambda params: right(params, test.tokens, test.learned),
        )
        return self._programs[optimizer, sharpness]


def _losses(losses_of: Any, params: Any, tokens: Any, learned: Any) -> Any:
    return losses_of(params, Batch(tokens, learned, jnp.ones(len(tokens))))


def _right(graph: Any, params: Any, tokens: Any, learned: Any) -> Any:
    """Whether greedy generation would give the whole answer: every learned token the likeliest after those before it."""
    likeliest = model_of(graph, params)(tokens).argmax(-1)[:, :-1]
    return ((likeliest == tokens[:, 1:]) | ~learned[:, 1:]).all(1)


def _order(indices: np.ndarray, length: int, seed: int) -> np.ndarray:
    """Epochs of a set, each in an order of its own, up to a length."""
    random = np.random.default_rng([11, seed])
    return np.concatenate([random.permutation(indices) for _ in range(-(-length // len(indices)))])[:length]


def summary(study: Study, found: dict[str, Any], late: np.ndarray) -> dict[str, Any]:
    """Of each seed: accuracy, by kind too, and mean relative losses of early and late examples over training."""
    right, kind = found["right"], study.test.kind
    summed: dict[str, Any] = {
        "accuracy": right.mean(1).tolist(),
        "by_kind": {
            name: [float(right[seed][kind[seed] == place].mean()) for seed in range(study.seeds)]
            for place, name in enumerate(KINDS)
        },
        "steps": found["steps"],
    }
    relative = found["losses"] / found["losses"][:, :1]
    for name, group in (("early", ~late), ("late", late)):
        summed[name] = [
            relative[seed][:, group[seed]].mean(1).round(4).tolist() if group[seed].any() else None
            for seed in range(study.seeds)
        ]
    return summed


def compared(arms: dict[str, Any]) -> list[str]:
    """A line for each arm: mean accuracy, and its difference from plain and from the random control of the same optimizer,
    paired by seed, with the 95 % interval of Student's t."""
    lines = [f"{'arm':32} accuracy       minus plain      minus random"]
    for name, arm in arms.items():
        accuracy = np.array(arm["accuracy"])
        against = []
        for other in ("plain", "random"):
            mean, half = paired(accuracy - np.array(arms[f"{name.split()[0]} {other}"]["accuracy"]))
            against.append(f"{mean:+.3f} ± {half:.3f}")
        lines.append(f"{name:32} {accuracy.mean():.3f}    {against[0]}    {against[1]}")
    return lines


def paired(differences: np.ndarray) -> tuple[float, float]:
    """Mean, and half of its 95 % interval."""
    count = len(differences)
    half = student_t.ppf(0.975, count - 1) * differences.std(ddof=1) / count**0.5
    return float(differences.mean()), float(half)


@click.command()
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(2))
@click.option("--num-steps", default=600, show_default=True, type=click.IntRange(2 * CHUNK))
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))
@click.option("--width", default=96, show_default=True, type=click.IntRange(8))
@click.option("--out", default="results/arithmetic-study.json", show_default=True, type=click.Path(path_type=Path))
def main(seeds: int, num_steps: int, batch_size: int, width: int, out: Path) -> None:
    """Train all arms and save what came out, arm by arm; what is in a file that is there already is shown."""
    if out.exists():
        try:
            found = json.loads(out.read_text())
            click.echo("\n".join([f"{out}: {found['settings']}", *compared(found["arms"])]))
        except (ValueError, KeyError, TypeError):
            raise InputError(
                "--out", str(out), "it exists and holds no finished study; give another or remove it"
            ) from None
        return
    study = Study(seeds, batch_size, width)
    settings = {"seeds": seeds, "num_steps": num_steps, "batch_size": batch_size, "width": width}
    saved: dict[str, Any] = {"machine": machine(), "settings": settings, "arms": {}}
    out.parent.mkdir(parents=True, exist_ok=True)
    whole = [np.arange(TRAIN)] * seeds
    for optimizer in LEARNING_RATE:
        plain = study.run(optimizer, "none", 0.0, whole, num_steps)
        records = [icl.LossRecord(plain["steps"], plain["losses"][seed]) for seed in range(seeds)]
        found = [icl.upsample(record) for record in records]
        late = np.stack([one.late for one in found])

        def keep(name: str, result: dict[str, Any], optimizer: str = optimizer, late: Any = late, **more: Any) -> None:
            summed = summary(study, result, late) | more
            saved["arms"][f"{optimizer} {name}"] = summed
            out.write_text(json.dumps(saved, indent=1) + "\n")
            accuracy = np.array(summed["accuracy"])
            kinds = {kind: round(float(np.mean(values)), 3) for kind, values in summed["by_kind"].items()}
            print(
                f"{time.strftime('%X')} {optimizer} {name}: {accuracy.mean():.3f} ± {accuracy.std():.3f} {kinds}",
                flush=True,
            )

        keep("plain", plain, factors=[one.factor for one in found], ratios=[one.ratio for one in found])
        for group in ("late", "random", "early"):
            chosen = [
                icl.upsample(record, factor=one.factor, group=group, seed=seed).indices(seed=seed)
                for seed, (record, one) in enumerate(zip(records, found, strict=True))
            ]
            keep(group, study.run(optimizer, "none", 0.0, chosen, num_steps))
        for sharpness in ("sam", "fsam"):
            for rho in RHOS:
                keep(f"{sharpness} {rho:g}", study.run(optimizer, sharpness, rho, whole, num_steps))
                keep(
                    f"{sharpness} {rho:g}, half the steps", study.run(optimizer, sharpness, rho, whole, num_steps // 2)
                )
    click.echo("\n".join([*compared(saved["arms"]), f"wrote {out}"]))


if __name__ == "__main__":
    run(main, "arithmetic-study")
