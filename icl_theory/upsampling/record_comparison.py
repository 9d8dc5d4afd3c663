"""Two runs compared by the losses of the same examples: which of them leaves more to the hard examples?

At each step that both records have, examples are parted into tenths by loss, and the mean loss of each tenth under B is
held against that under A. B has less simplicity bias where the easiest tenth is higher and the hardest lower. The
*contrast* is the ratio of both, `(1 + change of the easiest)/(1 + change of the hardest) − 1`. A factor that is common
to all examples drops out of it.

**Selection.** A loss that is low under A is low by chance too, and a second run does not repeat the chance. The
easiest tenth of A is therefore higher under B, and its hardest lower, even if B is a repetition of A. In tenths of B
the same effect has the opposite sign. In tenths of the mean of both losses it cancels, if both runs are equally
noisy. So all three are computed, and a difference counts only if tenths of A and tenths of B show it with the same
sign. Noise alone cannot do that, however unequal it is: if `A = θ + a` and `B = θ + b`, the slope of B on A is `V/(V
+ var a)` and that of A on B is `V/(V + var b)`, with V the variance of θ, and both are below 1. The spread of the
losses within each run involves no selection, but grows with the noise. Tenths of an independent record, such as that
of a third run, are free of both effects. They decide if there are any.

Intervals are those of a bootstrap over examples. They do not cover what another seed of training would change.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from icl_theory.errors import InputError, check_number
from icl_theory.upsampling.loss_record import LossRecord, step_text
from icl_theory.upsampling.rule import upsample

TENTHS = 10
FEWEST = 100  # examples
RESAMPLES, PARTS = 1000, 1000  # of the bootstrap: examples are put at random into parts, which are drawn
LEVEL = 0.95
ROUNDING = 1e-6  # contrasts up to this, which float32 losses make by rounding, are no difference


class Estimate(NamedTuple):
    """A number with its bootstrap interval (95 %); all three have one shape, NaN where it is not defined."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class LossComparison(NamedTuple):
    """Losses of a run B held against those of a run A.

    S is the number of common steps and K that of rankings. Changes are relative: 0.02 means 2 % higher under B.

    Attributes:
        num_examples: Number of examples that were compared.
        steps: Common steps, (S,).
        rankings: What the tenths are of: "A", "B", "both", and "third" if a third record was given; K names.
        change: Change of the mean loss in each tenth, easiest first, (S, K, 10).
        contrast: Change of the easiest tenth relative to that of the hardest, (S, K).
        mean_change: Change of the mean loss of all examples, (S,).
        reach: Mean loss of the hardest tenth over that of the easiest, for A and B in tenths of their own, (S, 2).
        spreads: Standard deviations of the losses of A and of B, (S, 2).
        spread_change: Change of the standard deviation, (S,).
        ratios: Learning-time ratio R of A and of B by the rule of `upsample`, NaN if it cannot be measured.
        findings: What each step shows: "less" or "more" simplicity bias of B, "undecided" or "identical"; S words.
            "less" and "more" mean that the intervals of the contrast lie on one side of 0, in tenths of the third
            record if there is one, else in all others.
    """

    num_examples: int
    steps: np.ndarray
    rankings: tuple[str, ...]
    change: Estimate
    contrast: Estimate
    mean_change: Estimate
    reach: np.ndarray
    spreads: np.ndarray
    spread_change: Estimate
    ratios: tuple[float, float]
    findings: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The findings in a sentence."""
        said = {
            "less": "B has less simplicity bias than A",
            "more": "B has more simplicity bias than A",
            "undecided": "tenths of A and tenths of B show no common difference"
            if "third" not in self.rankings
            else "tenths of the third record show no difference",
            "identical": "the losses are identical",
        }
        parts = []
        for finding in dict.fromkeys(self.findings):
            steps = [step_text(step) for step, found in zip(self.steps, self.findings, strict=True) if found == finding]
            parts.append(f"{said[finding]} at step{'s' if len(steps) > 1 else ''} {_and(steps)}")
        return "; ".join(parts)


def compare_losses(a: LossRecord, b: LossRecord, *, ranking: LossRecord | None = None, seed: int = 0) -> LossComparison:
    """Compare the losses of two runs on the same examples at the steps that both records have.

    Examples with gaps in one of the records are left out.

    Args:
        a: The record of the first run.
        b: The record of the second run. Records with ids are matched by them.
        ranking: A record of a third run, independent of both. Its tenths decide, at the same step or else at its last.
        seed: Seed of the bootstrap.

    Raises:
        InputError: The records have no common step, other examples, fewer than 100 without gaps, or identical losses.
    """
    check_number("seed", seed, minimum=0, integer=True)
    b = _matched(a, b, "B")
    third = None if ranking is None else _matched(a, ranking, "ranking")
    whole = _without_gaps([one for one in (a, b, third) if one is not None])
    if len(whole) < FEWEST:
        raise InputError("examples", len(whole), f"tenths of them need at least {FEWEST} without gaps")
    a, b = a.arranged(whole), b.arranged(whole)
    third = None if third is None else third.arranged(whole)
    steps, rows_a, rows_b = np.intersect1d(a.steps, b.steps, return_indices=True)
    if not len(steps):
        shown = f"{_and([step_text(s) for s in a.steps])} against {_and([step_text(s) for s in b.steps])}"
        raise InputError("steps of A and B", shown, "none is in both records; record both runs at the same steps")
    if all(np.array_equal(a.losses[i], b.losses[j]) for i, j in zip(rows_a, rows_b, strict=True)):
        raise InputError("B", "the losses of A", "the records are identical at every common step; give two runs")
    draw = np.random.default_rng(seed)
    part = draw.integers(PARTS, size=a.num_examples)
    resample = np.vstack([np.ones(PARTS), draw.multinomial(PARTS, np.full(PARTS, 1 / PARTS), size=RESAMPLES)])
    names = ("A", "B", "both", *(() if third is None else ("third",)))
    change, contrast, means, spreads, reach, findings = [], [], [], [], [], []
    for step, i, j in zip(steps, rows_a, rows_b, strict=True):
        first, second = a.losses[i].astype(float), b.losses[j].astype(float)
        by = [first, second, first + second, *(() if third is None else (_at(third, step),))]
        tenths = [tenths_of(values) for values in by]
        found = np.stack([_changes(first, second, tenth, part, resample) for tenth in tenths], axis=1)
        change.append(found)
        with np.errstate(all="ignore"):
            contrast.append((1.0 + found[..., 0]) / (1.0 + found[..., -1]) - 1.0)
        moments = [_moments(values, part, resample) for values in (first, second)]
        with np.errstate(all="ignore"):
            means.append(moments[1][0] / moments[0][0] - 1.0)
            spreads.append(moments[1][1] / moments[0][1] - 1.0)
        reach.append([_reach(values, tenth) for values, tenth in ((first, tenths[0]), (second, tenths[1]))])
        findings.append("identical" if np.array_equal(first, second) else _finding(_estimate(contrast[-1])))
    return LossComparison(
        num_examples=len(whole),
        steps=steps,
        rankings=names,
        change=_estimate(np.stack(change, axis=1)),
        contrast=_estimate(np.stack(contrast, axis=1)),
        mean_change=_estimate(np.stack(means, axis=1)),
        reach=np.array(reach),
        spreads=np.stack([a.losses[rows_a].std(axis=1), b.losses[rows_b].std(axis=1)], axis=1),
        spread_change=_estimate(np.stack(spreads, axis=1)),
        ratios=(_ratio(a, steps, rows_a), _ratio(b, steps, rows_b)),
        findings=tuple(findings),
    )


def tenths_of(values: np.ndarray) -> np.ndarray:
    """Return the tenth of each example by its value, (P,), 0 for the lowest; equal values share the tenth."""
    from scipy.stats import rankdata

    return ((rankdata(values) - 0.5) * TENTHS / len(values)).astype(int)


def _matched(a: LossRecord, other: LossRecord, name: str) -> LossRecord:
    """Return the other record in the order of A."""
    if other.num_examples != a.num_examples or (a.ids is None) != (other.ids is None):
        remedy = f"A has {a.num_examples}{'' if a.ids is None else ', with ids'}; give records of the same examples"
        shown = f"{other.num_examples} examples{'' if other.ids is None else ', with ids'}"
        raise InputError(name, shown, remedy)
    return other if a.ids is None else other.for_ids(a.ids)


def _without_gaps(records: list[LossRecord]) -> np.ndarray:
    """Return the rows of the examples that have no gap in any record."""
    whole = np.ones(records[0].num_examples, bool)
    for record in records:
        if record.gaps is not None:
            whole &= ~record.gaps.any(axis=0)
    return np.flatnonzero(whole)


def _at(record: LossRecord, step: float) -> np.ndarray:
    """Return the losses of a record at a step, or else at its last."""
    return record.losses[np.flatnonzero(record.steps == step)[0] if step in record.steps else -1]


def _changes(a: np.ndarray, b: np.ndarray, tenth: np.ndarray, part: np.ndarray, resample: np.ndarray) -> np.ndarray:
    """Return the change in each tenth, of all examples and then of each resample, (1 + R, 10)."""
    cell = tenth * PARTS + part
    sums = [np.bincount(cell, weights=x, minlength=TENTHS * PARTS).reshape(TENTHS, PARTS) for x in (a, b)]
    with np.errstate(all="ignore"):
        found = (resample @ sums[1].T) / (resample @ sums[0].T) - 1.0
    return np.where(np.isfinite(found), found, np.nan)


def _moments(values: np.ndarray, part: np.ndarray, resample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation, of all examples and then of each resample, each (1 + R,)."""
    centre = values.mean()
    count, total, squares = (
        resample @ np.bincount(part, weights=weights, minlength=PARTS)
        for weights in (None, values - centre, np.square(values - centre))
    )
    return centre + total / count, np.sqrt(np.maximum(squares / count - np.square(total / count), 0.0))


