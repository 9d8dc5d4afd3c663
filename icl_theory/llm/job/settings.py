"""Settings of a job of fine-tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl_theory.errors import InputError, check_number
from icl_theory.llm.data.problems import GENERATOR
from icl_theory.llm.training.train import FinetuneConfig
from icl_theory.results import digest, plain
from icl_theory.upsampling.settings import check_settings


@dataclasses.dataclass(frozen=True)
class Job:
    """Settings of a job.

    Attributes:
        model: hub repository, folder or GGUF file.
        data: file or generator (`problems.load_rows`).
        training: settings of the run; its `num_steps` is replaced.
        steps: of the run; None for `epochs`.
        epochs: over the set that is trained on, upsampled or not.
        evaluation: file or generator of problems; None for none.
        by: field by which accuracies are split; None for `kind`, where there is one.
        max_new: most tokens of a reply.
        chat: the tokenizer's template; None where it has one.
        thinking: by a template that knows the switch the model thinks before it answers.
        bfloat16: compute in it; weights and optimizer are float32 either way.
        id_field: that names examples in the records; None for `id`, else the row; `row` for the row.
        weights: file of weights, copies or indices to train by (`selections`); None for each example once.
        upsampling: settings of `rule.upsample` for a run that records, chooses and begins anew; None for none.
        recorded_steps: of the first run; None for one epoch.
        record_every: steps between losses of all examples; None for an eighth of the first run, and none in the other.
    """

    model: str
    data: str
    training: FinetuneConfig = FinetuneConfig()  # noqa: RUF009
    steps: int | None = None
    epochs: float = 3.0
    evaluation: str | None = None
    by: str | None = None
    max_new: int = 256
    chat: bool | None = None
    thinking: bool = False
    bfloat16: bool = False
    id_field: str | None = None
    weights: Path | None = None
    upsampling: Mapping[str, Any] | None = None
    recorded_steps: int | None = None
    record_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "recorded_steps", "record_every"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), minimum=1, integer=True)
        check_number("max_new", self.max_new, minimum=1, integer=True)
        check_number("epochs", self.epochs, minimum=0.0, exclusive=True)
        if self.weights is not None and self.upsampling is not None:
            raise InputError("weights", str(self.weights), "upsampling finds its own; give one of them")
        if self.upsampling is None and self.recorded_steps is not None:
            raise InputError("recorded_steps", self.recorded_steps, "it belongs to upsampling; ask for it too")
        if self.evaluation is None and self.by is not None:
            raise InputError("by", self.by, "it belongs to an evaluation; give one")
        if self.upsampling is not None:
            check_settings(**self.upsampling)

    @property
    def records(self) -> bool:
        """True where losses of examples are recorded."""
        return self.upsampling is not None or self.record_every is not None

    def described(self) -> dict[str, Any]:
        """The settings, and the contents of the files that are read."""
        found: dict[str, Any] = plain(dataclasses.asdict(self))
        del found["training"]["num_steps"]
        sources = [source for source in (self.data, self.evaluation) if source and not source.startswith(GENERATOR)]
        sources += [] if self.weights is None else [str(self.weights)]
        return found | {"files": {name: digest(Path(name))[:10] for name in sources if Path(name).is_file()}}
