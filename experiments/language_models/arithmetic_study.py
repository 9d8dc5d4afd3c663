"""Study of a small decoder that learns easy and hard arithmetic (`make study`).

`python -m experiments.language_models.arithmetic_study` tests claim D of the theory notes: upsampling what is learned
late, or SAM, lowers the simplicity bias and generalises better. The arms are those of `trainer`. Each seed has its own
problems, start and order, the same in all arms, so that arms are compared seed by seed. On CPU each pair of seed and
optimizer is a task on a core of its own, and finished tasks are kept when the command is stopped. On an accelerator all
seeds are one program.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np
from flax import nnx

from experiments.language_models.problems import Problems, stacked
from experiments.language_models.seeds import on_cores
from experiments.language_models.trainer import OPTIMIZERS, PILOT, Plan, Trainer, all_arms
from icl_theory.cli.one_line import run
from icl_theory.cli.options import NumberList, short_hash
from icl_theory.environment import code_version
from icl_theory.errors import InputError
from icl_theory.llm.evaluation.study import Arms, check_same, merged, save_study, shown
from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.decoder import Decoder
from icl_theory.progress import ProgressReport
from icl_theory.results import plain

LETTERS = "0123456789+*=$ "
KINDS = {"a+b": 0.5, "ab+cd": 0.25, "abc+def": 0.1, "product": 0.15}  # share of each in the mixture
LENGTH = 13


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the study; the defaults take a quarter of an hour on two cores.

    Attributes:
        seeds: number of seeds, each for problems, start and order.
        adamw_steps: steps of a run with AdamW, a multiple of 40.
        muon_steps: steps of a run with Muon, a multiple of 40; fewer suffice, as Muon learns faster.
        adamw_rate: learning rate of AdamW: of several, a factor of two apart, the one that learned most on seeds 100
            and 101 without upsampling.
        muon_rate: learning rate of Muon, chosen the same way.
        batch_size: rows of a step.
        width: width of the decoder.
        layers: number of layers of the decoder.
        train: number of problems to train on.
        test: number of problems to test on.
        rhos: ρ of SAM and functional SAM.
        equal_epochs: whether to add arms at equal epochs, which take more steps.
    """

    seeds: int = 5
    adamw_steps: int = 2400
    muon_steps: int = 1000
    adamw_rate: float = 2e-3
    muon_rate: float = 1e-2
    batch_size: int = 32
    width: int = 64
    layers: int = 2
    train: int = 6000
    test: int = 3000
    rhos: tuple[float, ...] = (0.02,)
    equal_epochs: bool = False

    def plan(self, optimizer: str, seeds: tuple[int, ...]) -> Plan:
        """Return the settings of the arms of one optimizer.

        Raises:
            InputError: the number of steps or ρ is not valid.
        """
        steps = {"adamw": self.adamw_steps, "muon": self.muon_steps}[optimizer]
        rate = {"adamw": self.adamw_rate, "muon": self.muon_rate}[optimizer]
        return Plan(optimizer, seeds, steps, rate, self.batch_size, self.rhos, equal_epochs=self.equal_epochs)

    def trainer(self, optimizer: str, seeds: tuple[int, ...]) -> Trainer:
        """Return a trainer with the problems and starts of some seeds."""
        train, test = [], []
        for seed in seeds:
            random = np.random.default_rng([7, seed])
            train.append(problems(self.train, random))
            test.append(problems(self.test, random))
        models = [a_decoder(seed, self.width, self.layers) for seed in seeds]
        return Trainer(self.plan(optimizer, seeds), stacked(train), stacked(test), list(KINDS), models)


def problems(count: int, random: np.random.Generator) -> Problems:
    """Draw sums of one to three digits and products of numbers from 2 to 29; the digits of answers are reversed."""
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


