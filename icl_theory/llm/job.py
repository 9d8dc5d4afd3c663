"""Fine-tuning as one job in a folder: data to tokens, upsampling, training, evaluation before and after, the model at the end.

Each stage leaves a file; a job that was stopped goes on behind the last of them.

    settings.json             what was asked for; a folder of another job is refused
    before.jsonl, after.jsonl replies to the problems of the evaluation
    warmup/                   with upsampling: a short run, its losses.zarr, weights.csv and a picture of what was chosen
    run/, losses.zarr         checkpoints, and the losses of the examples if asked for
    loss.csv                  the loss of each step
    model/                    what `transformers` loads
    report.json               all numbers; with it the job is done
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from icl_theory.errors import InputError, check_number
from icl_theory.finetuning.data_files import Scan
from icl_theory.finetuning.loss_record import LossRecord, check_unique, id_array
from icl_theory.finetuning.picture import save_upsampling_picture, with_examples
from icl_theory.finetuning.record_files import LossRecorder, load_loss_record
from icl_theory.finetuning.rule import Upsampling, upsample
from icl_theory.finetuning.selections import load_copies, save_selection
from icl_theory.finetuning.summary import group_text, line, summary
from icl_theory.llm.answers import Evaluation
from icl_theory.llm.batches import Tokenized, fitting, groups
from icl_theory.llm.checkpoint import count_parameters
from icl_theory.llm.decoder import Decoder
from icl_theory.llm.evaluation import by_kind, evaluate, read_replies, write_replies
from icl_theory.llm.mesh import check_rows, together
from icl_theory.llm.models import Model, find_model, load_model, save_model
from icl_theory.llm.problems import GENERATOR, Row, load_rows
from icl_theory.llm.prompting import Prompting
from icl_theory.llm.training import CHECKPOINTS, FinetuneConfig, finetune
from icl_theory.store import digest, exists, first_difference, machine, plain, writing

RECORDS = 8  # of the first run of upsampling, unless said otherwise
LAST = 10  # steps whose mean loss stands for the end
KIND = "kind"  # field by which an evaluation is split where there is one of this name
SETTINGS, REPORT = "settings.json", "report.json"
WARMUP, WEIGHTS, LOSSES = "warmup", "weights.csv", "losses.zarr"
ASKING = (
    "model",
    "evaluation",
    "max_new",
    "chat",
    "bfloat16",
    "files",
)  # settings that the evaluation before depends on
Say = Callable[[str], None]
Report = Callable[..., None]


@dataclasses.dataclass(frozen=True)
class Job:
    """What to do.

    Attributes:
        model: hub repository, folder or GGUF file.
        data: file or generator (`problems.load_rows`).
        training: fields of `FinetuneConfig` but for `num_steps`.
        steps: of the run; None for `epochs`.
        epochs: over the set that is trained on, upsampled or not.
        evaluation: file or generator of problems; None for none.
        by: field by which accuracies are split; None for `kind`, where there is one.
        max_new: most tokens of a reply.
        chat: the tokenizer's template; None where it has one.
        bfloat16: compute in it; weights and optimizer are float32 either way.
        id_field: that names examples in the records; None for `id`, else the row.
        weights: file of weights, copies or indices to train by (`selections`); None for each example once.
        upsampling: settings of `rule.upsample` for a run that records, chooses and begins anew; None for none.
        recorded_steps: of the first run; None for one epoch.
        record_every: steps between losses of all examples; None for an eighth of the first run, and none in the other.
    """

    model: str
    data: str
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    steps: int | None = None
    epochs: float = 3.0
    evaluation: str | None = None
    by: str | None = None
    max_new: int = 256
    chat: bool | None = None
    bfloat16: bool = False
    id_field: str | None = None
    weights: Path | None = None
    upsampling: Mapping[str, Any] | None = None
    recorded_steps: int | None = None
    record_every: int | None = None

    def __post_init__(self) -> None:
        self.config(1)
        for name in ("steps", "recorded_steps", "record_every"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), minimum=1, integer=True)
        check_number("max_new", self.max_new, minimum=1, integer=True)
        check_number("epochs", self.epochs, minimum=0.0, exclusive=True)
        if self.weights is not None and self.upsampling is not None:
            raise InputError("weights", str(self.weights), "upsampling finds its own; give one of them")
        if self.upsampling is None and self.recorded_steps is not None:
            raise InputError("recorded_steps", self.recorded_steps, "it belongs to upsampling; ask for it too")
        if self.upsampling is not None:
            upsample(LossRecord([0, 1], [[1.0, 1.0], [0.2, 0.4]]), **self.upsampling)  # settings that it refuses

    def config(self, num_steps: int, **changed: Any) -> FinetuneConfig:
        """Settings of a run."""
        return FinetuneConfig(**{**self.training, "num_steps": num_steps, **changed})


class Examples:
    """The rows of a set that fit, as tokens, with what is said of the rest.

    Args:
        rows: of the data.
        prompting: of the model.
        length: most tokens.
        id_field: of the job.
    """

    def __init__(self, rows: Sequence[Row], prompting: Prompting, length: int, id_field: str | None):
        made = [prompting.tokenized(row) for row in rows]
        self.fits = fitting(made, length)
        self.all_rows, self.longest = rows, max(len(example.tokens) for example in made)
        if not self.fits.any():
            raise InputError(
                "length", length, f"no example fits; the shortest has {min(len(e.tokens) for e in made)} tokens"
            )
        self.places = np.flatnonzero(self.fits)
        self.tokens: list[Tokenized] = [made[place] for place in self.places]
        self.rows = [rows[int(place)] for place in self.places]
        self.id_field = id_field or ("id" if "id" in rows[0] else None)
        if self.id_field is None:
            self.ids = id_array("row", self.places)
        else:
            lacking = [place for place, row in enumerate(rows) if row.get(self.id_field) is None]
            if lacking:
                raise InputError(
                    self.id_field, f"none in row {lacking[0]}", "every row needs it; or name another field"
                )
            self.ids = id_array(self.id_field, [str(row[self.id_field]) for row in self.rows])
            check_unique(self.id_field, self.ids)

    def lines(self) -> list[str]:
        """What is there."""
        left = len(self.all_rows) - len(self.rows)
        total = sum(len(example.tokens) for example in self.tokens)
        learned = total - sum(example.prompt for example in self.tokens)
        said = [line("data", f"{len(self.rows)} examples, {total} tokens, {learned} of them learned")]
        if left:
            said.append(
                line("left out", f"{left} that are longer than --length; the longest has {self.longest} tokens")
            )
        return said


def run_job(
    job: Job,
    folder: Path,
    *,
    mesh: Mesh | None = None,
    remat: bool = False,
    save_every: int = 500,
    dry_run: bool = False,
    report: Report = lambda *_: None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Do all of a job that is not done yet.

    Args:
        job: what.
        folder: new, or of this job.
        mesh: devices to lay the training over; None for one.
        remat: recompute blocks in the backward pass: less memory.
        save_every: steps between checkpoints.
        dry_run: say what would be done, write nothing.
        report: called with a title, what is done and what there is in all, and perhaps words.
        say: called with each line of what was found.

    Returns:
        What is in `report.json`; empty for a dry run.

    Raises:
        InputError: whatever does not fit; out of memory.
    """
    begun = time.monotonic()
    rows = load_rows(job.data)
    problems = None if job.evaluation is None else load_rows(job.evaluation)
    settings = _described(job)
    if not dry_run:
        _check_folder(folder, settings)
    if (folder / REPORT).is_file() and not dry_run:
        found: dict[str, Any] = json.loads((folder / REPORT).read_text())
        for text in [line("done already", str(folder / REPORT)), *outcome(found)]:
            say(text)
        return found
    with memory_said():
        model = load_model(find_model(job.model), dtype=jnp.bfloat16 if job.bfloat16 else jnp.float32, remat=remat)
        prompting = Prompting(model.tokenizer, job.chat)
        examples = Examples(rows, prompting, job.config(1).length, job.id_field)
        if mesh is not None:
            check_rows(job.config(1).batch_size, mesh, job.config(1).accumulate)
        copies = _copies_given(job, examples)
        for text in _about(model, prompting, examples):
            say(text)
        if dry_run:
            for text in _plan(job, examples, copies):
                say(text)
            return {}
        _claim(folder, settings)
        return _Stages(job, folder, model, prompting, examples, problems, mesh, save_every, report, say).run(
            copies, settings, begun
        )


