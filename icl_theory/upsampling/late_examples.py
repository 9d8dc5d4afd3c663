"""Which examples of a record are late, by any of the selections, among all examples or within each source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from icl_theory.errors import InputError
from icl_theory.upsampling.lateness import floor_of, late_by_clustering, late_by_quantile, late_by_threshold
from icl_theory.upsampling.loss_record import LossRecord, id_array, step_text
from icl_theory.upsampling.ratio_clusters import late_by_loss_ratios

PARTED = {
    "clusters": "the slower of two clusters of trajectories",
    "ratio-clusters": "the higher of two clusters of loss ratios",
}


class Source(NamedTuple):
    """Examples of one source.

    Attributes:
        name: Name of the source.
        examples: Number of its examples.
        late: Number of its late examples.
        small: Whether it was late as a whole, because it is small.
    """

    name: str
    examples: int
    late: int
    small: bool


class Late(NamedTuple):
    """Late examples and how they were found.

    Attributes:
        late: True for late examples, (P,).
        parted: What separates them from the others, in words.
        sources: Sources within which they were found, largest first; empty if among all examples.
    """

    late: np.ndarray
    parted: str
    sources: tuple[Source, ...] = ()


def find_late(
    record: LossRecord,
    times: np.ndarray,
    method: str,
    setting: float,
    floor: Any,
    *,
    first: int | None = None,
    by: Any = None,
    small_sources: str = "late",
) -> Late:
    """Return the late examples. The arguments are those of `upsample`, with learning times (P,) and floors as numbers.

    Raises:
        InputError: `first` is larger than the number of checkpoints, or `by` does not name a source for each example.
    """
    if method == "quantile":
        late = late_by_quantile(times, quantile=setting)
        if not late.any():
            return Late(late, "none")
        return Late(late, f"learned after step {step_text(times[~late].max())}, quantile {setting:g}")
    if method == "threshold":
        ends = record.losses[[0, -1]]
        parts = [late_by_threshold(ends[:, p], threshold=setting, floor=floor_of(floor, p)) for p in record.chunks()]
        return Late(np.concatenate(parts), f"more than {setting:g} of the loss left at step {_last(record)}")
    count = len(record.steps)
    if first is not None and first > count:
        raise InputError("first", first, f"the record has {count} checkpoints; give at most that many")
    losses = record.losses[:first]
    gaps = None if record.gaps is None else record.gaps[:first]
    parted = PARTED[method] + ("" if first in (None, count) else f", first {first} checkpoints")

    def cluster(members: Any) -> np.ndarray:
        if method == "clusters":
            return late_by_clustering(losses[:, members], floor=floor_of(floor, members))
        return late_by_loss_ratios(losses[:, members], gaps=None if gaps is None else gaps[:, members])

    if by is None:
        return Late(cluster(slice(None)), parted)
    late, sources = _within_sources(by, record.num_examples, cluster, whole=small_sources == "late")
    return Late(late, f"{parted}, within each of {len(sources)} sources", sources)


def _within_sources(
    by: Any, count: int, cluster: Callable[[np.ndarray], np.ndarray], *, whole: bool
) -> tuple[np.ndarray, tuple[Source, ...]]:
    """Cluster each source by itself; with `whole`, sources smaller than the average are late as a whole."""
    names = id_array("by", by)
    if len(names) != count:
        raise InputError("by", f"{len(names)} of them", f"give the source of each of {count} examples")
    coded = pc.dictionary_encode(names)
    codes, sources = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    if len(sources) == count > 1:
        raise InputError("by", sources[0], "every example is a source of its own; name a field that groups them")
    sizes = np.bincount(codes)
    order = np.argsort(codes, kind="stable")
    late, found = np.zeros(count, bool), []
    for name, members in zip(sources, np.split(order, np.cumsum(sizes)[:-1]), strict=True):
        small = whole and len(members) * len(sources) < count
        late[members] = small or cluster(members)
        found.append(Source(name, len(members), int(late[members].sum()), small))
    return late, tuple(sorted(found, key=lambda source: (-source.examples, source.name)))


def _last(record: LossRecord) -> str:
    return step_text(record.steps[-1])
