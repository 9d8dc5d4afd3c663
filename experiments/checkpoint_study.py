"""`python -m experiments.checkpoint_study MODEL`: a pretrained model is fine-tuned on sums that it partly knows.

The arms of `arms`, on a checkpoint such as SmolLM2-135M-Instruct (a GGUF file or a folder) and problems of reasoning-gym: sums
and differences of two numbers of one to three digits, asked as plain text. Seeds are problems and orders; all start from the
same weights, and all of an arm are one program. Meant for an accelerator; on two cores take a few steps of a single optimizer.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np

from experiments.arithmetic_study import options
from experiments.arms import OPTIMIZERS, Plan, Problems, Trainer, all_arms, stacked
from experiments.command_line import run
from experiments.study import Arms, save_study, show
from icl_theory.errors import InputError
from icl_theory.llm.batches import fitting, pad
from icl_theory.llm.models import Model, find_model, load_model
from icl_theory.llm.problems import GENERATOR, load_rows
from icl_theory.llm.prompting import Prompting
from icl_theory.progress import ProgressReport

SUM = "chain_sum,min_terms=2,max_terms=2,min_digits={0},max_digits={0}"
KINDS = {
    "1 digit": (SUM.format(1), 0.4),
    "2 digits": (SUM.format(2), 0.35),
    "3 digits": (SUM.format(3), 0.25),
}  # and shares


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the study.

    Attributes:
        seeds: of problems and orders.
        steps: of a run, a multiple of 16.
        adamw_rate, muon_rate: learning rates.
        batch_size: rows of a step.
        length: tokens of a row.
        train, test: problems.
        rhos: ρ of SAM and functional SAM.
    """

    seeds: int = 3
    steps: int = 160
    adamw_rate: float = 3e-5
    muon_rate: float = 3e-5
    batch_size: int = 16
    length: int = 32
    train: int = 1000
    test: int = 500
    rhos: tuple[float, ...] = (0.05,)

    def plan(self, optimizer: str) -> Plan:
        """Of the arms of one optimizer.

        Raises:
            InputError: numbers that do not fit.
        """
        rate = {"adamw": self.adamw_rate, "muon": self.muon_rate}[optimizer]
        return Plan(
            optimizer, tuple(range(self.seeds)), self.steps, rate, self.batch_size, self.rhos, records=8, warmup=10
        )


def generated(settings: Settings) -> list[dict[str, Any]]:
    """Rows of all seeds, with their seed and whether they are for training or for the test."""
    rows = []
    for seed in range(settings.seeds):
        for place, (part, count) in enumerate({"train": settings.train, "test": settings.test}.items()):
            sizes = [round(share * count) for _, share in KINDS.values()]
            sizes[0] += count - sum(sizes)
            for (kind, (source, _)), size in zip(KINDS.items(), sizes, strict=True):
                for row in load_rows(f"{GENERATOR}{source},size={size},seed={1000 + 2 * seed + place}"):
                    rows.append({**row, "kind": kind, "seed": seed, "part": part})
    return rows


def problems(rows: list[dict[str, Any]], prompting: Prompting, length: int) -> Problems:
    """Rows as tokens.

    Raises:
        InputError: one that is too long.
    """
    examples = [prompting.tokenized(row) for row in rows]
    if not fitting(examples, length).all():
        longest = max(len(example.tokens) for example in examples)
        raise InputError("--length", length, f"a problem has {longest} tokens")
    batch = pad(examples, length)
    return Problems(batch.tokens, batch.learned, np.array([list(KINDS).index(row["kind"]) for row in rows]))


def study(
    model: Model,
    settings: Settings,
    optimizers: tuple[str, ...],
    rows: list[dict[str, Any]],
    said: Callable[[str, dict[str, Any]], None],
) -> tuple[Arms, dict[str, Any]]:
    """All arms, and the accuracy before any training; optimizers run side by side, so that they compile side by side."""
    prompting = Prompting(model.tokenizer, chat=False)
    train, test = (
        stacked(
            [
                problems(
                    [row for row in rows if (row["seed"], row["part"]) == (seed, part)], prompting, settings.length
                )
                for seed in range(settings.seeds)
            ]
        )
        for part in ("train", "test")
    )
    models = [model.decoder] * settings.seeds
    trainers = [Trainer(settings.plan(optimizer), train, test, list(KINDS), models) for optimizer in optimizers]
    before = trainers[0].accuracies(trainers[0].right_now())
    arms: Arms = {}
    with ThreadPoolExecutor(3 * len(trainers)) as pool:
        for trainer in trainers:
            trainer.compile(pool)
        for found in pool.map(lambda trainer: all_arms(trainer, said), trainers):
            arms |= found
    return arms, before


@click.command()
@click.argument("model")
@options(Settings)
@click.option(
    "--optimizer", "optimizers", multiple=True, type=click.Choice(OPTIMIZERS), help="one of them  [default: both]"
)
@click.option("--problems", "source", type=click.Path(path_type=Path), help="rows written by --write-problems")
@click.option("--write-problems", type=click.Path(path_type=Path), help="write the rows, and do no more")
@click.option("--out", default="results/checkpoint-study.json", show_default=True, type=click.Path(path_type=Path))
def main(
    model: str,
    optimizers: tuple[str, ...],
    source: Path | None,
    write_problems: Path | None,
    out: Path,
    **given: Any,
) -> None:
    """Train all arms from MODEL and save what came out; what is in a file that is there already is shown."""
    settings, optimizers = Settings(**given), optimizers or OPTIMIZERS
    plans = [settings.plan(optimizer) for optimizer in optimizers]
    if write_problems is not None:
        write_problems.write_text("".join(json.dumps(row) + "\n" for row in generated(settings)))
        return
    if not out.exists():
        rows = generated(settings) if source is None else [dict(row) for row in load_rows(str(source))]
        count, done = sum(plan.num_arms for plan in plans), []
        with ProgressReport() as report:

            def said(name: str, arm: dict[str, Any]) -> None:
                done.append(name)
                report("training", len(done), count, f"{name}: {np.mean(arm['accuracy']):.3f}")
                with out.with_suffix(".jsonl").open("a") as file:  # should it be stopped
                    file.write(json.dumps({name: arm}) + "\n")

            out.parent.mkdir(parents=True, exist_ok=True)
            arms, before = study(load_model(find_model(model)), settings, optimizers, rows, said)
        save_study(out, settings, arms, before=before)
        out.with_suffix(".jsonl").unlink()
    show(out)


if __name__ == "__main__":
    run(main, "checkpoint-study")
