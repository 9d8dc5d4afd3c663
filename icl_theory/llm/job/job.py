"""Fine-tuning as one job in a folder: tokenization, upsampling, training, and evaluation before and after training.

Each stage leaves a file. A job that was stopped resumes after the last finished stage.

    settings.json               what was asked for; a folder of another job is refused
    before.jsonl, after.jsonl   replies to the evaluation problems
    warmup/                     with upsampling: a first run, its losses.zarr, weights.csv and a picture of the choice,
                                and noise.npz if the noise scale was asked for
    run/                        checkpoints
    losses.zarr                 losses of the examples, if asked for
    loss.csv                    loss of each step
    model/                      the trained model, as `transformers` loads it; adapters are merged
    adapter/                    adapters alone, if they were trained, as PEFT loads them
    report.json                 all numbers; once it exists, the job is done
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from icl_theory.environment import machine
from icl_theory.errors import InputError, check_number
from icl_theory.llm.data.examples import Examples
from icl_theory.llm.data.problems import Row, load_rows
from icl_theory.llm.data.prompting import Prompting
from icl_theory.llm.evaluation.answers import Evaluation
from icl_theory.llm.evaluation.evaluation import evaluate, read_replies, write_replies
from icl_theory.llm.job import plan
from icl_theory.llm.job.folder import (
    ADAPTER,
    AFTER,
    BEFORE,
    CURVE,
    LOSSES,
    MODEL,
    NOISE,
    REPORT,
    RUN,
    WARMUP,
    WEIGHTS,
    check_folder,
    read_report,
    write_settings,
)
from icl_theory.llm.job.noise import noise_lines, noise_of_run
from icl_theory.llm.job.placement import in_hosts, memory_said, on_devices
from icl_theory.llm.job.report import accuracies, loss_numbers, outcome, save_pictures, upsampling_numbers
from icl_theory.llm.job.settings import Job
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.peft_format import save_adapter
from icl_theory.llm.model.pretrained import Model, find_model, load_model, save_model
from icl_theory.llm.model.sharding import check_rows, decided_by_first_host, wait_for_all_hosts
from icl_theory.llm.training.config import FinetuneConfig
from icl_theory.llm.training.train import Finetuned, finetune
from icl_theory.results import exists, writing
from icl_theory.upsampling.data_file import Scan
from icl_theory.upsampling.noise_scale import load_noise_scale, save_noise_scale
from icl_theory.upsampling.record_files import LossRecorder, load_loss_record
from icl_theory.upsampling.rule import Upsampling, upsample
from icl_theory.upsampling.selections import save_selection
from icl_theory.upsampling.summary import line, summary

KIND = "kind"  # field by which accuracies are split if the problems have it
TRAINING = "lower --batch-size or --length, raise --accumulate or --shards, or give --remat"
ASKED = "lower --eval-batch-size or --max-new"
Say = Callable[[str], None]
Report = Callable[..., None]


def run_job(
    job: Job,
    folder: Path,
    *,
    mesh: Mesh | None = None,
    remat: bool = False,
    save_every: int = 500,
    asked_together: int = 32,
    dry_run: bool = False,
    show: int = 0,
    report: Report = lambda *_: None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Run every stage of a job that is not done yet.

    Args:
        job: settings of the job.
        folder: a new folder, or one in which this job was started.
        mesh: devices to spread training and evaluation over; None for one device.
        remat: recompute blocks in the backward pass, which saves memory.
        save_every: steps between checkpoints.
        asked_together: evaluation prompts in one batch.
        dry_run: print the plan and write nothing.
        show: number of examples to print as the model reads them.
        report: progress callback, called with a title, the number done, the total and, in training, a short text.
        say: called with each line of output.

    Returns:
        The contents of `report.json`; empty for a dry run.

    Raises:
        InputError: settings, data, model or folder that do not fit together; out of memory; diverging training.
    """
    begun = time.monotonic()
    check_number("save_every", save_every, minimum=1, integer=True)
    check_number("eval_batch_size", asked_together, minimum=1, integer=True)
    check_number("show", show, minimum=0, integer=True)
    rows = load_rows(job.data)
    problems = None if job.evaluation is None else load_rows(job.evaluation)
    settings = job.described()
    if not dry_run:
        check_folder(folder, settings)
        found = read_report(folder)
        if found is not None:
            for text in [line("done already", str(folder / REPORT)), *outcome(found)]:
                say(text)
            return found
    with memory_said(TRAINING):
        dtype = jnp.bfloat16 if job.bfloat16 else jnp.float32
        model = load_model(find_model(job.model), dtype=dtype, remat=remat, host=True)  # on devices only while in use
    prompting = Prompting(model.tokenizer, job.chat, job.thinking, job.learn, job.fields)
    plan.check_window(job, model)
    progress = partial(report, "tokenizing")
    examples = Examples(rows, prompting, job.training.length, job.id_field, progress)
    if job.records:
        _ = examples.ids
    if mesh is not None:
        check_rows(job.training.batch_size, mesh, job.training.accumulate)
    copies = plan.copies_given(job, examples)
    plan.check_warmup(job, examples, copies)
    said = [plan.about(model, prompting), *plan.trained(job, model), *plan.doubts(model)]
    said += [*examples.lines(), *examples.shown(show)]
    said += [] if problems is None else [plan.problems_checked(job, problems, rows, prompting, model)]
    for text in said if not dry_run else [*said, *plan.planned(job, examples, copies)]:
        say(text)
    if dry_run:
        return {}
    write_settings(folder, settings)
    stages = _Stages(job, folder, model, prompting, examples, problems, mesh, save_every, asked_together, report, say)
    return stages.run(copies, settings, begun)


