"""The arms of an upsampling experiment on finite data: what is upsampled, and the controls (theory notes, §8)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from icl_theory.moments.compressed_prompts import CompressedPrompts
from icl_theory.moments.empirical import Moments
from icl_theory.upsampling.factor import early_group, example_weights, learning_time_ratio, random_group, ratio_factor
from icl_theory.upsampling.lateness import example_learning_times, late_by_quantile


class Pilot(NamedTuple):
    """Results of a pilot run, from which examples to upsample are chosen.

    Attributes:
        time: (T,) times of the snapshots.
        tensors: (T, F) coefficients of the pilot.
        times: (P,) learning times of the examples.
        late: (P,) True for late examples.
        factor: κ = R, the ratio of the median learning times of late and early examples (target 1).
    """

    time: np.ndarray
    tensors: np.ndarray
    times: np.ndarray
    late: np.ndarray
    factor: float


def judge(
    examples: CompressedPrompts, time: np.ndarray, matrices: np.ndarray, *, quantile: float, own_floor: bool = True
) -> Pilot:
    """Find learning times, late examples and the factor of the ratio rule from the W (T, D, D) of a pilot run.

    With `own_floor`, the floor of each loss is its value at the end of the pilot. Otherwise the floor is zero, so that
    examples that no model can fit are late too.
    """
    tensors = matrices.reshape(len(time), -1)
    losses = np.asarray(examples.losses(tensors), float)
    times = example_learning_times(time, losses, floor=losses[-1] if own_floor else 0.0)
    late = late_by_quantile(times, quantile=quantile)
    ratio = learning_time_ratio(times, late, last=float(time[-1]))
    return Pilot(time, tensors, times, late, float(ratio_factor(ratio)))


def weighted_arms(pilot: Pilot, *, seed: int) -> dict[str, np.ndarray]:
    """Return example weights of three arms: κ on the late examples, or on as many random or early ones."""
    groups = {
        "late": pilot.late,
        "random": random_group(pilot.late, seed=seed),
        "early": early_group(pilot.times, pilot.late),
    }
    return {name: example_weights(group, pilot.factor) for name, group in groups.items()}


def fresh_arms(pilot: Pilot, own: Moments, pool: CompressedPrompts, *, seed: int) -> dict[str, Moments]:
    """Return the data of three arms, with (κ−1)·(number of late) fresh examples added: late, random or early ones.

    A fresh example is late if the pilot learns it no sooner than the first late example. It is early if the pilot
    learns it no later than the last of as many early examples. If the pool holds too few, each counts for more.
    """
    losses = np.asarray(pool.losses(pilot.tensors), float)
    times = example_learning_times(pilot.time, losses, floor=losses[-1])
    wanted = (pilot.factor - 1.0) * pilot.late.sum()
    order = np.random.default_rng(seed).permutation(len(times))  # the pool is sorted by group
    early = pilot.times[early_group(pilot.times, pilot.late)]
    kinds = {
        "fresh late": times >= np.min(pilot.times[pilot.late], initial=np.inf),
        "fresh random": np.ones(len(times), bool),
        "fresh early": (times > 0) & (times <= np.max(early, initial=0.0)),
    }
    arms = {}
    for name, kind in kinds.items():
        taken = order[kind[order]][: max(round(wanted), 1)]
        weight = np.zeros(len(times))
        weight[taken] = wanted / max(len(taken), 1)
        arms[name] = own + pool.moments(weight) if len(taken) and wanted > 0 else own
    return arms
