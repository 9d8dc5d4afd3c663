"""Record the loss of every training example with the Trainer of Hugging Face or TRL. Needs torch and transformers.

Add the callback, and run `icl-theory upsample train.jsonl losses.zarr` after training:

    from icl_theory.upsampling.huggingface import RecordLosses
    trainer = Trainer(model, arguments, train_dataset=tokenized)
    trainer.add_callback(RecordLosses("losses.zarr", every=100, ids=trainer.train_dataset["id"]))

For existing checkpoints no callback is needed. Call
`LossRecorder("losses.zarr").add(step, example_losses(model, tokenized, collator))` for each, in order.
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
from icl_theory.upsampling.record_files import LossRecorder, check_growing

IGNORED = -100  # label of a token that is not part of the loss


def example_losses(model: Any, dataset: Any, collate: Callable[..., Any], *, batch_size: int = 8) -> np.ndarray:
    """Return each example's mean cross entropy over its labelled tokens, in nats, under a causal language model.

    The model runs in evaluation mode, and each of its modules is then set back to its former mode. No random number is
    drawn, so training is not affected.

    Args:
        model: The model. It is called with the collated batch without `labels`; labels are shifted here.
        dataset: The P examples, accessed by index.
        collate: Maps a list of examples to a batch with `labels` (−100 where there is no loss), such as
            `DataCollatorForLanguageModeling(tokenizer, mlm=False)` or the Trainer's own.
        batch_size: Number of examples per forward pass.

    Returns:
        The losses, (P,) float32; 0 for an example without labelled tokens.

    Raises:
        InputError: The model has an encoder, the data set has no length, or a batch has no labels or another number of
            rows.
    """
    check_number("batch_size", batch_size, minimum=1, integer=True)
    count = _count(dataset)
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
    """Callback that records every example's loss before training, every `every` steps, and at the end.

    Each checkpoint costs one pass without gradients over the training set, with the Trainer's own collator. Choose
    `every` for some ten to thirty checkpoints, or give a part of the data (then give `upsample` the same part). A
    resumed run continues its record; a new run needs another path. A checkpoint with losses that are not finite is left
    out with a warning, and training goes on. Packing several examples into one row must be off. With several processes,
    each evaluates all examples and the first writes.

    A trainer may drop, filter or shuffle the rows that it is given. With `id_column` the ids are those of the rows that
    it trains on. The Trainer removes columns that the model does not take. Either keep them with
    `remove_unused_columns=False`, if the collator can do with them (TRL's can), or add the callback to the finished
    trainer:

        trainer.add_callback(RecordLosses("losses.zarr", every=100, ids=trainer.train_dataset["id"]))

    Args:
        path: Path of the record, ending in `.zarr`.
        every: Optimizer steps between checkpoints.
        ids: Ids of the training examples, in the order in which the trainer holds them. None means their row numbers.
        id_column: Column of the trainer's data set, or of `dataset`, that holds the ids. It replaces `ids`.
        dataset: Examples to use instead of the Trainer's, such as a part of them.
        batch_size: Number of examples per forward pass.

    Raises:
        InputError: `ids` and `id_column` are both given, or `LossRecorder` refuses path or ids. When training begins:
            the record is that of an earlier run, there are more or fewer examples than ids, or the column is missing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every: int,
        ids: Any = None,
        id_column: str | None = None,
        dataset: Any = None,
        batch_size: int = 8,
    ):
        check_number("every", every, minimum=1, integer=True)
        if ids is not None and id_column is not None:
            raise InputError("id_column", id_column, "with ids it does nothing; give one of them")
        check_growing(Path(path))
        self.path, self.every, self.id_column = Path(path), every, id_column
        self.dataset, self.batch_size = dataset, batch_size
        self.recorder = None if id_column is not None else LossRecorder(path, ids)
        self._last = -1

    def on_train_begin(self, args: Any, state: PyTree, control: Any, **parts: Any) -> None:
        dataset = self._examples(parts)
        if self.id_column is not None:
            ids = _column(dataset, self.id_column)
            self.recorder = LossRecorder(self.path, ids) if state.is_world_process_zero else None
        elif self.recorder is not None:
            _check_count(self.recorder.ids, dataset)
        if self.recorder is not None and state.global_step == 0 and self.recorder.num_checkpoints:
            path = str(self.path)
            raise InputError("path", path, "it holds the record of an earlier run; give another, or remove it")
        self._record(state, parts)

    def on_step_end(self, args: Any, state: PyTree, control: Any, **parts: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps or control.should_training_stop:
            self._record(state, parts)

    def on_train_end(self, args: Any, state: PyTree, control: Any, **parts: Any) -> None:
        if not args.load_best_model_at_end:  # else the best model, of an earlier step, has been loaded by now
            self._record(state, parts)

    def _record(self, state: PyTree, parts: dict[str, Any]) -> None:
        if state.global_step == self._last:
            return
        self._last = state.global_step
        collate = parts["train_dataloader"].collate_fn
        losses = example_losses(parts["model"], self._examples(parts), collate, batch_size=self.batch_size)
        if not np.all(np.isfinite(losses)):
            warnings.warn(f"losses at step {self._last} are not finite: left out of {self.path}", stacklevel=2)
        elif self.recorder is not None and state.is_world_process_zero:
            self.recorder.add(self._last, losses)

    def _examples(self, parts: dict[str, Any]) -> Any:
        return parts["train_dataloader"].dataset if self.dataset is None else self.dataset


def _column(dataset: Any, name: str) -> list[Any]:
    """Return a column of a data set of `datasets`, or a field of each row of another."""
    columns = getattr(dataset, "column_names", None)
    if columns is None:
        try:
            return [dataset[row][name] for row in range(_count(dataset))]
        except (KeyError, TypeError, IndexError):
            raise InputError("id_column", name, "the rows of the data set do not have it") from None
    if name not in columns:
        remedy = (
            f"the trainer kept only {', '.join(columns)}; set remove_unused_columns=False, or add the callback to the "
            f"finished trainer with ids=trainer.train_dataset[{name!r}]"
        )
        raise InputError("id_column", name, remedy)
    return list(dataset[name])


def _check_count(ids: Any, dataset: Any) -> None:
    """Raise `InputError` if there are more or fewer examples than ids."""
    count, named = _count(dataset), 0 if ids is None else len(ids)
    if ids is None or named == count:
        return
    cause = "more than are named; is the data set another, or packed?"
    if count < named:
        cause = f"the trainer dropped {named - count} rows, as TRL does where max_length leaves nothing to learn"
    remedy = f"there are {count} examples, {cause}; id_column='id' takes the ids of the rows that are trained on"
    raise InputError("ids", f"{named} of them", remedy)


def _count(dataset: Any) -> int:
    try:
        return len(dataset)
    except TypeError:
        raise InputError(
            "dataset", type(dataset).__name__, "give one with a length; a stream has no examples to name"
        ) from None


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
