"""The settings of a fine-tuning run."""

from __future__ import annotations

import dataclasses

from icl_theory.errors import InputError, check_choice, check_number
from icl_theory.llm.model.lora import Lora
from icl_theory.llm.optimizers.adamw_muon import OPTIMIZERS
from icl_theory.llm.optimizers.sam import SHARPNESS
from icl_theory.llm.training.step import check_preconditioner

SCHEDULES = ("cosine", "linear", "constant")
MOST_STEPS = 10**8


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """Settings of one fine-tuning run.

    Attributes:
        length: maximum number of tokens in a row; without packing, rows are only padded to the longest example.
        batch_size: number of rows in a step.
        num_steps: number of optimizer steps.
        optimizer: "adamw" or "muon".
        sharpness: "none", "sam" or "fsam".
        rho: perturbation radius ρ of sam and fsam.
        preconditioner: "none", "current" or "past": how Adam's second moment scales the perturbation.
        learning_rate: peak learning rate.
        warmup: number of steps over which the learning rate rises.
        schedule: "cosine", "linear" or "constant" after the warm-up.
        weight_decay: coefficient of weight decay; it is multiplied by the learning rate.
        accumulate: number of parts in which a batch is processed.
        clip: maximum norm of the gradient; 0 for no clipping.
        packing: whether rows hold several whole examples, instead of one example and padding.
        seed: random seed of the order of the examples, and of adapters and their dropout.
        lora_rank: rank of low-rank adapters (`Lora`), which are then trained in place of the weights; 0 to train all
            weights. SAM and functional SAM then perturb the adapters alone.
        lora_alpha: numerator α of the scale α/r of adapters.
        lora_dropout: probability with which an input of an adapter is dropped in training.
        lora_matrices: names of the adapted matrices (`lora.MATRICES`), with commas between them.
    """

    length: int = 512
    batch_size: int = 8
    num_steps: int = 1000
    optimizer: str = "adamw"
    sharpness: str = "none"
    rho: float = 0.05
    preconditioner: str = "none"
    learning_rate: float = 2e-5
    warmup: int = 0
    schedule: str = "cosine"
    weight_decay: float = 0.0
    accumulate: int = 1
    clip: float = 1.0
    packing: bool = False
    seed: int = 0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_matrices: str = "query,value"

    def __post_init__(self) -> None:
        least = {"length": 2, "batch_size": 1, "accumulate": 1, "warmup": 0, "seed": 0, "lora_rank": 0}
        for field, minimum in least.items():
            check_number(field, getattr(self, field), minimum=minimum, integer=True)
        check_number("num_steps", self.num_steps, minimum=1, maximum=MOST_STEPS, integer=True)
        for field in ("rho", "learning_rate", "weight_decay", "clip"):
            check_number(field, getattr(self, field), minimum=0.0)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("sharpness", self.sharpness, SHARPNESS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_preconditioner(self.preconditioner, self.optimizer, self.sharpness)
        if self.batch_size % self.accumulate:
            raise InputError("accumulate", self.accumulate, f"it must divide batch_size ({self.batch_size})")
        _ = self.lora

    @property
    def lora(self) -> Lora | None:
        """Settings of the adapters; None to train all weights.

        Raises:
            InputError: settings out of range, or of adapters without a rank.
        """
        if self.lora_rank:
            names = tuple(name.strip() for name in self.lora_matrices.split(","))
            return Lora(self.lora_rank, self.lora_alpha, self.lora_dropout, names)
        for field in ("lora_alpha", "lora_dropout", "lora_matrices"):
            value = getattr(self, field)
            if value != type(self).__dataclass_fields__[field].default:
                raise InputError(field, value, "it belongs to adapters; give lora_rank too")
        return None
