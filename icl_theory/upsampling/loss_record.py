"""Records of every example's loss over training, which the upsampling rule uses; any model, any trainer.

A record is three arrays, in memory and in every file form (`record_files`):

    steps   (T,)    optimizer steps at which the losses were taken, ascending, the first before training (0)
    losses  (T, P)  loss of each example at each of them, float32 or float64, finite and not negative
    ids     (P,)    whole numbers or texts, each once; without ids, examples are named by their row in the data, from 0

For language models the loss of an example is the mean cross entropy of its completion's tokens, in nats. Any other loss
works if the whole record uses it. A record is not tied to a model: that of a small proxy model may choose the data of a
large one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from icl_theory.errors import InputError
from icl_theory.moments.compressed_prompts import CompressedPrompts
from icl_theory.training.run import Run

CHUNK = 2**16  # examples processed together, so that temporary arrays stay small


class LossRecord:
    """Losses of P examples at T checkpoints of one training run.

    Examples:
        >>> record = LossRecord([0, 100, 200], [[1.0, 1.0], [0.3, 0.9], [0.1, 0.4]], ids=["easy", "hard"])
        >>> record.losses.shape
        (3, 2)

    Args:
        steps: The optimizer steps, (T,), ascending.
        losses: The losses, (T, P).
        ids: Whole numbers or texts, (P,). None names examples by their row in the data.
        gaps: Accept losses that are NaN or infinite, as missing. Each becomes the example's last finite loss before it,
            or else its first; 0 if it has none. The attribute `gaps` is then True at these, (T, P); None without any.

    Raises:
        InputError: Shapes do not fit, steps are negative or do not ascend, a loss is negative or not finite (its step
            and example are named), or ids are of another kind or occur twice.
    """

    def __init__(self, steps: Any, losses: Any, ids: Any = None, *, gaps: bool = False):
        self.steps = _checked_steps(steps)
        self.losses = _as_losses(losses)
        if self.losses.ndim != 2 or len(self.losses) != len(self.steps) or not self.losses.shape[1]:
            raise InputError("losses", f"shape {self.losses.shape}", f"give shape ({len(self.steps)}, P), P at least 1")
        self.ids = None if ids is None else id_array("ids", ids)
        if self.ids is not None:
            if len(self.ids) != self.num_examples:
                raise InputError(
                    "ids", f"{len(self.ids)} of them", f"give one for each of {self.num_examples} examples"
                )
            check_unique("ids", self.ids)
        self.gaps: np.ndarray | None = None
        if gaps and not np.all(finite := np.isfinite(self.losses)):
            self.gaps = ~finite
            self.losses = _without_gaps(self.losses, self.gaps)
        self._check_losses()

    @property
    def num_examples(self) -> int:
        """The number of examples, P."""
        return int(self.losses.shape[1])

    @property
    def stored(self) -> np.ndarray:
        """The losses as files hold them, (T, P), with NaN in gaps."""
        return self.losses if self.gaps is None else np.where(self.gaps, self.losses.dtype.type("nan"), self.losses)

    def name(self, example: int) -> str:
        """Return the id of an example, or its row without ids."""
        return f"row {example}" if self.ids is None else repr(self.ids[example].as_py())

    @classmethod
    def from_run(cls, run: Run, examples: CompressedPrompts) -> LossRecord:
        """Compute the losses of compressed prompts from a run trained with `train(..., track=EffectiveTensor(...))`.

        `track=EffectiveMatrix(...)` works too if only the reduced block of the tensor is nonzero, as it is from starts
        whose wrong blocks are zero.
        """
        tensors = np.asarray(run.tracked)
        return cls(run.step, np.asarray(examples.losses(tensors.reshape(len(run.step), -1))))

    def chunks(self) -> Iterator[slice]:
        """Yield slices of the examples that keep temporary arrays small."""
        for start in range(0, self.num_examples, CHUNK):
            yield slice(start, start + CHUNK)

    def for_ids(self, ids: Any) -> LossRecord:
        """Return the record with its examples in the order of `ids`, such as `record.for_ids(dataset["id"])`.

        Raises:
            InputError: The record has no ids, an id occurs twice or has no losses, or losses belong to no id.
        """
        if self.ids is None:
            raise InputError("ids", "none", "the record names no examples: its losses are those of rows in order")
        wanted = id_array("ids", ids)
        found = self.arranged(match_ids(self, wanted, where="ids"))
        found.ids = wanted
        return found

    def arranged(self, order: np.ndarray) -> LossRecord:
        """Return the record with its examples in another order, given by row, and without ids."""
        found = LossRecord.__new__(LossRecord)
        found.steps, found.losses, found.gaps, found.ids = self.steps, self.losses, self.gaps, None
        if not np.array_equal(order, np.arange(self.num_examples)):
            found.losses = np.take(self.losses, order, axis=1)
            found.gaps = None if self.gaps is None else np.take(self.gaps, order, axis=1)
        return found

    def _check_losses(self) -> None:
        for part in self.chunks():
            losses = self.losses[:, part]
            bad = ~((losses >= 0) & np.isfinite(losses))
            if bad.any():
                place, example = (int(axis) for axis in np.argwhere(bad)[0])
                raise InputError(
                    f"loss of {self.name(part.start + example)} at step {self.steps[place]:g}",
                    float(losses[place, example]),
                    "must be a finite number, not negative; record it again, leave the example out of record and "
                    "data, or accept gaps",
                )


def match_ids(record: LossRecord, data_ids: pa.Array, *, where: str) -> np.ndarray:
    """Return the row of the record for each example of the data, (P,).

    Args:
        record: A record with ids.
        data_ids: The ids of the data, as texts.
        where: Where the ids of the data come from, for error messages.

    Raises:
        InputError: An id of the data occurs twice or has no losses, or losses belong to no example of the data.
    """
    assert record.ids is not None
    check_unique(where, data_ids)
    found = pc.index_in(data_ids, value_set=record.ids)
    if found.null_count:
        first = int(np.argmax(found.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(
            where,
            data_ids[first].as_py(),
            f"it and {found.null_count - 1} more of {len(data_ids)} have no losses in the record, whose ids look like "
            f"{record.ids[0].as_py()!r}; name the field of the data that holds the ids, take them for rows, record all "
            "examples, or leave out those that the trainer dropped",
        )
    if len(data_ids) != record.num_examples:
        unknown = pc.filter(record.ids, pc.invert(pc.is_in(record.ids, value_set=data_ids)))
        raise InputError(
            "ids of the loss record",
            unknown[0].as_py(),
            f"it and {len(unknown) - 1} more of {record.num_examples} are no examples of the data; give the data that "
            "the losses were recorded on",
        )
    return found.to_numpy()


def id_array(field: str, ids: Any) -> pa.Array:
    """Convert ids to an arrow array of texts; 17 and "17" are the same id.

    Raises:
        InputError: The ids are neither whole numbers nor texts, or one is missing.
    """
    if isinstance(ids, np.ndarray) and ids.dtype.kind not in "iuUTO":
        kind = "byte strings" if ids.dtype.kind == "S" else f"{ids.dtype} numbers"
        raise InputError(field, kind, "give whole numbers or texts")
    try:
        array = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(_plain(ids))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, UnicodeEncodeError):
        raise InputError(
            field, "a mixture of kinds", "give whole numbers, or proper texts, one for each example"
        ) from None
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        array = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(field, str(kind), "give whole numbers or texts, one for each example")
    if array.null_count:
        first = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(field, f"none in row {first}", "every example needs one")
    return array.cast(pa.large_string())


def check_unique(field: str, ids: pa.Array) -> None:
    """Raise `InputError` if an id occurs more than once, naming the first."""
    counts = pc.value_counts(ids)
    many = pc.greater(counts.field("counts"), 1)
    if pc.any(many).as_py():
        first = pc.filter(counts, many)[0].as_py()
        raise InputError(field, first["values"], f"it occurs {first['counts']} times; every example needs its own")


def _plain(ids: Any) -> Any:
    if isinstance(ids, np.ndarray):
        return ids if ids.dtype.kind in "iu" else ids.tolist()
    return list(ids) if isinstance(ids, Sequence | range) else np.asarray(ids).tolist()


def _checked_steps(steps: Any) -> np.ndarray:
    try:
        steps = np.asarray(steps, dtype=float)
    except (TypeError, ValueError):
        raise InputError("steps", steps, "give numbers, shape (T,)") from None
    if steps.ndim != 1 or not steps.size or not np.all(np.isfinite(steps)):
        raise InputError("steps", steps, "give finite numbers, shape (T,), at least one")
    falls = np.diff(steps) <= 0
    if falls.any():
        place = int(np.argmax(falls))
        shown = f"{steps[place]:g} and then {steps[place + 1]:g}"
        raise InputError("steps", shown, "they must ascend, each checkpoint once")
    if steps[0] < 0:
        raise InputError("steps", steps[0], "give steps from 0")
    return steps


def _as_losses(losses: Any) -> np.ndarray:
    try:
        losses = np.asarray(losses)
    except ValueError:
        losses = np.empty(0, dtype=object)
    if losses.dtype.kind not in "fiu":
        raise InputError("losses", f"{losses.dtype} of shape {losses.shape}", "give real numbers of shape (T, P)")
    if losses.dtype in (np.float32, np.float64):
        return losses
    return losses.astype(np.float32 if losses.dtype == np.float16 else np.float64)


def _without_gaps(losses: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Return losses in which each gap holds the last finite loss before it, or else the first, or 0."""
    places = np.maximum.accumulate(np.where(gaps, -1, np.arange(len(losses))[:, None]), axis=0)
    places = np.where(places < 0, np.argmin(gaps, axis=0), places)
    return np.where(gaps.all(axis=0), 0, np.take_along_axis(losses, places, axis=0)).astype(losses.dtype)


def step_text(step: float) -> str:
    """Return a step for people to read, as a whole number from 100 on."""
    return f"{step:.0f}" if step >= 100 else f"{step:.3g}"
