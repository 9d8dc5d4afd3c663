"""A saved study of arms: put together from seeds, compared seed by seed, read and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import t as student_t

from icl_theory.errors import InputError
from icl_theory.store import machine, plain, writing

Arms = dict[str, Any]


def compared(arms: Arms) -> list[str]:
    """A line for each arm: mean accuracy, and its difference from plain and from the random control of the same optimizer,
    paired by seed, with the 95 % interval of Student's t."""
    lines = [f"{'arm':32} accuracy       minus plain      minus random"]
    for name, arm in arms.items():
        against = []
        for other in ("plain", "random"):
            mean, half = paired(np.array(arm["accuracy"]) - arms[f"{name.split()[0]} {other}"]["accuracy"])
            against.append(f"{mean:+.3f} ± {half:.3f}")
        lines.append(f"{name:32} {np.mean(arm['accuracy']):.3f}    {against[0]}    {against[1]}")
    return lines


def paired(differences: np.ndarray) -> tuple[float, float]:
    """Mean, and half of its 95 % interval, which one alone does not have."""
    count = len(differences)
    if count < 2:
        return float(differences.mean()), float("nan")
    half = student_t.ppf(0.975, count - 1) * differences.std(ddof=1) / count**0.5
    return float(differences.mean()), float(half)


def merged(parts: list[Arms]) -> Arms:
    """Arms of some seeds as arms of all of them."""
    arms: Arms = {}
    for part in parts:
        for name, arm in part.items():
            known = arms.setdefault(name, {key: _empty(value) for key, value in arm.items()} | {"steps": arm["steps"]})
            for key, value in arm.items():
                if key == "by_kind":
                    for kind, values in value.items():
                        known[key][kind] += values
                elif key != "steps":
                    known[key] += value
    return arms


def save_study(path: Path, settings: Any, arms: Arms, **more: Any) -> None:
    """Write it; complete or not at all."""
    with writing(path) as partial:
        saved = {"machine": machine(), **more, "settings": plain(settings), "arms": arms}
        partial.write_text(json.dumps(saved) + "\n")


def load_study(path: Path) -> dict[str, Any]:
    """What was saved.

    Raises:
        InputError: the file holds no finished study.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        compared(found["arms"])
        _ = found["settings"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            "--out", str(path), "it exists and holds no finished study; give another or remove it"
        ) from None
    return found


def show(path: Path) -> None:
    """Settings and comparisons of a saved study, printed."""
    found = load_study(path)
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found["settings"].items())
    click.echo("\n".join([f"{path}: {words}", *compared(found["arms"])]))


def _empty(value: Any) -> Any:
    return {key: [] for key in value} if isinstance(value, dict) else []
