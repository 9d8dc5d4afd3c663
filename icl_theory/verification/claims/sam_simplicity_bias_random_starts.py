"""Statements about SAM from random starts that theory predicts start by start (theory notes, §16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from icl_theory.theory.random_start_cascade import RandomStartCascade
from icl_theory.verification.changes import known_median
from icl_theory.verification.claims.sam_simplicity_bias_statements import RADII
from icl_theory.verification.claims.sam_simplicity_bias_statements import table as table

TIMES = ("predicted_learning_time", "learning_time")
CASCADE: dict[str, Any] = {"source": "notes §16", "predictor": RandomStartCascade, "figure": "random_starts"}


@table.agrees(
    "Random starts under SAM, {case}: medians of t_1, t_2 and t_3 are predicted from the starts alone (starts "
    "that learn all four in theory and training)",
    rtol=0.15,
    **CASCADE,
    cases={"rho_002": "ρ = 0.02", "rho_005": "ρ = 0.05"},
)
def learning_times_under_sam_are_predicted(data: xr.Dataset, case: str) -> tuple[np.ndarray, np.ndarray]:
    predicted, measured = _learned_in_both(data, RADII[case])
    return np.median(predicted, axis=0)[:3], np.median(measured, axis=0)[:3]


@table.agrees("The last feature is predicted less well: the median of t_4, ρ = 0.02 and 0.05", rtol=0.4, **CASCADE)
def last_learning_time_under_sam_is_predicted(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    both = [_learned_in_both(data, rho) for rho in (0.02, 0.05)]
    predicted, measured = zip(*both, strict=True)
    return np.asarray([np.median(times[:, 3]) for times in predicted]), np.asarray(
        [np.median(times[:, 3]) for times in measured]
    )


@table.agrees(
    "Claim A from theory: SAM at ρ = 0.05 lowers ln(t_d/t_1), d = 2 and 3, by as much as is predicted (medians of "
    "paired changes)",
    atol=0.1,
    **CASCADE,
)
def fall_of_the_ratios_is_predicted(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    plain, sharp = (np.log(times[..., 1:3] / times[..., :1]) for times in _both(data, (0.0, 0.05)))
    predicted, measured = sharp - plain
    known = np.isfinite(predicted) & np.isfinite(measured)
    return known_median(np.where(known, predicted, np.nan)), known_median(np.where(known, measured, np.nan))


@table.at_most(
    "The theory of random starts sees the trap too soon: at no ρ up to 0.1 do more starts learn feature 1 in "
    "theory than in training (largest difference of shares)",
    source="found here; notes §16",
    predictor=RandomStartCascade,
    figure="simplicity_bias",
    after_measurement="found on other seeds",
)
def theory_sees_the_trap_too_soon(data: xr.Dataset) -> np.ndarray:
    few = data.sel(rho=data.rho[data.rho <= 0.1], feature=1)
    predicted, measured = (np.isfinite(few[name].values).mean(axis=1) for name in TIMES)
    return predicted - measured


def _both(data: xr.Dataset, rhos: tuple[float, ...]) -> np.ndarray:
    """Return predicted and measured learning times, (ρ, 2, seed, D)."""
    return np.stack([[data[name].sel(rho=rho).values for name in TIMES] for rho in rhos])


def _learned_in_both(data: xr.Dataset, rho: float) -> np.ndarray:
    """Return predicted and measured times, (2, seeds, D), of the starts that learn all features in both."""
    times = _both(data, (rho,))[0]
    return times[:, np.isfinite(times).all(axis=(0, 2))]
