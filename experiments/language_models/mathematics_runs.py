"""Runs of the study of mathematical problems: settings, problems, the pilot run and the arms of some seeds."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language_models.checkpoint_study import plainly
from experiments.language_models.families import FAMILIES, PLAIN_FAMILIES, shares
from experiments.language_models.learning import ratios
from experiments.language_models.mathematics import Row, draw
from experiments.language_models.mathematics_arms import MOST, PLAIN, Arm, Found, arms, find, recipe_steps, steady
from experiments.language_models.mathematics_noise import Measured, noise_steps
from experiments.language_models.packed_trainer import PackedTrainer, Training, buckets, record_steps
from experiments.language_models.symbols import SIZES, Symbols, new_decoder
from icl_theory.llm.evaluation.answers import Evaluation, judge
from icl_theory.llm.evaluation.evaluation import by_kind
from icl_theory.llm.model.generate import generate
from icl_theory.llm.model.pretrained import Model, find_model, load_model
from icl_theory.llm.training.noise_scale import BATCHES
from icl_theory.results import writing

PILOT = "pilot"
PILOT_DRAW = 1000  # number of the draw of its order
SPARE = 1.25  # tokens of a reply at most, as a multiple of the longest completion of the training set


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the study; the defaults are those of decoders from scratch.

    Attributes:
        model: path of a pretrained model, or a size in `SIZES` for decoders from scratch.
        optimizer: "adamw" or "muon".
        steps: steps of a run of the plain arm's length.
        rate: peak of the learning rate.
        batch_size: examples of a step.
        length: tokens of a row; longer examples are not drawn.
        train: number of problems to train on.
        test: number of problems to test on.
        records: how often losses are recorded.
        followed: number of training examples whose losses are recorded; the pilot run records all.
        remaining: share of its first loss at which our rule counts an example as learned.
        rho: ρ of functional SAM.
    """

    model: str
    optimizer: str = dataclasses.field(default="muon", metadata={"choices": ("adamw", "muon")})
    steps: int = 7680
    rate: float = 3e-3
    batch_size: int = 32
    length: int = 64
    train: int = 60_000
    test: int = 2000
    records: int = 24
    followed: int = 4000
    remaining: float = 0.3
    rho: float = 0.02

    @property
    def reads_symbols(self) -> bool:
        """True for a decoder from scratch, which reads symbols."""
        return self.model in SIZES

    @property
    def families(self) -> tuple[str, ...]:
        """Families of the mixture; a decoder that reads symbols reads no stories."""
        return PLAIN_FAMILIES if self.reads_symbols else tuple(FAMILIES)


