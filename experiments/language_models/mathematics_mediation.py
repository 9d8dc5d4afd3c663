"""Regression of accuracy on simplicity bias across arms and seeds: does a gain come with a lower bias?

For each arm a and seed s, x is the change of ln R against plain and y that of accuracy. The slope within arms,
`Σ (x − x̄_a)(y − ȳ_a) / Σ (x − x̄_a)²`, uses differences of seeds alone, which no amount of drawing the late explains.
The slope between arms uses the means x̄_a and ȳ_a. If lower bias is what helps, both are negative; noise in R draws the
first towards 0. The share mediated is `slope within · (x̄_late − x̄_random) / (ȳ_late − ȳ_random)`. Intervals are of a
bootstrap over seeds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from experiments.language_models.mathematics_arms import PLAIN

COMPARED = (
    "late",
    "random",
    "recipe",
    "recipe, random",
    "early",
    "late, first half",
    "late, second half",
    "late, by weight",
)
RESAMPLES = 2000


def changes(arms: dict[str, dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return x and y, (arms, seeds), and the names of the arms, of the seeds that all of them have.

    A seed whose R is unknown in an arm is left out.
    """
    names = [name for name in COMPARED if name in arms]
    seeds = set.intersection(*(set(arms[name]["seeds"]) for name in (*names, PLAIN)))

    def of(name: str, measured: str) -> np.ndarray:
        known = dict(zip(arms[name]["seeds"], arms[name][measured], strict=True))
        return np.array([known[seed] for seed in sorted(seeds)], float)

    x = np.log(np.array([of(name, "R") for name in names])) - np.log(of(PLAIN, "R"))
    y = np.array([of(name, "accuracy") for name in names]) - of(PLAIN, "accuracy")
    whole = np.isfinite(x).all(axis=0)
    return x[:, whole], y[:, whole], names


def slopes(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the slopes of y on x within arms and between arms; NaN without any spread of x."""
    middle_x, middle_y = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    return _slope(x - middle_x, y - middle_y), _slope(middle_x - middle_x.mean(), middle_y - middle_y.mean())


class Slope(NamedTuple):
    """A slope and the ends of its interval."""

    value: float
    low: float
    high: float


class Mediation(NamedTuple):
    """Slopes of accuracy on ln R, each with its 95 % interval.

    Attributes:
        arms: number of arms.
        seeds: number of seeds with a known R in all of them.
        within: slope within arms.
        between: slope between arms.
        share: share of the gain of `late` over `random` that the slope within arms explains; NaN without these arms.
    """

    arms: int
    seeds: int
    within: Slope
    between: Slope
    share: float


def mediation(arms: dict[str, dict[str, Any]], seed: int = 0) -> Mediation | None:
    """Return the slopes; None with fewer than two arms or three seeds, or if R is the same throughout."""
    if len([name for name in COMPARED if name in arms]) < 2:
        return None
    x, y, names = changes(arms)
    count = x.shape[1]
    if count < 3 or not np.isfinite(slopes(x, y)).all():
        return None
    draws = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    found = np.array([slopes(x, y), *(slopes(x[:, draw], y[:, draw]) for draw in draws)])
    ends = np.nanquantile(found[1:], [0.025, 0.975], axis=0)
    within, between = (Slope(float(found[0, place]), *map(float, ends[:, place])) for place in (0, 1))
    share = np.nan
    if {"late", "random"} <= set(names):
        change, gain = (values[names.index("late")].mean() - values[names.index("random")].mean() for values in (x, y))
        share = within.value * change / gain
    return Mediation(len(names), count, within, between, float(share))


def mediation_lines(found: Mediation | None) -> list[str]:
    """Return the lines of the report on mediation."""
    if found is None:
        return ["mediation: too few arms, or seeds with a known R, or R is the same in all"]
    told = [f"mediation ({found.arms} arms, {found.seeds} seeds): accuracy gained for a change of ln R by 1"]
    for name, (slope, low, high) in (("within arms", found.within), ("between arms", found.between)):
        told.append(f"{name:22} {slope:+.3f} ({low:+.3f} to {high:+.3f})")
    return [*told, f"share mediated, within  {found.share:+.2f}"]


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return float((x * y).sum() / np.square(x).sum())
