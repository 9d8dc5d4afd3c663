"""Results of a job, as numbers, lines of text and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icl_theory.llm.data.examples import Examples
from icl_theory.llm.data.problems import Row
from icl_theory.llm.evaluation.answers import Evaluation
from icl_theory.llm.evaluation.evaluation import by_kind
from icl_theory.results import exists, writing
from icl_theory.upsampling.loss_record import LossRecord
from icl_theory.upsampling.picture import save_upsampling_picture, with_examples
from icl_theory.upsampling.rule import Upsampling
from icl_theory.upsampling.summary import group_text, line

LAST = 10  # number of last steps whose mean loss is reported


def accuracies(found: Evaluation | None, problems: Sequence[Row] | None, field: str | None) -> dict[str, Any] | None:
    """Return accuracies over all problems, and by the values of a field if one is given; None without an evaluation."""
    if found is None or problems is None:
        return None
    parts = {} if field is None else by_kind(found, [row.get(field, "none") for row in problems])
    return _accuracy(found) | {"by_kind": {name: _accuracy(one) for name, one in parts.items()}}


def upsampling_numbers(found: Upsampling) -> dict[str, Any]:
    """Return the numbers of an upsampling that go into the report."""
    return {
        "late": int(found.late.sum()),
        "upsampled": int(found.chosen.sum()),
        "ratio": found.ratio if np.isfinite(found.ratio) else None,
        "factor": found.factor,
        "why": found.why,
    }


def save_pictures(record: LossRecord, found: Upsampling, examples: Examples, name: str, path: Path) -> None:
    """Save pictures of the upsampling of a set as `path` with the suffixes .png and .svg, unless they exist."""
    names = examples.ids.to_pylist()
    figure = with_examples(
        record,
        found,
        rows_of=lambda wanted: [dict(examples.rows[row]) for row in wanted],
        name_of=lambda row: f"{examples.named_by} {names[row]}",
        title=f"{name}: factor {found.factor:.3g} on {group_text(found)}; {found.why}",
    )
    for suffixed in (path.with_suffix(".png"), path.with_suffix(".svg")):
        if not exists(suffixed):
            with writing(suffixed) as partial:
                save_upsampling_picture(figure, partial)


def loss_numbers(losses: np.ndarray) -> dict[str, float]:
    """Return the loss of the first step, and the mean loss of the last `LAST` steps."""
    return {"first": float(losses[0]), "last": float(losses[-LAST:].mean())}


def outcome(found: Mapping[str, Any]) -> list[str]:
    """Return the losses and accuracies of a report as lines of text."""
    loss, last = found["loss"], min(found["steps"], LAST)
    trained = f"{loss['first']:.3g} at the first of {found['steps']} steps, {loss['last']:.3g} over the last {last}"
    lines = [line("loss", trained)]
    before, after = found["before"], found["after"]
    if before is None:
        return lines
    rows = [("all", before, after)]
    rows += [(name, one, after["by_kind"][name]) for name, one in before["by_kind"].items()]
    width = max(14, *(len(name) + 2 for name, _, _ in rows))
    lines.append(f"{'right':<{width + 2}}{'before':<22}{'after':<22}(95 % intervals over problems)")
    for name, one, other in rows:
        lines.append(f"  {name:<{width}}{_share(one):<22}{_share(other):<22}of {one['count']}")
    if before["cut"] or after["cut"]:
        text = f"{before['cut']} replies before and {after['cut']} after, by --max-new"
        lines.append(line("cut off", text))
    return lines


def _share(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return f"{one['accuracy']:.1%} ({low:.1%}–{high:.1%})"


def _accuracy(found: Evaluation) -> dict[str, Any]:
    return {
        "accuracy": found.accuracy,
        "interval": list(found.interval),
        "count": len(found.right),
        "cut": int(found.cut.sum()),
    }