@dataclasses.dataclass(frozen=True)
class _Stages:
    """The stages of a job, in the order in which they are run."""

    job: Job
    folder: Path
    model: Model
    prompting: Prompting
    examples: Examples
    problems: Sequence[Row] | None
    mesh: Mesh | None
    save_every: int
    asked_together: int
    report: Report
    say: Say

    @property
    def first(self) -> bool:
        """True on the host that writes."""
        return jax.process_index() == 0

    def run(self, copies: np.ndarray | None, settings: dict[str, Any], begun: float) -> dict[str, Any]:
        job, folder, examples = self.job, self.folder, self.examples
        before = self.evaluated("before", folder / BEFORE, self.model.decoder)
        chosen = None
        if job.upsampling is not None:
            chosen = self.upsampled()
            copies = chosen.copies(seed=job.training.seed)
        indices = plan.training_set(examples, copies)
        config = dataclasses.replace(job.training, num_steps=plan.steps_of(job, examples, indices))
        recorder = None if job.record_every is None else LossRecorder(folder / LOSSES, examples.ids)
        done = self.trained("fine-tuning", config, indices, recorder, job.record_every or 1, folder / RUN)
        if self.first and not exists(folder / CURVE):
            with writing(folder / CURVE) as partial:
                table = np.column_stack([np.arange(config.num_steps), done.losses])
                np.savetxt(partial, table, fmt=("%d", "%.6g"), delimiter=",", header="step,loss", comments="")
        after = self.evaluated("after", folder / AFTER, done.model)
        if decided_by_first_host(not exists(folder / MODEL)):
            ended = in_hosts(done.model)
            if self.first:
                if job.training.lora is not None and not exists(folder / ADAPTER):
                    save_adapter(ended, folder / ADAPTER, base=job.model)
                save_model(self.model, ended, folder / MODEL)
        field = job.by or (KIND if self.problems and KIND in self.problems[0] else None)
        found = {
            "settings": settings,
            "examples": {"given": len(examples.given), "used": len(examples.rows), "rows": len(indices)},
            "steps": config.num_steps,
            "loss": loss_numbers(done.losses),
            "upsampling": None if chosen is None else upsampling_numbers(chosen),
            "before": accuracies(before, self.problems, field),
            "after": accuracies(after, self.problems, field),
            "machine": machine(),
            "seconds": time.monotonic() - begun,
        }
        if self.first:
            with writing(folder / REPORT) as partial:
                partial.write_text(json.dumps(found, indent=1) + "\n")
        wait_for_all_hosts("report")
        for text in [*outcome(found), line("wrote", f"{folder / MODEL}, {folder / REPORT}")]:
            self.say(text)
        return found

    def evaluated(self, name: str, path: Path, decoder: Decoder) -> Evaluation | None:
        """Evaluate a decoder, or read its replies if they were saved before; None without an evaluation."""
        if self.problems is None:
            return None
        if path.is_file():
            return read_replies(path)
        with memory_said(ASKED):
            found = evaluate(
                on_devices(decoder, self.mesh),
                self.prompting,
                self.problems,
                max_new=self.job.max_new,
                batch_size=self.asked_together,
                mesh=self.mesh,
                progress=lambda done, total: self.report(f"asking {name}", done, total),
            )
        if self.first:
            write_replies(path, self.problems, found, self.prompting.fields)
        wait_for_all_hosts(name)
        return found

    def upsampled(self) -> Upsampling:
        """Record losses in a first run at a constant learning rate, and apply the upsampling rule to them."""
        job, examples, place = self.job, self.examples, self.folder / WARMUP
        losses, weights = place / LOSSES, place / WEIGHTS
        if not weights.is_file():
            steps, every = plan.recorded_run(job, examples)
            config = dataclasses.replace(
                job.training, num_steps=steps, schedule="constant", warmup=min(job.training.warmup, steps)
            )
            everyone = np.arange(len(examples.rows))
            ended = self.trained("recording", config, everyone, LossRecorder(losses, examples.ids), every, place / RUN)
            wait_for_all_hosts("recorded")
        record = load_loss_record(losses).for_ids(examples.ids)
        found = upsample(record, seed=job.training.seed, **(job.upsampling or {}))
        copies = found.copies(seed=job.training.seed)
        ids = "the rows that fit" if examples.id_field is None else f"named by {examples.id_field}"
        for text in summary(record, found, copies, ids):
            self.say(text)
        if not found.chosen.any():
            remedy = "change --late or --remaining, or record more steps into another folder"
            raise InputError("--upsample", "no one to upsample", remedy)
        if job.noise_scale and not weights.is_file():
            with memory_said(TRAINING):
                noise = noise_of_run(
                    self.model.decoder, ended.model, examples, config, found.late, mesh=self.mesh, report=self.report
                )
            if self.first:
                (place / NOISE).unlink(missing_ok=True)  # of a choice that was not kept
                save_noise_scale(noise, place / NOISE)
            wait_for_all_hosts("noise")
        if job.noise_scale:
            for text in noise_lines(load_noise_scale(place / NOISE), record, found, job.training):
                self.say(text)
        if self.first and not weights.is_file():
            save_pictures(record, found, examples, Path(job.data).name, place / "upsampling")
            save_selection(weights, "weights", found, copies, Scan(len(copies), examples.ids, examples.named_by, ()))
            shutil.rmtree(place / RUN, ignore_errors=True)  # its weights and optimizer state are no longer needed
        return found

    def trained(
        self,
        title: str,
        config: FinetuneConfig,
        indices: np.ndarray,
        recorder: LossRecorder | None,
        record_every: int,
        folder: Path,
    ) -> Finetuned:
        with memory_said(TRAINING):
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