class _Stages:
    """The stages of a job, in the order in which they are run."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        model: Model,
        prompting: Prompting,
        examples: Examples,
        problems: Sequence[Row] | None,
        mesh: Mesh | None,
        save_every: int,
        report: Report,
        say: Say,
    ):
        self.job, self.folder, self.model, self.prompting = job, folder, model, prompting
        self.examples, self.problems, self.mesh = examples, problems, mesh
        self.save_every, self.report, self.say = save_every, report, say
        self.first = jax.process_index() == 0

    def run(self, copies: np.ndarray | None, settings: dict[str, Any], begun: float) -> dict[str, Any]:
        job, folder, examples = self.job, self.folder, self.examples
        before = self.evaluated("before", self.model.decoder)
        chosen = None
        if job.upsampling is not None:
            chosen = self.upsampled()
            copies = chosen.copies(seed=job.config(1).seed)
        indices = np.arange(len(examples.rows)) if copies is None else np.repeat(np.arange(len(copies)), copies)
        config = job.config(steps_of(job, examples.tokens, indices))
        recorder = None if job.record_every is None else LossRecorder(folder / LOSSES, examples.ids)
        done = self.trained("fine-tuning", config, indices, recorder, job.record_every or 1, folder / "run")
        if self.first and not exists(folder / "loss.csv"):
            with writing(folder / "loss.csv") as partial:
                table = np.column_stack([np.arange(config.num_steps), done.losses])
                np.savetxt(partial, table, fmt=("%d", "%.6g"), delimiter=",", header="step,loss", comments="")
        after = self.evaluated("after", done.model)
        if self.first and not (folder / "model" / "config.json").is_file():
            save_model(self.model, done.model, folder / "model")
        found = {
            "settings": settings,
            "examples": {"given": len(examples.all_rows), "used": len(examples.rows), "rows": len(indices)},
            "steps": config.num_steps,
            "loss": {"first": float(done.losses[0]), "last": float(done.losses[-LAST:].mean())},
            "upsampling": None if chosen is None else _numbers(chosen),
            "before": self.accuracies(before),
            "after": self.accuracies(after),
            "machine": {name: value for name, value in machine().items() if name != "platform"},
            "seconds": time.monotonic() - begun,
        }
        if self.first:
            with writing(folder / REPORT) as partial:
                partial.write_text(json.dumps(found, indent=1) + "\n")
        together("report")
        for text in [*outcome(found), line("wrote", f"{folder / 'model'}, {folder / REPORT}")]:
            self.say(text)
        return found

    def evaluated(self, name: str, decoder: Decoder) -> Evaluation | None:
        """The evaluation of a decoder, made or read."""
        if self.problems is None:
            return None
        path = self.folder / f"{name}.jsonl"
        if path.is_file():
            return read_replies(path)
        found = evaluate(
            decoder,
            self.prompting,
            self.problems,
            max_new=self.job.max_new,
            progress=lambda done, total: self.report(f"asking {name}", done, total),
        )
        if self.first:
            write_replies(path, self.problems, found)
        together(name)
        return found

    def upsampled(self) -> Upsampling:
        """A first run at a constant rate, the losses on its way, and what the rule makes of them."""
        job, examples, place = self.job, self.examples, self.folder / WARMUP
        settings = dict(job.upsampling or {})
        everyone = np.arange(len(examples.rows))
        losses, weights = place / LOSSES, place / WEIGHTS
        if not weights.is_file():
            steps = job.recorded_steps or _epoch(job, examples.tokens, everyone)
            every = job.record_every or max(1, steps // RECORDS)
            recorder = LossRecorder(losses, examples.ids)
            config = job.config(steps, schedule="constant")
            self.trained("recording", config, everyone, recorder, every, place / "run")
            together("recorded")
        record = load_loss_record(losses).for_ids(examples.ids)
        found = upsample(record, seed=job.config(1).seed, **settings)
        copies = found.copies(seed=job.config(1).seed)
        ids = "the rows that fit" if examples.id_field is None else f"named by {examples.id_field}"
        for text in summary(record, found, copies, ids):
            self.say(text)
        if not found.chosen.any():
            remedy = "change --late or --remaining, or record more steps into another folder"
            raise InputError("--upsample", "no one to upsample", remedy)
        if self.first and not weights.is_file():
            self.draw(record, found, place)
            scan = Scan(len(copies), examples.ids, examples.id_field or "row", ())
            save_selection(weights, "weights", found, copies, scan)
            shutil.rmtree(place / "run", ignore_errors=True)  # its weights and optimizer state serve no one any more
        return found

    def draw(self, record: LossRecord, found: Upsampling, place: Path) -> None:
        """What was found, as a picture."""
        names = self.examples.ids.to_pylist()
        kind = self.examples.id_field or "row"
        title = f"{Path(self.job.data).name}: factor {found.factor:.3g} on {group_text(found)}; {found.why}"
        figure = with_examples(
            record,
            found,
            rows_of=lambda wanted: [dict(self.examples.rows[row]) for row in wanted],
            name_of=lambda row: f"{kind} {names[row]}",
            title=title,
        )
        for suffix in (".png", ".svg"):
            path = place / f"upsampling{suffix}"
            if not exists(path):
                with writing(path) as partial:
                    save_upsampling_picture(figure, partial)

    def trained(
        self,
        title: str,
        config: FinetuneConfig,
        indices: np.ndarray,
        recorder: LossRecorder | None,
        record_every: int,
        folder: Path,
    ) -> Any:
        return finetune(
            self.model.decoder,
            self.examples.tokens,
            config,
            indices=indices,
            recorder=recorder,
            record_every=record_every,
            folder=folder,
            save_every=self.save_every,
            mesh=self.mesh,
            progress=lambda done, total, words: self.report(title, done, total, words),
        )

    def accuracies(self, found: Evaluation | None) -> dict[str, Any] | None:
        """Of all problems and of each kind."""
        if found is None or self.problems is None:
            return None
        field = self.job.by or (KIND if KIND in self.problems[0] else None)
        parts = {} if field is None else by_kind(found, [row.get(field, "none") for row in self.problems])
        return {name: _accuracy(one) for name, one in {"all": found, **parts}.items()}


@contextmanager
def memory_said() -> Iterator[None]:
    """Turn a device that is out of memory into what to do about it."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "ut of memory" in str(error):
            remedy = (
                "it does not suffice; lower --batch-size or --length, raise --accumulate or --shards, or give --remat"
            )
            raise InputError("memory", jax.devices()[0].device_kind, remedy) from None
        raise