class Study:
    """Runs of some seeds, each kept in a folder when it is done.

    Args:
        settings: settings of the study.
        seeds: seeds that are trained together.
        folder: folder of the study.
    """

    def __init__(self, settings: Settings, seeds: Sequence[int], folder: Path):
        self.settings, self.seeds, self.folder = settings, tuple(seeds), folder
        model = None if settings.reads_symbols else pretrained(settings.model)
        self.text: Any = Symbols() if model is None else plainly(model)
        self.decode = Symbols().decode if model is None else partial(model.tokenizer.decode, skip_special_tokens=True)
        self.sets = [self._problems(seed) for seed in seeds]
        examples = [[self.text.tokenized(row) for row in own["train"] + own["fresh"]] for own in self.sets]
        self.longest = max(int(one.learned.sum()) for own in examples for one in own)
        training = Training(
            settings.optimizer,
            settings.rate,
            settings.batch_size,
            settings.length,
            settings.steps,
            max(settings.steps // 30, 1),
        )
        self.count = len(self.sets[0]["train"])
        self.followed = min(settings.followed, self.count)
        models = [model.decoder if model else new_decoder(settings.model, seed) for seed in seeds]
        self.trainer = PackedTrainer(training, self.seeds, examples, models)
        self._tested = list(buckets([[self.text.tokenized(row) for row in own["test"]] for own in self.sets]))

    def path(self, name: str, suffix: str = ".json") -> Path:
        """Return the file of a run."""
        return self.folder / f"{slug(name)}-{'-'.join(map(str, self.seeds))}{suffix}"

    @cached_property
    def found(self) -> list[Found]:
        """Return the findings of the pilot run of each seed; a pilot without a file is run first."""
        path, steps = self.path(PILOT, ".npz"), self.settings.steps
        if not path.exists():
            records = sorted({*record_steps(steps, self.settings.records), *recipe_steps(steps)})
            run = self.trainer.run(
                [steady(np.arange(self.count))] * len(self.seeds), steps, records, followed=self.count, draw=PILOT_DRAW
            )
            save_losses(path, run.steps, run.losses)
        known = np.load(path)
        sources = [[row["source"] for row in own["train"]] for own in self.sets]
        pairs = zip(known["losses"].astype(float), sources, strict=True)
        return [find(known["steps"], *one, self.settings.remaining) for one in pairs]

    def arm(self, name: str) -> dict[str, Any] | None:
        """Train an arm and keep it; return it, or None if it was kept already."""
        path, settings = self.path(name), self.settings
        if path.exists():
            return None
        own = [self._arms(place)[name] for place in range(len(self.seeds))]
        steps = round(settings.steps * float(np.mean([arm.length for arm in own])))
        sharpness = own[0].sharpness
        records = [step for step in record_steps(settings.steps, settings.records) if step < steps] + [steps]
        noise = self._noise() if name == PLAIN and self.settings.reads_symbols else []

        def measure(step: int, learner: Any) -> None:
            if step in (0, *noise_steps(records)):
                for place, one in enumerate(noise):
                    one.add(step, self.trainer.model(learner.params, place))

        measure(0, self.trainer.start)
        run = self.trainer.run(
            [arm.course for arm in own],
            steps,
            records,
            followed=self.followed,
            sharpness=sharpness,
            rho=settings.rho if sharpness != "none" else 0.0,
            at_record=measure,
        )
        summary = self.tested(run.params) | {"steps": run.steps.tolist()}
        if noise:
            last, size = int(run.steps[-1]), settings.batch_size
            summary["noise"] = [
                one.summary(found.rule, size, settings.optimizer, last)
                for one, found in zip(noise, self.found, strict=True)
            ]
        summary |= {"R": known(ratios(run.steps.tolist(), run.losses, [one.rule for one in self.found]))}
        summary |= {"factors": [round(one.rule.factor, 4) for one in self.found]}
        save_losses(self.path(name, ".npz"), run.steps, run.losses)
        with writing(path) as unfinished:
            unfinished.write_text(json.dumps({"name": name, "seeds": self.seeds, "arm": summary}) + "\n")
        return summary

    def tested(self, params: Any) -> dict[str, Any]:
        """Return for each seed the accuracy of generated answers, all and by kind, the share cut off, and the loss."""
        found = [self._replies(params, place) for place in range(len(self.seeds))]
        kinds = [by_kind(one, [row["kind"] for row in own["test"]]) for one, own in zip(found, self.sets, strict=True)]
        return {
            "accuracy": [one.accuracy for one in found],
            "cut": [float(one.cut.mean()) for one in found],
            "loss": self.trainer.losses(params, self._tested).mean(1, dtype=float).round(4).tolist(),
            "by_kind": {
                kind: [one[kind].accuracy for one in kinds]
                for kind in shares(self.settings.families)
                if all(kind in one for one in kinds)
            },
        }

    def _noise(self) -> list[Measured]:
        """Return a measurement of noise for each seed; none unless all seeds have late examples enough."""
        examples = [[self.text.tokenized(row) for row in own["train"]] for own in self.sets]
        late = [found.rule.late for found in self.found]
        if min(min(one.sum(), (~one).sum()) for one in late) < BATCHES:
            return []
        return [Measured(*given) for given in zip(examples, late, self.seeds, strict=True)]

    def _replies(self, params: Any, place: int) -> Evaluation:
        rows, most = self.sets[place]["test"], int(SPARE * self.longest) + 1
        prompts = [self.text.asked(row) for row in rows]
        size = 64 if jax.default_backend() == "cpu" else 512
        made = generate(self.trainer.model(params, place), prompts, max_new=most, stop=self.text.stop, batch_size=size)
        replies = [self.decode(tokens) for tokens in made]
        found = judge(replies, [row["answer"] for row in rows], [len(tokens) == most for tokens in made])
        return found._replace(
            right=found.right & [as_asked(reply, row) for reply, row in zip(replies, rows, strict=True)]
        )

    def _arms(self, place: int) -> Mapping[str, Arm]:
        own, settings = self.sets[place], self.settings
        kinds, fresh = ([row["kind"] for row in own[part]] for part in ("train", "fresh"))
        return arms(self.found[place], kinds, fresh, settings.steps * settings.batch_size, self.seeds[place])

    def _problems(self, seed: int) -> dict[str, list[Row]]:
        """Return the problems of a seed, which are drawn unless its file exists."""
        path, settings = self.folder / f"problems-{seed}.json.gz", self.settings
        if not path.exists():
            fits = lambda row: len(self.text.tokenized(row).tokens) <= settings.length  # noqa: E731
            fresh = math.ceil(MOST) - 1  # of an example that is late, all copies but one may be replaced
            sets = draw(seed, settings.families, test=settings.test, train=settings.train, fresh=fresh, fits=fits)
            with writing(path) as unfinished:
                unfinished.write_bytes(gzip.compress(json.dumps(sets).encode(), mtime=0))
        found: dict[str, list[Row]] = json.loads(gzip.decompress(path.read_bytes()))
        return found


def as_asked(reply: str, row: Row) -> bool:
    """Return whether a reply gives an answer in the form that was asked for: a fraction is to be simplified."""
    return row["source"] != "fractions" or row["answer"] in reply


@cache
def pretrained(source: str) -> Model:
    """Return a pretrained model, with matrix products in bfloat16 on an accelerator."""
    return load_model(find_model(source), dtype=jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)


def save_losses(path: Path, steps: np.ndarray, losses: np.ndarray) -> None:
    """Save (T,) steps and (seeds, T, n) losses, completely or not at all."""
    with writing(path) as unfinished:
        np.savez_compressed(unfinished, steps=steps, losses=losses)


def known(values: Any) -> list[float | None]:
    """Return numbers as a list that JSON can hold, None for those that are not finite."""
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]


def slug(name: str) -> str:
    """Return a name as part of a file name."""
    return re.sub(r"\W+", "-", name)
