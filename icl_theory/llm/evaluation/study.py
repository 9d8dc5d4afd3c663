"""Studies that compare training arms seed by seed: merging, saving, loading and printing them."""

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
HALF = 0.5  # a group counts as learned once its loss has fallen to this share of its first value


def compared(arms: Arms) -> list[str]:
    """Return a header and one line for each arm.

    A line holds the mean accuracy (on unseen problems too), its difference from the plain arm and from the random
    control of the same optimizer, R and progress of `bias_of`, the rank agreement, and the mean loss of answers.
    Differences are paired by seed, with Student's 95 % interval.
    """
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
    """Return the mean and the half-width of its 95 % interval; the half-width is NaN for a single difference."""
    count = len(differences)
    if count < 2:
        return float(differences.mean()), float("nan")
    half = student_t.ppf(0.975, count - 1) * differences.std(ddof=1) / count**0.5
    return float(differences.mean()), float(half)


def learning_step(steps: list[int], losses: Any) -> float:
    """Return the step at which a loss first falls to half, interpolated between records; infinite if it never does.

    Losses are shares of their first value.
    """
    losses = np.asarray(losses)
    below = np.flatnonzero(losses <= HALF)
    if not len(below):
        return np.inf
    after = int(below[0])
    share = (losses[after - 1] - HALF) / (losses[after - 1] - losses[after])
    return float(steps[after - 1] + share * (steps[after] - steps[after - 1]))


def bias_of(arm: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return R, whether R is only a lower bound, and the progress of the late group, for each seed.

    R is the learning step of the late group over that of the early group. Progress is the share of the late group's
    loss that is gone when the early group is learned.
    """
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
    """Merge parts of a study that hold different seeds of the same arms."""
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
    """Write a study, completely or not at all."""
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
    """Raise `InputError` if a file holds a study with other settings."""
    difference = first_difference(load_study(path)["settings"], plain(settings))
    if difference:
        raise InputError("--out", str(path), f"it holds a study of other settings ({difference}); give another file")


def shown(path: Path) -> str:
    """Return the settings, comparisons and accuracies by kind of a saved study as text."""
    found = load_study(path)
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found["settings"].items())
    return "\n".join([f"{path}: {words}", *compared(found["arms"]), "", *kinds(found)])


def kinds(found: dict[str, Any]) -> list[str]:
    """Return a table of mean accuracies over all problems and by kind of problem.

    It has one line for each arm, and up to two for the model before training.
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
