"""Summary of an upsampling as lines of text: its groups, its factor and the resulting set."""

from __future__ import annotations

import numpy as np

from icl_theory.errors import InputError
from icl_theory.upsampling.loss_record import LossRecord, step_text
from icl_theory.upsampling.rule import Upsampling, upsample

MOST_SOURCES = 20  # lines of a summary


def summary(record: LossRecord, found: Upsampling, copies: np.ndarray, ids: str) -> list[str]:
    """Return lines of text on the groups, the factor and the resulting set."""
    count, late, never = len(copies), int(found.late.sum()), int(np.isinf(found.times).sum())
    steps = f"{len(record.steps)}, steps {step_text(record.steps[0])} to {step_text(record.steps[-1])}"
    lines = [("examples", f"{count}, {ids}"), ("checkpoints", steps)]
    if record.steps[0] > 0:
        lines.append(("", "the first is not before training: what was learned by then is not seen"))
    if record.gaps is not None:
        lines.append(("gaps", f"{record.gaps.sum()} losses, in {record.gaps.any(axis=0).sum()} of the examples"))
    lines.append(("late", f"{_share(late, count)}: {found.parted}"))
    for source in found.sources[:MOST_SOURCES]:
        whole = ", small: late as a whole" if source.small else ""
        lines.append(("", f"{source.name}: {_share(source.late, source.examples)} of {source.examples}{whole}"))
    if len(found.sources) > MOST_SOURCES:
        lines.append(("", f"and {len(found.sources) - MOST_SOURCES} smaller sources"))
    learns = found.times > 0
    if late and late < count:
        early_median, late_median = (_median(found.times[group & learns]) for group in (~found.late, found.late))
        lines.append(("learned at", f"early {early_median}, late {late_median} (medians)"))
        bound = "at least " if late_median == "never" else ""
        lines.append(("ratio R", f"{bound}{found.ratio:.3g}" if np.isfinite(found.ratio) else "not measurable"))
    if never:
        lines.append(("never learned", f"{_share(never, count)}, taken for the last step"))
        lines.append(("", "loss that no model can remove looks the same: see --floor"))
    if not learns.all():
        lines.append(("nothing to lose", f"{int(np.sum(~learns))}, with no learning time"))
    lines.append(("factor", f"{found.factor:.3g}: {found.why}"))
    if found.factor > 1:
        lines.append(("upsampled", f"{int(found.chosen.sum())} {group_text(found)}, {count} rows to {copies.sum()}"))
        lines.append(("epoch", f"{copies.sum() / count:.2f} times as long, at the same batch size"))
    else:
        lines.append(("upsampled", "nothing"))
    return [line(name, text) for name, text in lines]


def beside_the_rule(record: LossRecord, found: Upsampling) -> list[str]:
    """Return lines of text that hold an upsampling beside that of the rule with its defaults."""
    try:
        ours = upsample(record, remaining=found.remaining, floor=_floor(record, found))
    except InputError as error:
        return [line("beside the rule", f"it finds no factor: {error}")]
    count, both = len(found.late), int(np.sum(found.late & ours.late))
    shares = [both / max(int(late.sum()), 1) for late in (found.late, ours.late)]
    chance = found.late.mean() * ours.late.mean() * count
    epochs = [
        1.0 + (kappa - 1.0) * late.mean() for kappa, late in ((found.factor, found.late), (ours.factor, ours.late))
    ]
    lines = [
        ("beside the rule", f"late {_share(int(ours.late.sum()), count)}: {ours.parted}"),
        ("", f"late by both {both}: {shares[0]:.1%} of the late here, {shares[1]:.1%} of the rule's; "
             f"by chance {chance:.0f}"),
        ("", f"factor {ours.factor:.3g}: {ours.why}"),
        ("", f"epoch {epochs[1]:.2f} times as long, here {epochs[0]:.2f}"),
    ]  # fmt: skip
    return [line(name, text) for name, text in lines]


def line(name: str, text: str) -> str:
    """Return a name and a text in two columns."""
    return f"{name:<16}{text}"


def group_text(found: Upsampling) -> str:
    """Return the upsampled group in words."""
    kinds = {"late": "late examples", "random": "examples drawn at random", "early": "early examples"}
    return kinds[found.group] + ("" if found.group == "late" else " (a control)")


def _share(part: int, count: int) -> str:
    return f"{part} ({part / count:.1%})"


def _floor(record: LossRecord, found: Upsampling) -> np.ndarray:
    return np.broadcast_to(np.asarray(found.floor, float), (record.num_examples,))


def _median(times: np.ndarray) -> str:
    if not len(times):
        return "none"
    middle = float(np.median(times))
    return "never" if np.isinf(middle) else f"step {step_text(middle)}"
