"""Verdicts on a study of mathematical problems, by the section "What counts" of its protocol (PROTOCOL.md)."""

from __future__ import annotations

from typing import Any

from experiments.language_models.mathematics_arms import PLAIN
from experiments.language_models.mathematics_mediation import Mediation

SMALLEST = 0.02  # gain below which upsampling is not worth a second run
RANDOM = {"late": "random", "recipe": "recipe, random"}
Comparisons = list[dict[str, Any]]


def single(mean: float, half: float, rejected: bool) -> str:
    """Return `gain`, `loss`, `no gain of 2 points` or `not shown` for a primary comparison."""
    if rejected:
        return "gain" if mean > 0 else "loss"
    return f"no gain of {100 * SMALLEST:g} points" if mean + half < SMALLEST else "not shown"


def overall(found: Comparisons, arm: str) -> str:
    """Return `shown`, `refuted at 2 points`, `not shown`, or `not made` for lack of seeds, for the gain of an arm."""
    pairs = [_of(found, arm, other) for other in (PLAIN, RANDOM[arm])]
    if not all(pair and "verdict" in pair for pair in pairs):
        return "not made"
    if all(pair["verdict"] == "gain" for pair in pairs):
        return "shown"
    return f"refuted at {100 * SMALLEST:g} points" if _ends(pairs[1])[1] < SMALLEST else "not shown"


def how(found: Comparisons, mediated: Mediation | None) -> str:
    """Return how upsampling the late helps: `a lower bias`, `more steps` or `not decided`."""
    pairs = {
        "order": _of(found, "late, first half", "late, second half"),
        "weight": _of(found, "late, by weight", PLAIN),
        "steps": _of(found, "late, second half", "random"),
    }
    if overall(found, "late") != "shown" or not all(pairs.values()):
        return "not decided"
    low, high = ({name: _ends(pair)[end] for name, pair in pairs.items()} for end in (0, 1))
    if mediated and min(low["order"], low["weight"]) > 0 and mediated.within.high < 0 and mediated.share >= 0.5:
        return "a lower bias"
    return "more steps" if low["steps"] > 0 and max(high["order"], high["weight"]) < SMALLEST else "not decided"


def _of(found: Comparisons, arm: str, other: str) -> dict[str, Any]:
    return next((one for one in found if (one["arm"], one["other"]) == (arm, other)), {})


def _ends(one: dict[str, Any]) -> tuple[float, float]:
    return one["mean"] - one["half"], one["mean"] + one["half"]
