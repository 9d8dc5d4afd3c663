"""`python -m experiments.language_models.checkpoint_study MODEL`: a pretrained model is fine-tuned on sums or on word
problems.

The arms of `arms`, on a checkpoint such as SmolLM2-135M-Instruct (a GGUF file or a folder) and problems of
reasoning-gym, asked as plain text and answered by the number alone: sums and differences of two numbers of one to three
digits, or word problems (how many siblings or friends, the legs of animals of two kinds, those of grade school); those
of the test do not occur in training. Seeds are problems and orders; all start from the same weights. On an accelerator
all seeds of an arm are one program; on CPU, where Muon takes a sixth of a minute a step, one seed is done after the
other. Arms that are done are kept when the command is stopped.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import click
import jax
import numpy as np

from experiments.language_models.arithmetic_study import options
from experiments.language_models.problems import Problems, stacked
from experiments.language_models.trainer import OPTIMIZERS, PILOT, Plan, Trainer, all_arms
from icl_theory.cli.one_line import run
from icl_theory.cli.options import short_hash
from icl_theory.environment import code_version
from icl_theory.errors import InputError
from icl_theory.llm.data.batches import fitting, pad
from icl_theory.llm.data.problems import GENERATOR, load_rows
from icl_theory.llm.data.prompting import Prompting
from icl_theory.llm.evaluation.evaluation import by_kind, evaluate
from icl_theory.llm.evaluation.study import Arms, check_same, load_study, merged, save_study, shown
from icl_theory.llm.model.pretrained import Model, find_model, load_model
from icl_theory.progress import ProgressReport
from icl_theory.results import plain

SUM = "chain_sum,min_terms=2,max_terms=2,min_digits={0},max_digits={0}"
BEFORE = "before"
REPLY = 48  # most tokens of a reply by template
LEGS = "leg_counting,min_animals=2,max_animals=2,max_instances=5"
MIXTURES = {  # of each the kinds of problems, their generators and shares
    "sums": {"1 digit": (SUM.format(1), 0.4), "2 digits": (SUM.format(2), 0.35), "3 digits": (SUM.format(3), 0.25)},
    "words": {"relations": ("aiw", 0.4), "legs": (LEGS, 0.3), "grade school": ("gsm_symbolic", 0.3)},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the study.

    Attributes:
        mixture: of problems, a name in `MIXTURES`.
        seeds: of problems and orders.
        adamw_steps: of a run with AdamW, a multiple of `2 records`.
        muon_steps: the same for Muon.
        adamw_rate: learning rate of AdamW.
        muon_rate: learning rate of Muon.
        batch_size: rows of a step.
        length: tokens of a row.
        train: problems to train on.
        test: problems to test on.
        records: times that losses are recorded, an even number.
        followed: examples whose losses are recorded in all arms.
        rhos: ρ of SAM and functional SAM.
    """

    mixture: str = dataclasses.field(default="sums", metadata={"choices": tuple(MIXTURES)})
    seeds: int = 3
    adamw_steps: int = 160
    muon_steps: int = 160
    adamw_rate: float = 1e-4
    muon_rate: float = 2e-4
    batch_size: int = 16
    length: int = 32
    train: int = 1000
    test: int = 500
    records: int = 8
    followed: int = 1000
    rhos: tuple[float, ...] = (0.05,)

    @property
    def kinds(self) -> list[str]:
        """Names of the kinds of problems."""
        return list(MIXTURES[self.mixture])

    def plan(self, optimizer: str, seeds: tuple[int, ...]) -> Plan:
        """Settings of the arms of one optimizer.

        Raises:
            InputError: numbers that do not fit.
        """
        steps = {"adamw": self.adamw_steps, "muon": self.muon_steps}[optimizer]
        rate = {"adamw": self.adamw_rate, "muon": self.muon_rate}[optimizer]
        sizes = {"records": self.records, "followed": min(self.followed, self.train), "warmup": min(10, steps // 4)}
        return Plan(optimizer, seeds, steps, rate, self.batch_size, self.rhos, **sizes)


def generated(settings: Settings, prompting: Prompting) -> list[dict[str, Any]]:
    """Rows of all seeds, with their seed and whether they are for training or for the test.

    Of each kind a pool of different problems that fit is drawn once; each seed takes its test from it and then its
    training, which repeats problems where the pool is small, and never one that differs from one of the test in names
    alone. Kinds are mixed, so that the first rows are a sample of all. What does not fit is counted and said.
    """
    rows: list[dict[str, Any]] = []
    for kind, (source, share) in MIXTURES[settings.mixture].items():
        counts = {"test": round(share * settings.test), "train": round(share * settings.train)}
        size = 4 * settings.seeds * sum(counts.values())
        drawn = list({row["question"]: row for row in load_rows(f"{GENERATOR}{source},size={size},seed=1")}.values())
        fit = fitting([prompting.tokenized(row) for row in drawn], settings.length)
        pool = [row for row, fits in zip(drawn, fit, strict=True) if fits]
        if len(pool) < 8:
            raise InputError("--length", settings.length, f"{len(pool)} problems of kind {kind} fit; give a larger one")
        if len(pool) < len(drawn):
            left = f"{len(drawn) - len(pool)} of {len(drawn)} problems of kind {kind}"
            click.echo(f"{left} are longer than {settings.length} tokens and are left out", err=True)
        counts["test"] = min(counts["test"], len(pool) // 4)
        for seed in range(settings.seeds):
            order = np.random.default_rng([13, seed]).permutation(len(pool))
            asked = {nameless(pool[place]["question"]) for place in order[: counts["test"]]}
            again = np.array([nameless(pool[place]["question"]) in asked for place in order])
            kept, rest = order[again][: counts["test"]], order[~again]
            if not len(rest):
                raise InputError("--test", settings.test, f"too few other problems of kind {kind} are left to train on")
            for part, chosen in {"test": kept, "train": np.resize(rest, counts["train"])}.items():
                rows += [{**pool[place], "kind": kind, "seed": seed, "part": part} for place in chosen]
    return [rows[place] for place in np.random.default_rng(17).permutation(len(rows))]


def nameless(question: str) -> str:
    """A question without the words that begin with a capital."""
    return re.sub(r"\b[A-Z]\w*", "", question)


def plainly(model: Model) -> Prompting:
    """Questions as plain text, without the template of chats."""
    return Prompting(model.tokenizer, chat=False)


def by_template(
    model: Model, rows: list[dict[str, Any]], settings: Settings, seeds: tuple[int, ...]
) -> dict[str, dict[str, list[float]]]:
    """Accuracies of each seed's test before training, of all and of each kind, asked as the model was taught to be: by
    its chat template, replies judged by `math-verify`; nothing where it has none."""
    if not Prompting(model.tokenizer).chat:
        return {}
    found: dict[str, list[float]] = {name: [] for name in ("all", *settings.kinds)}
    for seed in seeds:
        asked = [row for row in rows if (row["seed"], row["part"]) == (seed, "test")]
        replies = evaluate(model.decoder, Prompting(model.tokenizer), asked, max_new=REPLY)
        kinds = by_kind(replies, [row["kind"] for row in asked])
        found["all"].append(replies.accuracy)
        for kind in settings.kinds:
            found[kind].append(kinds[kind].accuracy)
    return {"by_template": found}


def problems(rows: list[dict[str, Any]], prompting: Prompting, settings: Settings, seed: int, part: str) -> Problems:
    """Rows of one seed and part as tokens.

    Raises:
        InputError: rows that lack a field or are none, one that is too long.
    """
    for field in ("question", "answer", "kind", "seed", "part"):
        if not all(field in row for row in rows):
            raise InputError("--problems", field, "not every row has it; take the file of --write-problems")
    rows = [row for row in rows if (row["seed"], row["part"]) == (seed, part)]
    examples = [prompting.tokenized(row) for row in rows]
    if not examples or {row["kind"] for row in rows} - set(settings.kinds):
        raise InputError(
            "--problems", f"{len(rows)} rows", f"of seed {seed} for {part}; take the file of --write-problems"
        )
    if not fitting(examples, settings.length).all():
        longest = max(len(example.tokens) for example in examples)
        raise InputError("--length", settings.length, f"a problem has {longest} tokens")
    batch = pad(examples, settings.length)
    return Problems(batch.tokens, batch.learned, np.array([settings.kinds.index(row["kind"]) for row in rows]))


def study(
    model: Model,
    settings: Settings,
    optimizers: tuple[str, ...],
    rows: list[dict[str, Any]],
    seeds: tuple[int, ...],
    known: Arms,
    said: Callable[[str, dict[str, Any]], None],
) -> Arms:
    """All arms of some seeds, and as arm `before` none of training; optimizers run side by side, so that they compile
    so.
    """
    prompting = plainly(model)
    train, test = (
        stacked([problems(rows, prompting, settings, seed, part) for seed in seeds]) for part in ("train", "test")
    )
    models = [model.decoder] * len(seeds)
    trainers = [Trainer(settings.plan(one, seeds), train, test, settings.kinds, models) for one in optimizers]
    arms: Arms = {}
    with ThreadPoolExecutor(3 * len(trainers)) as pool:
        if len(seeds) > 1:
            for trainer in trainers:
                trainer.compile(pool)
        if BEFORE not in known:
            said(BEFORE, trainers[0].accuracies(*trainers[0].answers()) | by_template(model, rows, settings, seeds))
        for found in pool.map(lambda trainer: all_arms(trainer, known, said), trainers):
            arms |= found
    return arms


def every_seed(
    model: Model, settings: Settings, optimizers: tuple[str, ...], rows: list[dict[str, Any]], kept: Path
) -> Arms:
    """The arms of all seeds, one seed after the other on CPU; each is kept in a file when it is done."""
    everyone = tuple(range(settings.seeds))
    groups = [(seed,) for seed in everyone] if jax.default_backend() == "cpu" else [everyone]
    kept.parent.mkdir(parents=True, exist_ok=True)
    done, lock = whole_lines(kept), Lock()
    count = len(groups) * (1 + sum(1 + settings.plan(optimizer, everyone).num_arms for optimizer in optimizers))
    parts = []
    with ProgressReport() as report:
        for seeds in groups:
            known = {one["name"]: one["arm"] for one in done if tuple(one["seeds"]) == seeds}

            def said(name: str, arm: dict[str, Any], seeds: tuple[int, ...] = seeds) -> None:
                one = {"seeds": seeds, "name": name, "arm": arm}
                with lock, kept.open("a") as file:  # optimizers run side by side
                    file.write(json.dumps(one) + "\n")
                    done.append(one)
                    words = f": {np.mean(arm['accuracy']):.3f}" if "accuracy" in arm else ""
                    report("training", len(done), count, name + words)

            study(model, settings, optimizers, rows, seeds, known, said)
            parts.append(
                {
                    one["name"]: one["arm"]
                    for one in done
                    if tuple(one["seeds"]) == seeds and one["name"].split()[-1] != PILOT
                }
            )
    return merged(parts)


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines kept in a file; a last line that was cut off as it was written is removed."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    if lines and not lines[-1].endswith("\n"):
        lines = lines[:-1]
        os.truncate(path, sum(len(line.encode()) for line in lines))
    return [json.loads(line) for line in lines]


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
    model: str, optimizers: tuple[str, ...], source: Path | None, write_problems: Path | None, out: Path, **given: Any
) -> None:
    """Train all arms from MODEL and save what came out; what is in a file that is there already is shown."""
    settings, optimizers = Settings(**given), optimizers or OPTIMIZERS
    for optimizer in optimizers:
        settings.plan(optimizer, (0,))
    if write_problems is not None or not out.exists():
        loaded = load_model(find_model(model))
        rows = [dict(row) for row in load_rows(str(source))] if source else generated(settings, plainly(loaded))
        if write_problems is not None:
            write_problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
            return
        described = [plain(settings), optimizers, code_version(Path(__file__).parent), rows]
        kept = out.with_name(f"{out.stem}-{short_hash(described)}.jsonl")
        arms = every_seed(loaded, settings, optimizers, rows, kept)
        save_study(out, settings, {name: arm for name, arm in arms.items() if name != BEFORE}, before=arms[BEFORE])
        kept.unlink()
    check_same(out, settings)
    for optimizer in optimizers:
        if f"{optimizer} plain" not in load_study(out)["arms"]:
            raise InputError("--optimizer", optimizer, f"{out} was made without it; give another --out")
    click.echo(shown(out))


if __name__ == "__main__":
    run(main, "checkpoint-study")
