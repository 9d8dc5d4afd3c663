"""How the early and late examples of a pilot run were learned in another run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import icl_theory as icl
from experiments.language_models.problems import agreement
from icl_theory.errors import InputError


def learning(steps: Sequence[int], losses: np.ndarray, picked: Sequence[icl.Upsampling]) -> dict[str, Any]:
    """Return for each seed how its early and late examples were learned.

    `early` and `late` hold their mean losses over training, relative to the first. `learned` holds the median learning
    steps of both, None if never learned. `agreement` is the rank correlation of all learning steps with those of the
    pilot run.

    Args:
        steps: steps of the records.
        losses: (seeds, T, n) losses of the first n examples.
        picked: what the pilot run of each seed says.
    """
    summed: dict[str, Any] = {"early": [], "late": [], "learned": {"early": [], "late": []}, "agreement": []}
    last = steps[-1]
    for own, one in zip(losses.astype(float), picked, strict=True):
        count = own.shape[1]
        times = icl.example_learning_times(np.array(steps, float), own)
        for name, group in (("early", ~one.late[:count]), ("late", one.late[:count])):
            some = bool(group.any())
            relative = own[:, group] / own[0, group]
            summed[name].append(relative.mean(1).round(4).tolist() if some else None)
            middle = float(np.median(times[group])) if some else np.inf
            summed["learned"][name].append(round(middle, 1) if np.isfinite(middle) else None)
        summed["agreement"].append(agreement(np.minimum(times, last), np.minimum(one.times[:count], last)))
    return summed


def ratios(steps: Sequence[int], losses: np.ndarray, picked: Sequence[icl.Upsampling]) -> list[float]:
    """Return for each seed R, the median learning step of the late over that of the early; NaN if it is unknown.

    An example is learned as the rule took it in the pilot run: at its share of the first loss, above its floor there.
    Late examples that are never learned count as learned at the last step.

    Args:
        steps: steps of the records.
        losses: (seeds, T, n) losses of the first n examples.
        picked: what the pilot run of each seed says.
    """
    found = []
    for own, one in zip(losses.astype(float), picked, strict=True):
        count = own.shape[1]
        floor = np.broadcast_to(one.floor, one.times.shape)[:count]
        try:
            times = icl.example_learning_times(np.array(steps, float), own, remaining=one.remaining, floor=floor)
            found.append(icl.learning_time_ratio(times, one.late[:count], last=float(steps[-1])))
        except InputError:  # of one group nothing is learned after step 0, or a loss is not finite
            found.append(np.nan)
    return found
