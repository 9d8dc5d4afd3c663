"""Held-out losses of every two methods over training, as the few numbers that the explorer shows."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from icl_theory.verification.changes import log_change
from icl_theory.verification.claims.generalisation_readings import only

METHODS = {
    "gd": "gradient descent",
    "sam": "SAM, ρ = 0.05",
    "late": "late upsampled",
    "two-phase": "late upsampled, then returned",
    "random": "control: random upsampled",
    "early": "control: early upsampled",
    "fresh late": "augmented with fresh late",
    "fresh random": "control: fresh of any kind",
}
KINDS = {  # which colour of the style sheet each has
    "gd": "gd",
    "sam": "sam",
    "late": "upsampled",
    "two-phase": "upsampled",
    "random": "random",
    "early": "early",
    "fresh late": "fresh",
    "fresh random": "random",
}
CASE: Any = {"noise_std": 0.0, "shown_test": "training"}
MOMENTS = 32  # times shown
FIRST = 15.0  # the first of them
UNIT = 1e-4  # numbers are whole multiples of it


def curves(data: xr.Dataset) -> dict[str, Any]:
    """Return `ln(held-out loss / that of another method)` over training: medians of paired seeds, 99 % intervals.

    Args:
        data: saved data of the claim `generalisation`.

    Returns:
        Names of the methods and the classes of their colours, names of the data sets (mixture and number of prompts),
        times (T,), seeds, the unit, and `changes[data][pair]`: three lists (median, low, high) of T whole numbers,
        for each pair of `itertools.combinations`, first over second.
    """
    time = data.time.values
    wanted = np.geomspace(FIRST, time[-1], MOMENTS)
    chosen = np.unique(np.abs(time[:, None] - wanted).argmin(axis=0))
    losses = data.held_out_loss.isel(snapshot=chosen)
    cases = [(str(mixture), int(size)) for mixture in np.unique(data.mixture) for size in np.unique(data.num_prompts)]
    return {
        "methods": list(METHODS.values()),
        "kinds": [KINDS[name] for name in METHODS],
        "data": [f"{mixture}, P = {size}" for mixture, size in cases],
        "time": [float(f"{value:.4g}") for value in time[chosen]],
        "seeds": int(data.sizes["seed"]),
        "unit": UNIT,
        "changes": [
            _pairs(only(losses, mixture=mixture, num_prompts=size, **CASE).squeeze("case")) for mixture, size in cases
        ],
    }


def _pairs(losses: xr.DataArray) -> list[list[list[int]]]:
    """Return median, low and high over time of every pair of methods, from losses (arm, seed, snapshot)."""
    rows = []
    for first, second in combinations(METHODS, 2):
        pair = losses.sel(arm=first).values, losses.sel(arm=second).values
        changes = [log_change(own, other) for own, other in zip(*(each.T.astype(float) for each in pair), strict=True)]
        rows.append([[round(value / UNIT) for value in values] for values in list(zip(*changes, strict=True))[:3]])
    return rows
