"""Settings of a fine-tuning job."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl_theory.errors import InputError, check_choice, check_number
from icl_theory.llm.data.problems import GENERATOR
from icl_theory.llm.training.config import FinetuneConfig
from icl_theory.results import digest, plain
from icl_theory.upsampling.data_files import HUB, open_data
from icl_theory.upsampling.row_fields import USUAL, Fields, as_fields
from icl_theory.upsampling.settings import check_settings

EQUAL = ("epochs", "steps")  # what runs with and without upsampling have in common


@dataclasses.dataclass(frozen=True)
class Job:
    """Settings of a fine-tuning job.

    Attributes:
        model: hub repository, folder or GGUF file.
        data: file, set of the hub or generator of training examples (`problems.load_rows`).
        training: settings of the run; its `num_steps` is replaced.
        steps: number of optimizer steps; None to train for `epochs`.
        epochs: passes over the training set, counted as `equal` says.
        equal: what a run with upsampling or weights has in common with a plain run of as many epochs: `epochs`, passes
            over the set that is trained on, which take more steps; or `steps`, those of passes over the set as it is.
        evaluation: file, set of the hub or generator of problems; None for no evaluation.
        by: field by which accuracies are split; None for `kind`, if the problems have it.
        max_new: maximum number of tokens of a reply.
        chat: whether to use the tokenizer's chat template; None to use it if there is one.
        thinking: whether the model thinks before it answers, if its template has that switch.
        learn: `last` to learn the last turn of a conversation, `all` to learn every turn of the model (`Prompting`).
        fields: fields to read in place of the usual ones, in the data and in the evaluation (`Prompting`).
        bfloat16: whether to compute in bfloat16; weights and optimizer state are float32 either way.
        id_field: field that identifies examples in the records; None for `id` if the rows have it, else the row
            number; `row` for the row number.
        weights: file of weights, copies or indices to train with (`selections`); None to use each example once.
        upsampling: settings of `rule.upsample`; the job then records a first run, chooses examples, and trains again
            from the start. None for no upsampling.
        recorded_steps: number of steps of the first run; None for one epoch.
        record_every: steps between records of all losses; None for an eighth of the first run of upsampling, and no
            records in the run that trains the model.
        noise_scale: whether to measure the signal and noise of late and early examples in the first run of upsampling.
    """

    model: str
    data: str
    training: FinetuneConfig = FinetuneConfig()  # noqa: RUF009
    steps: int | None = None
    epochs: float = 3.0
    equal: str = "epochs"
    evaluation: str | None = None
    by: str | None = None
    max_new: int = 256
    chat: bool | None = None
    thinking: bool = False
    learn: str = "last"
    fields: Fields | Mapping[str, str] = USUAL
    bfloat16: bool = False
    id_field: str | None = None
    weights: Path | None = None
    upsampling: Mapping[str, Any] | None = None
    recorded_steps: int | None = None
    record_every: int | None = None
    noise_scale: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", as_fields(self.fields))
        for name in ("steps", "recorded_steps", "record_every"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), minimum=1, integer=True)
        check_number("max_new", self.max_new, minimum=1, integer=True)
        check_number("epochs", self.epochs, minimum=0.0, exclusive=True)
        check_choice("equal", self.equal, EQUAL)
        if self.equal == "steps" and self.steps is not None:
            raise InputError("equal", self.equal, "it counts epochs; leave out steps, or it")
        if self.weights is not None and self.upsampling is not None:
            raise InputError("weights", str(self.weights), "upsampling finds its own; give one of them")
        if self.upsampling is None and self.recorded_steps is not None:
            raise InputError("recorded_steps", self.recorded_steps, "it belongs to upsampling; ask for it too")
        if self.upsampling is None and self.noise_scale:
            raise InputError("noise_scale", True, "it belongs to upsampling, which finds the late; ask for it too")
        if self.noise_scale and self.training.lora_rank:
            raise InputError("noise_scale", True, "it measures whole weights, not adapters; leave out one of the two")
        if self.evaluation is None and self.by is not None:
            raise InputError("by", self.by, "it belongs to an evaluation; give one")
        if self.upsampling is not None:
            check_settings(**self.upsampling)

    @property
    def records(self) -> bool:
        """True where losses of single examples are recorded."""
        return self.upsampling is not None or self.record_every is not None

    def described(self) -> dict[str, Any]:
        """Return the settings as plain data, without `num_steps` and with a hash of each input file."""
        found: dict[str, Any] = plain(dataclasses.asdict(self))
        del found["training"]["num_steps"]
        sources = [name for name in (self.data, self.evaluation) if name and not name.startswith((GENERATOR, HUB))]
        sources += [] if self.weights is None else [str(self.weights)]
        files = [file for name in sources for file in ([name] if Path(name).is_file() else _files_in(name))]
        return found | {"files": {name: digest(Path(name))[:10] for name in files}}


def _files_in(source: str) -> list[str]:
    """Return the data files of a folder."""
    return [str(file) for file in open_data(source).files] if Path(source).is_dir() else []
