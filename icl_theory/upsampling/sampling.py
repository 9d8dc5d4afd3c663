"""Draw rows by weight in the Trainer of Hugging Face or TRL, without a copy of the data. Needs torch.

Put `SampleByWeight` before a trainer, and set the weights once the trainer holds its rows:

    from icl_theory.upsampling.sampling import SampleByWeight
    class WeightedTrainer(SampleByWeight, SFTTrainer): ...
    trainer = WeightedTrainer(model=model, args=SFTConfig(packing=False), train_dataset=rows)
    trainer.row_weights = icl.upsample(record.for_ids(trainer.train_dataset["id"])).weights
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from icl_theory.errors import InputError, as_floats, check_number
from icl_theory.upsampling.factor import LARGEST_COPIES, rounded_weights


class UpsampledSampler(torch.utils.data.Sampler[int]):  # type: ignore[misc]
    """Sampler whose epoch holds each row as often as its weight says, in random order.

    A weight that is not whole is rounded down or up anew in each epoch, so that it holds on average. Unlike
    `WeightedRandomSampler`, which draws with replacement, no row with a weight of at least 1 is ever left out. Every
    process draws the same order.

    Args:
        weights: The weights of the rows, (P,), such as `Upsampling.weights`.
        seed: Seed of order and rounding.

    Raises:
        InputError: Weights are negative, not finite or absurdly large, or all are 0.
    """

    def __init__(self, weights: Any, *, seed: int = 0):
        check_number("seed", seed, minimum=0, integer=True)
        self.weights = as_floats("weights", weights)
        if self.weights.ndim != 1 or not self.weights.size:
            raise InputError("weights", f"shape {self.weights.shape}", "give one for each row")
        if not np.all((self.weights >= 0) & (self.weights <= LARGEST_COPIES)):
            raise InputError("weights", self.weights, f"give numbers from 0 to {LARGEST_COPIES:g}")
        if self.weights.sum() < 1:
            raise InputError("weights", self.weights, "an epoch would hold no row; let them sum to 1 at least")
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        """Return the number of rows of an epoch, the sum of the weights rounded down."""
        return int(self.weights.sum() + 1e-9)

    def __iter__(self) -> Iterator[int]:
        """Yield the rows of an epoch, and go on to the next."""
        draw = np.random.default_rng((self.seed, self.epoch))
        self.epoch += 1
        rows = np.repeat(np.arange(len(self.weights)), rounded_weights(self.weights, draw))
        yield from draw.permutation(rows)[: len(self)].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, as trainers do, so that a resumed run goes on with its own order."""
        self.epoch = epoch


class SampleByWeight:
    """Mixin for a `Trainer` whose rows are drawn by `row_weights`.

    An epoch grows with the weights, so runs of equal epochs take more steps; for equal steps set `max_steps`. The seed
    is `data_seed` of the arguments, or else `seed`. Evaluation is not affected.

    Attributes:
        row_weights: The weights of the rows of `train_dataset`, in its order, (P,). None leaves sampling as it is.

    Raises:
        InputError: When training begins: there are more or fewer weights than rows, `UpsampledSampler` refuses them, or
            the trainer does not ask for this sampler.
    """

    row_weights: Any = None

    def get_train_dataloader(self) -> Any:
        """Return the trainer's own loader of training data, after a check that it draws by weight."""
        self._asked = False
        loader = super().get_train_dataloader()  # type: ignore[misc]
        if self.row_weights is not None and not self._asked:
            remedy = "its loader takes another sampler, as that of an iterable data set does; train on copies"
            raise InputError("row_weights", type(self).__name__, remedy)
        return loader

    def _get_train_sampler(self, *dataset: Any) -> Any:
        if self.row_weights is None:
            return super()._get_train_sampler(*dataset)  # type: ignore[misc]
        self._asked = True
        trainer: Any = self
        rows = dataset[0] if dataset and dataset[0] is not None else trainer.train_dataset
        if len(rows) != len(self.row_weights):
            remedy = f"the trainer holds {len(rows)} rows; take the weights for ids of its train_dataset"
            raise InputError("row_weights", f"{len(self.row_weights)} of them", remedy)
        seed = trainer.args.seed if trainer.args.data_seed is None else trainer.args.data_seed
        return UpsampledSampler(self.row_weights, seed=seed)
