"""Study of a pretrained model that is fine-tuned on sums or on word problems.

`python -m experiments.language_models.checkpoint_study MODEL` trains the arms of `trainer` from a checkpoint such as
SmolLM2-135M-Instruct (a GGUF file or a folder). Problems come from reasoning-gym, are asked as plain text and are
answered by the number alone. They are sums and differences of two numbers of one to three digits, or word problems
(numbers of siblings or friends, legs of two kinds of animals, grade-school problems). No problem of the test occurs in
training. Seeds set problems and orders; all start from the same weights. On an accelerator all seeds of an arm are one
program. On CPU, where a step of Muon takes ten seconds, seeds run one after the other. Finished arms are kept when the
command is stopped.
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
REPLY = 48  # most tokens of a reply under the chat template
LEGS = "leg_counting,min_animals=2,max_animals=2,max_instances=5"
MIXTURES = {  # kinds of problems in each mixture, with generator and share
    "sums": {"1 digit": (SUM.format(1), 0.4), "2 digits": (SUM.format(2), 0.35), "3 digits": (SUM.format(3), 0.25)},
    "words": {"relations": ("aiw", 0.4), "legs": (LEGS, 0.3), "grade school": ("gsm_symbolic", 0.3)},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the study.

    Attributes:
        mixture: mixture of problems, a name in `MIXTURES`.
        seeds: number of seeds, each for problems and orders.
        adamw_steps: steps of a run with AdamW, a multiple of `2 records`.
        muon_steps: steps of a run with Muon, a multiple of `2 records`.
        adamw_rate: learning rate of AdamW.
        muon_rate: learning rate of Muon.
        batch_size: rows of a step.
        length: tokens of a row.
        train: number of problems to train on.
        test: number of problems to test on.
        records: how often losses are recorded in a run, an even number.
        followed: number of examples whose losses are recorded in all arms.
        rhos: ρ of SAM and functional SAM.
        equal_epochs: whether to add arms at equal epochs, which take more steps.
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
    equal_epochs: bool = False

    @property
    def kinds(self) -> list[str]:
        """Names of the kinds of problems."""
        return list(MIXTURES[self.mixture])

    def plan(self, optimizer: str, seeds: tuple[int, ...]) -> Plan:
        """Return the settings of the arms of one optimizer.

        Raises:
            InputError: the number of steps or ρ is not valid.
        """
        steps = {"adamw": self.adamw_steps, "muon": self.muon_steps}[optimizer]
        rate = {"adamw": self.adamw_rate, "muon": self.muon_rate}[optimizer]
        sizes = {"records": self.records, "followed": min(self.followed, self.train), "warmup": min(10, steps // 4)}
        return Plan(optimizer, seeds, steps, rate, self.batch_size, self.rhos, equal_epochs=self.equal_epochs, **sizes)


def generated(settings: Settings, prompting: Prompting) -> list[dict[str, Any]]:
    """Draw the rows of all seeds, each with its seed and its part, `train` or `test`.

    For each kind, a pool of distinct problems of at most `length` tokens is drawn once. A seed takes its test problems
    from it, then its training problems, without any that differ from one of the test in names alone. Training problems
    repeat where the pool is small. Rows are shuffled over kinds. Problems that are too long are counted and reported.
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
    """Return a question without the words that begin with a capital."""
    return re.sub(r"\b[A-Z]\w*", "", question)


def plainly(model: Model) -> Prompting:
    """Return a prompting that asks questions as plain text, without the chat template."""
    return Prompting(model.tokenizer, chat=False)


def by_template(
    model: Model, rows: list[dict[str, Any]], settings: Settings, seeds: tuple[int, ...]
) -> dict[str, dict[str, list[float]]]:
    """Return accuracies before training through the chat template, with replies judged by `math-verify`: for the test
    of each seed, of all problems and of each kind; nothing for a model without a template."""
    if Prompting(model.tokenizer).template is None:
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
    """Return the rows of one seed and part as tokens.

    Raises:
        InputError: a row lacks a field, is of an unknown kind or is too long, or there are no rows.
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
    """Train all arms of some seeds, and report the accuracy before training as the arm `before`.

    Optimizers run in parallel, so that their programs compile in parallel.
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
    """Train the arms of all seeds, on CPU one seed after the other; each arm is kept in a file when it is done."""
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
                with lock, kept.open("a") as file:  # optimizers run in parallel
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
    """Read the lines kept in a file; a last line that was cut off while being written is removed."""
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
    """Train all arms from MODEL, save the results and show them; if the file exists already, only show it."""
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
