"""A saved study of arms: put together from seeds, compared seed by seed, read and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from icl_theory.environment import machine
from icl_theory.errors import InputError
from icl_theory.results import first_difference, plain, writing

Arms = dict[str, Any]
HALF = 0.5  # share of the first loss left at which a group counts as learned


def compared(arms: Arms) -> list[str]:
    """A line for each arm: mean accuracy, on unseen problems too; its difference from plain and from the random control
    of the same optimizer, paired by seed, with the 95 % interval of Student's t; R and progress of `bias_of`, rank
    agreement, and the mean loss of answers."""
    lines = [f"{'arm':32} accuracy  unseen    minus plain      minus random       R  progress  agreement    loss"]
    for name, arm in arms.items():
        against = []
        for other in ("plain", "random"):
            mean, half = paired(np.array(arm["accuracy"]) - arms[f"{name.split()[0]} {other}"]["accuracy"])
            against.append(f"{mean:+.3f} ± {half:.3f}")
        ratios, _, progress = bias_of(arm)
        numbers = [
            _mean(ratios, "6.2f"),
            _mean(progress, "8.2f"),
            _mean(arm.get("agreement"), "9.2f"),
            _mean(arm.get("loss"), "6.3f"),
        ]
        lines.append(
            f"{name:32} {np.mean(arm['accuracy']):8.3f}{_mean(arm.get('unseen'), '8.3f')}    {against[0]}    "
            f"{against[1]}  {'  '.join(numbers)}"
        )
    return lines


def _mean(values: Any, form: str) -> str:
    known = np.array([] if values is None else values, float)
    known = known[np.isfinite(known)]
    return f"{known.mean():{form}}" if len(known) else f"{'–':>{form.split('.')[0]}}"


def paired(differences: np.ndarray) -> tuple[float, float]:
    """Mean, and half of its 95 % interval, which one alone does not have."""
    count = len(differences)
    if count < 2:
        return float(differences.mean()), float("nan")
    half = student_t.ppf(0.975, count - 1) * differences.std(ddof=1) / count**0.5
    return float(differences.mean()), float(half)


def learning_step(steps: list[int], losses: Any) -> float:
    """The step at which half of the first loss is left, between records; infinite where it never is."""
    losses = np.asarray(losses)
    below = np.flatnonzero(losses <= HALF)
    if not len(below):
        return np.inf
    after = int(below[0])
    share = (losses[after - 1] - HALF) / (losses[after - 1] - losses[after])
    return float(steps[after - 1] + share * (steps[after] - steps[after - 1]))


def bias_of(arm: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each seed R, late over early learning step; whether it is a lower bound; and how much of the loss of
    the late is gone when the early are learned."""
    steps, last = arm["steps"], arm["steps"][-1]
    rows = []
    for early, late in zip(arm["early"], arm["late"], strict=True):
        if early is None or late is None:
            rows.append((np.nan, False, np.nan))
            continue
        first, second = learning_step(steps, early), learning_step(steps, late)
        progress = 1.0 - np.interp(first, steps, late) if np.isfinite(first) else np.nan
        rows.append((min(second, last) / first if np.isfinite(first) else np.nan, np.isinf(second), progress))
    return tuple(np.array(rows, float).T)


def merged(parts: list[Arms]) -> Arms:
    """Arms of some seeds as arms of all of them."""
    arms: Arms = {}
    for some in parts:
        for name, arm in some.items():
            known = arms.setdefault(name, {key: _empty(value) for key, value in arm.items()})
            for key, value in arm.items():
                if isinstance(value, dict):
                    for part, values in value.items():
                        known[key][part] += values
                elif key == "steps":
                    known[key] = value
                else:
                    known[key] += value
    return arms


def save_study(path: Path, settings: Any, arms: Arms, **more: Any) -> None:
    """Write it; complete or not at all."""
    with writing(path) as partial:
        saved = {"machine": machine(), **more, "settings": plain(settings), "arms": arms}
        partial.write_text(json.dumps(saved) + "\n")


def load_study(path: Path) -> dict[str, Any]:
    """Read a saved study.

    Raises:
        InputError: the file holds no finished study.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        compared(found["arms"])
        kinds(found)
        _ = found["settings"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            "--out", str(path), "it exists and holds no finished study; give another or remove it"
        ) from None
    return found


def check_same(path: Path, settings: Any) -> None:
    """Raise `InputError` where a file holds a study of other settings."""
    difference = first_difference(load_study(path)["settings"], plain(settings))
    if difference:
        raise InputError("--out", str(path), f"it holds a study of other settings ({difference}); give another file")


def shown(path: Path) -> str:
    """Return settings, comparisons and accuracies of kinds of a saved study as lines to read."""
    found = load_study(path)
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found["settings"].items())
    return "\n".join([f"{path}: {words}", *compared(found["arms"]), "", *kinds(found)])


def kinds(found: dict[str, Any]) -> list[str]:
    """A line for each arm, and for what was measured before training: mean accuracy, of all and of each kind of
    problems.
    """
    before = found.get("before", {})
    rows: Arms = {"before": {"all": before["accuracy"], **before["by_kind"]}} if "accuracy" in before else {}
    rows |= {"before, by template": before["by_template"]} if "by_template" in before else {}
    rows |= {name: {"all": arm["accuracy"], **arm["by_kind"]} for name, arm in found["arms"].items()}
    names = max((list(row) for row in rows.values()), key=len)
    widths = [max(len(name), 8) for name in names]
    lines = [" ".join([f"{'accuracy':32}", *(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))])]
    for row, values in rows.items():
        numbers = (f"{np.mean(values[name]):{width}.3f}" for name, width in zip(names, widths, strict=True))
        lines.append(" ".join([f"{row:32}", *numbers]))
    return lines


def _empty(value: Any) -> Any:
    return {key: [] for key in value} if isinstance(value, dict) else []
