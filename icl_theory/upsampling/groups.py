"""Mean trajectories of groups of examples, computed in parts that fit into memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from icl_theory.upsampling.lateness import floor_of, relative_losses
from icl_theory.upsampling.loss_record import LossRecord
from icl_theory.upsampling.rule import Upsampling


def group_centres(record: LossRecord, found: Upsampling) -> tuple[np.ndarray, np.ndarray]:
    """Return mean relative-loss trajectories of early and late, (2, T), and each example's distance to its own, (P,).

    Relative losses are clipped to 0 … 2, as for clusters. The distance is the root mean square over checkpoints.
    """
    centres = np.zeros((2, len(record.steps)))
    for part in record.chunks():
        rows = relative_rows(record, part, found.floor)
        for group, members in enumerate((~found.late[part], found.late[part])):
            centres[group] += rows[:, members].sum(axis=1)
    centres /= np.maximum([[np.sum(~found.late)], [np.sum(found.late)]], 1)
    distance = np.empty(record.num_examples)
    for part in record.chunks():
        gap = relative_rows(record, part, found.floor) - centres[found.late[part].astype(int)].T
        distance[part] = np.sqrt(np.mean(np.square(gap), axis=0))
    return centres, distance


def relative_rows(record: LossRecord, part: slice, floor: Any) -> np.ndarray:
    """Return relative losses of the examples in `part`, (T, some), clipped to 0 … 2; `floor` is a number or (P,)."""
    return np.clip(relative_losses(record.losses[:, part], floor=floor_of(floor, part)), 0.0, MOST_SHOWN)


MOST_SHOWN = 2.0  # larger relative losses are clipped to this, as for clusters
