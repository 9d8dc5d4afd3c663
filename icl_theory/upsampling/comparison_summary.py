"""Comparison of two loss records as lines of text."""

from __future__ import annotations

import numpy as np

from icl_theory.upsampling.loss_record import LossRecord, step_text
from icl_theory.upsampling.record_comparison import Estimate, LossComparison
from icl_theory.upsampling.summary import line

MOST_STEPS = 6


def spread_out(count: int, most: int) -> list[int]:
    """Return at most so many of the numbers from 0 to `count`, evenly spread, the first and the last among them.

    Examples:
        >>> spread_out(10, 4)
        [0, 3, 6, 9]
        >>> spread_out(2, 4)
        [0, 1]
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def comparison_summary(a: LossRecord, found: LossComparison) -> list[str]:
    """Return lines of text on each step, the learning-time ratios, what may be selection, and the verdict."""
    shown = spread_out(len(found.steps), MOST_STEPS)
    count = f"{len(found.steps)} in both records" + (f", {len(shown)} shown" if len(shown) < len(found.steps) else "")
    left_out = a.num_examples - found.num_examples
    examples = f"{found.num_examples}" + (f"; {left_out} with gaps left out" if left_out else "")
    lines = [("examples", examples), ("steps", count)]
    for place in shown:
        lines += _step(found, place)
    lines.append(("", "intervals are over examples (95 %); another seed of training may change more"))
    if len(found.steps) > 1:
        ratios = [f"{name} {ratio:.3g}" if np.isfinite(ratio) else f"{name} not measurable"
                  for name, ratio in zip("AB", found.ratios, strict=True)]  # fmt: skip
        seen = "" if found.steps[0] == 0 else f" (seen from step {step_text(found.steps[0])} on)"
        lines.append(("ratio R", f"{', '.join(ratios)}{seen}"))
    lines.append(("verdict", found.verdict))
    return [line(name, text) for name, text in lines]


def _step(found: LossComparison, place: int) -> list[tuple[str, str]]:
    """Return the lines of one step."""
    spread, mean = _percent(_at(found.spread_change, place)), _percent(_at(found.mean_change, place))
    lines = [(f"step {step_text(found.steps[place])}", f"mean loss {mean}, its spread {spread}, B against A")]
    own = ", ".join(f"{name} {reach:.3g}" for name, reach in zip("AB", found.reach[place], strict=True))
    lines.append(("", f"mean loss of its own hardest tenth over that of its easiest: {own}"))
    for rank, name in enumerate(found.rankings):
        easy, hard = (_percent(_at(found.change, (place, rank, tenth))) for tenth in (0, -1))
        contrast = _percent(_at(found.contrast, (place, rank)))
        lines.append((f"  tenths: {name}", f"easiest {easy}, hardest {hard}, contrast {contrast}"))
    by_a, by_b, both = found.contrast.value[place, :3]
    if found.findings[place] != "identical" and np.isfinite([by_a, by_b, both]).all():
        part = f"of the {100 * by_a:+.1f} % in tenths of A, {100 * (by_a - both):+.1f} can be selection"
        lines.append(("", f"{part}, since tenths of B give {100 * by_b:+.1f} %"))
    return lines


def _at(found: Estimate, place: int | tuple[int, ...]) -> Estimate:
    return Estimate(*(np.asarray(values[place]) for values in found))


def _percent(found: Estimate) -> str:
    """Return a change with its interval, in per cent."""
    if np.isnan(found.value):
        return "not defined"
    value, low, high = (f"{100 * number:+.1f}".replace("-0.0", "+0.0") for number in found)
    return f"{value} % ({low} to {high})"
