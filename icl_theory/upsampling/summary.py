"""Summary of an upsampling as lines of text: its groups, its factor and the resulting set."""

from __future__ import annotations

import numpy as np

from icl_theory.upsampling.loss_record import LossRecord, step_text
from icl_theory.upsampling.rule import Upsampling


def summary(record: LossRecord, found: Upsampling, copies: np.ndarray, ids: str) -> list[str]:
    """Return lines of text on the groups, the factor and the resulting set."""
    count, late, never = len(copies), int(found.late.sum()), int(np.isinf(found.times).sum())
    steps = f"{len(record.steps)}, steps {step_text(record.steps[0])} to {step_text(record.steps[-1])}"
    lines = [("examples", f"{count}, {ids}"), ("checkpoints", steps)]
    if record.steps[0] > 0:
        lines.append(("", "the first is not before training: what was learned by then is not seen"))
    lines.append(("late", f"{late} ({late / count:.1%}): {found.parted}"))
    learns = found.times > 0
    if late and late < count:
        early_median, late_median = (_median(found.times[group & learns]) for group in (~found.late, found.late))
        lines.append(("learned at", f"early {early_median}, late {late_median} (medians)"))
        bound = "at least " if late_median == "never" else ""
        lines.append(("ratio R", f"{bound}{found.ratio:.3g}" if np.isfinite(found.ratio) else "not measurable"))
    if never:
        lines.append(("never learned", f"{never} ({never / count:.1%}), taken for the last step"))
        lines.append(("", "loss that no model can remove looks the same: see --floor"))
    if not learns.all():
        lines.append(("nothing to lose", f"{int(np.sum(~learns))}, never late"))
    lines.append(("factor", f"{found.factor:.3g}: {found.why}"))
    if found.factor > 1:
        lines.append(("upsampled", f"{int(found.chosen.sum())} {group_text(found)}, {count} rows to {copies.sum()}"))
        lines.append(("epoch", f"{copies.sum() / count:.2f} times as long, at the same batch size"))
    else:
        lines.append(("upsampled", "nothing"))
    return [line(name, text) for name, text in lines]


def line(name: str, text: str) -> str:
    """Return a name and a text in two columns."""
    return f"{name:<16}{text}"


def group_text(found: Upsampling) -> str:
    """Return the upsampled group in words."""
    kinds = {"late": "late examples", "random": "examples drawn at random", "early": "early examples"}
    return kinds[found.group] + ("" if found.group == "late" else " (a control)")


def _median(times: np.ndarray) -> str:
    if not len(times):
        return "none"
    middle = float(np.median(times))
    return "never" if np.isinf(middle) else f"step {step_text(middle)}"