def a_decoder(seed: int, width: int, layers: int, letters: int = len(LETTERS)) -> Decoder:
    """Return a decoder with four heads and an MLP four times as wide as the decoder."""
    config = DecoderConfig(letters, width, 4 * width, layers, 4, 4, width // 4, gated=False)
    return Decoder(config, rngs=nnx.Rngs(seed))


def seeds_together(settings: Settings, report: Callable[..., None]) -> Arms:
    """Train all arms, all seeds of an arm at once."""
    arms: Arms = {}
    trainers = [settings.trainer(optimizer, tuple(range(settings.seeds))) for optimizer in OPTIMIZERS]
    count = sum(trainer.plan.num_arms for trainer in trainers)

    def said(name: str, arm: dict[str, Any]) -> None:
        if name.split()[-1] == PILOT:
            return
        arms[name] = arm
        report("training", len(arms), count, f"{name}: {np.mean(arm['accuracy']):.3f}")

    for trainer in trainers:
        all_arms(trainer, said=said)
    return arms


def seeds_apart(settings: Settings, parts: Path, report: Callable[..., None]) -> Arms:
    """Train all arms in parallel, with a task for each seed and optimizer.

    Each task leaves a file in `parts`; a task whose file exists is not done again.
    """
    paths = {
        (optimizer, seed): parts / f"{optimizer}-{seed}.json"
        for optimizer in OPTIMIZERS
        for seed in range(settings.seeds)
    }
    missing = [task for task, path in paths.items() if not path.exists()]
    parts.mkdir(parents=True, exist_ok=True)
    done = len(paths) - len(missing)
    report("training", done, len(paths))

    def said(name: str) -> None:
        nonlocal done
        done += 1
        report("training", done, len(paths), name)

    jobs = {
        f"{optimizer} seed {seed}": (settings, optimizer, seed, paths[optimizer, seed]) for optimizer, seed in missing
    }
    on_cores(one_seed, jobs, said)
    return merged([json.loads(path.read_text()) for path in paths.values()])


def one_seed(settings: Settings, optimizer: str, seed: int, path: Path) -> None:
    """Do one task: train its arms and write them when all are done."""
    arms = all_arms(settings.trainer(optimizer, (seed,)))
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(arms))
    os.replace(partial, path)


def options(settings: type) -> Callable[[Callable[..., None]], Any]:
    """Return a decorator that adds an option to a command for each field of a class of settings that has a default."""

    def add(command: Callable[..., None]) -> Any:
        for field in reversed(dataclasses.fields(settings)):
            default: Any = field.default
            if default is dataclasses.MISSING:
                continue
            kind: Any = NumberList() if isinstance(default, tuple) else type(default)
            if kind is int:
                kind = click.IntRange(2 if field.name == "seeds" else 1)
            if "choices" in field.metadata:
                kind = click.Choice(field.metadata["choices"])
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            name = f"--{field.name.replace('_', '-')}"
            given: Any = {"is_flag": True} if kind is bool else {"show_default": True, "type": kind}
            command = click.option(name, default=shown, **given)(command)
        return command

    return add


@click.command()
@options(Settings)
@click.option("--out", default="results/arithmetic-study.json", show_default=True, type=click.Path(path_type=Path))
def main(out: Path, **given: Any) -> None:
    """Train all arms, save the results and show them; if the file exists already, only show it."""
    settings = Settings(**given)
    for optimizer in OPTIMIZERS:
        settings.plan(optimizer, (0,))
    if settings.width % 8:
        raise InputError("--width", settings.width, "give a multiple of 8, for four heads of even size")
    if not out.exists():
        with ProgressReport() as report:
            if jax.default_backend() == "cpu":
                version = code_version(Path(__file__).parent)
                parts = out.with_name(f"{out.stem}-{short_hash([plain(settings), version])}")
                arms = seeds_apart(settings, parts, report)
            else:
                arms = seeds_together(settings, report)
        save_study(out, settings, arms)
    check_same(out, settings)
    click.echo(shown(out))


if __name__ == "__main__":
    run(main, "arithmetic-study")