def steps_of(job: Job, examples: Sequence[Tokenized], indices: np.ndarray) -> int:
    """Steps of a run over a set."""
    return job.steps or max(1, math.ceil(job.epochs * _epoch(job, examples, indices, whole=False)))


def outcome(found: Mapping[str, Any]) -> list[str]:
    """The numbers of a report, a line each."""
    loss, last = found["loss"], min(found["steps"], LAST)
    trained = f"{loss['first']:.3g} at the first of {found['steps']} steps, {loss['last']:.3g} over the last {last}"
    lines = [line("loss", trained)]
    if found["before"] is not None:
        lines.append(line("right", "before                after                 (95 % intervals over problems)"))
        for name, before in found["before"].items():
            count, after = before["count"], found["after"][name]
            lines.append(line(f"  {name[:13]}", f"{_share(before):<22}{_share(after):<22}of {count}"))
    return lines


def _share(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return f"{one['accuracy']:.1%} ({low:.1%}–{high:.1%})"


def _accuracy(found: Evaluation) -> dict[str, Any]:
    return {"accuracy": found.accuracy, "interval": list(found.interval), "count": len(found.right)}


def _numbers(found: Upsampling) -> dict[str, Any]:
    return {
        "late": int(found.late.sum()),
        "upsampled": int(found.chosen.sum()),
        "ratio": found.ratio if np.isfinite(found.ratio) else None,
        "factor": found.factor,
        "why": found.why,
    }


def _epoch(job: Job, examples: Sequence[Tokenized], indices: np.ndarray, whole: bool = True) -> Any:
    """Steps of an epoch, up to a whole number or as it comes out."""
    config = job.config(1)
    rows = len(indices)
    if config.packing:
        rows = len(groups([len(examples[row].tokens) for row in indices], indices, config.length))
    return math.ceil(rows / config.batch_size) if whole else rows / config.batch_size


def _copies_given(job: Job, examples: Examples) -> np.ndarray | None:
    """Of the rows that fit, by the job's file."""
    if job.weights is None:
        return None
    copies = load_copies(job.weights, examples.all_rows, seed=job.config(1).seed)[examples.fits]
    if not copies.sum():
        raise InputError("weights", str(job.weights), "every example that fits has weight 0")
    return copies


def _about(model: Model, prompting: Prompting, examples: Examples) -> list[str]:
    size = count_parameters(model.decoder)
    kind = "asked by its chat template" if prompting.chat else "plain text"
    return [
        line("model", f"{model.decoder.config.family}, {size / 1e6:.3g} million weights, {kind}"),
        *examples.lines(),
    ]


def _plan(job: Job, examples: Examples, copies: np.ndarray | None) -> list[str]:
    """What would be done."""
    everyone = np.arange(len(examples.rows))
    lines = []
    if job.upsampling is not None:
        steps = job.recorded_steps or _epoch(job, examples.tokens, everyone)
        every = job.record_every or max(1, steps // RECORDS)
        lines.append(line("recording", f"{steps} steps, the losses of all examples each {every}"))
    indices = everyone if copies is None else np.repeat(np.arange(len(copies)), copies)
    more = ", more when upsampled" if job.upsampling is not None and job.steps is None else ""
    size = job.config(1).batch_size
    lines.append(line("fine-tuning", f"{steps_of(job, examples.tokens, indices)} steps of {size} rows{more}"))
    return [*lines, line("", "nothing was written")]


def _described(job: Job) -> dict[str, Any]:
    """The settings of a job, and the contents of the files that it reads."""
    found = plain(dataclasses.asdict(job) | {"training": plain(job.config(1))})
    del found["training"]["num_steps"]
    files = [source for source in (job.data, job.evaluation) if source is not None and not source.startswith(GENERATOR)]
    files += [] if job.weights is None else [str(job.weights)]
    return found | {"files": {name: digest(Path(name))[:10] for name in files if Path(name).is_file()}}


def _check_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Raise `InputError` where a folder holds another job, or other things."""
    path = folder / SETTINGS
    try:
        if path.is_file():
            old, spent = json.loads(path.read_text()), _spent(folder, settings)
            difference = first_difference(
                {name: old.get(name) for name in spent}, {name: settings[name] for name in spent}
            )
            if difference:
                raise InputError("--out", str(folder), f"it holds another job ({difference}); give another folder")
        elif exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError("--out", str(folder), "it holds other things; give a new or empty folder")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("--out", str(folder), f"cannot be used ({error})") from None


def _spent(folder: Path, settings: Iterable[str]) -> set[str]:
    """Settings that what is there was made with; the others may still change."""
    if exists(folder / WARMUP / WEIGHTS) or any((folder / "run" / CHECKPOINTS).glob("*")):
        return set(settings)
    if exists(folder / WARMUP / LOSSES):
        return set(settings) - {"upsampling"}  # nothing was chosen yet
    return set(ASKING) if exists(folder / "before.jsonl") else set()


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write what the folder is for."""
    if jax.process_index() == 0:
        path = folder / SETTINGS
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError("--out", str(folder), f"cannot be written ({error.strerror})") from None
        with writing(path) as partial:
            partial.write_text(json.dumps(settings, indent=1) + "\n")
    together("folder")
