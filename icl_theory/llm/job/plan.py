"""The plan of a job: its number of steps, its training set, and lines that describe them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from flax import nnx

from icl_theory.errors import InputError
from icl_theory.llm.data.batches import groups
from icl_theory.llm.data.examples import Examples
from icl_theory.llm.data.problems import Row
from icl_theory.llm.data.prompting import Prompting
from icl_theory.llm.job.settings import Job
from icl_theory.llm.model.checkpoint import count_parameters
from icl_theory.llm.model.lora import adapted
from icl_theory.llm.model.pretrained import Model
from icl_theory.upsampling.selections import load_copies
from icl_theory.upsampling.summary import line

RECORDS = 8  # default number of records in the first run of upsampling


def steps_of(job: Job, examples: Examples, indices: np.ndarray) -> int:
    """Return the number of steps of a run over a training set, given as row indices of the examples."""
    if job.equal == "steps":
        indices = training_set(examples, None)
    return job.steps or max(1, math.ceil(job.epochs * epoch_steps(job, examples, indices)))


def epoch_steps(job: Job, examples: Examples, indices: np.ndarray) -> float:
    """Return the number of steps of an epoch, not rounded."""
    rows = len(indices)
    if job.training.packing:
        sizes = [len(examples.tokens[row].tokens) for row in indices]
        rows = len(groups(sizes, indices, job.training.length))
    return rows / job.training.batch_size


def recorded_run(job: Job, examples: Examples) -> tuple[int, int]:
    """Return the number of steps of the first run of upsampling, and the number of steps between its records."""
    steps = job.recorded_steps or math.ceil(epoch_steps(job, examples, np.arange(len(examples.rows))))
    return steps, job.record_every or max(1, steps // RECORDS)


def copies_given(job: Job, examples: Examples) -> np.ndarray | None:
    """Return the copies of each row that fits, from the weights file of the job; None without such a file."""
    if job.weights is None:
        return None
    copies = load_copies(job.weights, examples.given, used=examples.fits, seed=job.training.seed)[examples.fits]
    if not copies.sum():
        raise InputError("weights", str(job.weights), "every example that fits has weight 0")
    return copies


def training_set(examples: Examples, copies: np.ndarray | None) -> np.ndarray:
    """Return the training set as row indices of the examples, each as often as it has copies."""
    return np.arange(len(examples.rows)) if copies is None else np.repeat(np.arange(len(copies)), copies)


def check_warmup(job: Job, examples: Examples, copies: np.ndarray | None) -> None:
    """Raise `InputError` if the warm-up is longer than the run; upsampling only makes a run longer."""
    steps = steps_of(job, examples, training_set(examples, copies))
    if job.training.warmup > steps:
        raise InputError("warmup", job.training.warmup, f"the run has {steps} steps; give at most as many")


def check_window(job: Job, model: Model) -> None:
    """Raise `InputError` if rows are longer than the context length of the model."""
    window = model.described.get("max_position_embeddings")
    if window is not None and job.training.length > window:
        raise InputError("length", job.training.length, f"the model reads {window} tokens at most; lower it")


def problems_checked(job: Job, problems: Sequence[Row], rows: Sequence[Row], prompting: Prompting, model: Model) -> str:
    """Check the evaluation problems and return a line that describes them.

    Raises:
        InputError: a problem without an answer, an unknown field, or prompts that are too long.
    """
    if job.by is not None and not any(job.by in row for row in problems):
        raise InputError("by", job.by, f"no problem has it; there are {', '.join(map(str, problems[0]))}")
    prompts = []
    for place, row in enumerate(problems):
        try:
            prompts.append(tuple(prompting.asked(row)))
            prompting.reference(row)
        except InputError as error:
            raise InputError(f"problem {place}, {error.field}", error.value, error.remedy) from None
    longest, window = max(map(len, prompts)), model.described.get("max_position_embeddings")
    if window is not None and longest + job.max_new > window:
        remedy = f"with prompts of up to {longest} tokens the model's {window} are exceeded; lower it"
        raise InputError("max_new", job.max_new, remedy)
    known = {prompting.question(row) for row in rows}
    again = sum(prompting.question(row) in known for row in problems)
    return line("evaluation", f"{len(problems)} problems" + (f", {again} of them also in the data" if again else ""))


def about(model: Model, prompting: Prompting) -> str:
    """Return a line with the model family, the number of weights, and how prompts are formatted."""
    size = count_parameters(model.decoder)
    kind = "asked by its chat template" if prompting.template else "plain text"
    return line("model", f"{model.decoder.config.family}, {size / 1e6:.3g} million weights, {kind}")


def trained(job: Job, model: Model) -> list[str]:
    """Return a line about the adapters to train, if any.

    Raises:
        InputError: a matrix that the model does not have.
    """
    lora = job.training.lora
    if lora is None:
        return []
    size = count_parameters(adapted(model.decoder, lora), nnx.LoRAParam)
    return [line("adapters", f"rank {lora.rank} on {', '.join(lora.matrices)}: {size / 1e6:.3g} million weights")]


def doubts(model: Model) -> list[str]:
    """Return a warning if tokenizer and `config.json` disagree on the end-of-text token.

    A tokenizer with the right number of tokens may still belong to another model.
    """
    ends, ours = model.described.get("eos_token_id"), model.tokenizer.eos_token_id
    if ends is None or ours in (ends if isinstance(ends, list) else [ends]):
        return []
    return [line("doubt", f"the tokenizer ends texts by token {ours}, config.json by {ends}: is it the model's own?")]


def planned(job: Job, examples: Examples, copies: np.ndarray | None) -> list[str]:
    """Return the plan of a job as lines of text."""
    lines = []
    if job.upsampling is not None:
        steps, every = recorded_run(job, examples)
        lines.append(line("recording", f"{steps} steps, the losses of all examples each {every}"))
    indices = training_set(examples, copies)
    more = ", more when upsampled" if job.upsampling is not None and job.steps is None and job.equal == "epochs" else ""
    text = f"{steps_of(job, examples, indices)} steps of {job.training.batch_size} rows{more}"
    return [*lines, line("fine-tuning", text), line("", "nothing was written")]