def _reach(values: np.ndarray, tenth: np.ndarray) -> float:
    easiest, hardest = (values[tenth == place] for place in (0, TENTHS - 1))
    return float(hardest.mean() / easiest.mean()) if len(hardest) and easiest.any() else np.nan


def _estimate(found: np.ndarray) -> Estimate:
    """Return the value (the first) and the interval of the resamples."""
    value, drawn = found[0], found[1:]
    defined = ~np.isnan(drawn).all(axis=0)
    low, high = np.nanquantile(np.where(defined, drawn, 0.0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    known = defined & ~np.isnan(value)
    return Estimate(value, np.where(known, low, np.nan), np.where(known, high, np.nan))


def _finding(contrast: Estimate) -> str:
    """Say what the contrasts show: that in tenths of the third record, or else those of A, B and both together."""
    decide = slice(3, None) if len(contrast.value) > 3 else slice(None)
    if np.all(contrast.low[decide] > ROUNDING):
        return "less"
    return "more" if np.all(contrast.high[decide] < -ROUNDING) else "undecided"


def _ratio(record: LossRecord, steps: np.ndarray, rows: np.ndarray) -> float:
    return float(upsample(LossRecord(steps, record.losses[rows]), factor=1.0).ratio) if len(steps) > 1 else np.nan


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
