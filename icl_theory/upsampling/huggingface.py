"""Record the loss of every training example from Hugging Face's Trainer, or TRL's. Needs torch and transformers.

    from icl_theory.upsampling.huggingface import RecordLosses
    trainer = Trainer(model, arguments, train_dataset=tokenized, callbacks=[RecordLosses("losses.zarr", every=100)])

and `icl-theory upsample train.jsonl losses.zarr` when it has run. With checkpoints that are there already, the same
without a callback: `LossRecorder("losses.zarr").add(step, example_losses(model, tokenized, collator))` for each, in
    order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import PyTree
from transformers import TrainerCallback

from icl_theory.errors import InputError, check_number
from icl_theory.upsampling.record_files import LossRecorder

IGNORED = -100  # label of a token that is no part of the loss


def example_losses(model: Any, dataset: Any, collate: Callable[..., Any], *, batch_size: int = 8) -> np.ndarray:
    """Mean cross entropy, in nats, of the labelled tokens of each example, by a causal language model.

    The model is asked in evaluation mode, and each of its modules left in the mode it was in; no random number is
    drawn, so that training is not changed.

    Args:
        model: called with what the collator makes, `labels` left out; labels are shifted here.
        dataset: P examples, by index.
        collate: from a list of examples to a batch with `labels`, −100 where there is no loss, such as
            `DataCollatorForLanguageModeling(tokenizer, mlm=False)` or what the Trainer uses.
        batch_size: examples together.

    Returns:
        (P,) float32; 0 for an example without labelled tokens.

    Raises:
        InputError: a model with an encoder, a data set without a length, a batch without labels or of another number of
            rows.
    """
    check_number("batch_size", batch_size, minimum=1, integer=True)
    try:
        count = len(dataset)
    except TypeError:
        raise InputError(
            "dataset", type(dataset).__name__, "give one with a length; a stream has no examples to name"
        ) from None
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise InputError(
            "model", type(model).__name__, "labels are shifted here as a causal model's; it has an encoder"
        )
    device, modes = next(model.parameters()).device, [(module, module.training) for module in model.modules()]
    losses = np.empty(count, np.float32)
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, count, batch_size):
                rows = [dataset[row] for row in range(start, min(start + batch_size, count))]
                batch = {name: value.to(device) for name, value in collate(rows).items() if hasattr(value, "to")}
                losses[start : start + len(rows)] = _batch_losses(model, batch, len(rows))
    finally:
        for module, training in modes:
            module.training = training
    return losses


class RecordLosses(TrainerCallback):
    """Callback that records every example's loss before training, every so many steps, and at the end.

    Each time is one pass without gradients over the training set, with the Trainer's own collator: choose `every` so
    that some ten to thirty come about, or give a part of the data (the command then takes that part). A run that is
    resumed goes on with its record; a new one needs another path. Losses that are not finite are left out with a
    warning, and training goes on. Packing several examples into one row must be off. With several processes each passes
    over all examples and the first writes.

    Args:
        path: of the record, ending in `.zarr`.
        every: optimizer steps between checkpoints.
        ids: of the training examples, in order; None for their rows.
        dataset: other examples than the Trainer's, such as a part of them.
        batch_size: examples together.
    """

    def __init__(self, path: str | Path, *, every: int, ids: Any = None, dataset: Any = None, batch_size: int = 8):
        check_number("every", every, minimum=1, integer=True)
        self.every, self.dataset, self.batch_size = every, dataset, batch_size
        self.recorder = LossRecorder(path, ids)
        self._last = -1

    def on_train_begin(self, args: Any, state: PyTree, control: Any, **parts: Any) -> None:
        if state.global_step == 0 and self.recorder.num_checkpoints:
            path = str(self.recorder.path)
            raise InputError("path", path, "it holds the record of an earlier run; give another, or remove it")
        self._record(state, parts)

    def on_step_end(self, args: Any, state: PyTree, control: Any, **parts: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps or control.should_training_stop:
            self._record(state, parts)

    def on_train_end(self, args: Any, state: PyTree, control: Any, **parts: Any) -> None:
        if not args.load_best_model_at_end:  # else the model is that of an earlier step by now
            self._record(state, parts)

    def _record(self, state: PyTree, parts: dict[str, Any]) -> None:
        if state.global_step == self._last:
            return
        self._last = state.global_step
        loader = parts["train_dataloader"]
        dataset = loader.dataset if self.dataset is None else self.dataset
        losses = example_losses(parts["model"], dataset, loader.collate_fn, batch_size=self.batch_size)
        if not np.all(np.isfinite(losses)):
            warnings.warn(f"losses at step {self._last} are not finite: left out of {self.recorder.path}", stacklevel=2)
        elif state.is_world_process_zero:
            self.recorder.add(self._last, losses)


def _batch_losses(model: Any, batch: dict[str, Any], rows: int) -> np.ndarray:
    labels = batch.pop("labels", None)
    if labels is None or len(labels) != rows:
        found = "no labels" if labels is None else f"{len(labels)} rows of labels"
        raise InputError("collate", found, f"it must label each of {rows} examples in a row of its own (packing off)")
    logits = model(**batch).logits[:, :-1].float()
    targets = labels[:, 1:]
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
    counts = (targets != IGNORED).sum(dim=1).clamp(min=1)
    return (each.sum(dim=1) / counts).cpu().numpy()
