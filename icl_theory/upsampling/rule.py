"""The rule for upsampling: from a record of losses to weights of examples (theory notes, §8).

`R`, the ratio of learning times, is the median over the late examples over that of the early ones; upsampling the late
by κ divides it by about κ. The rules:

    ratio   κ = R / target; target 1: late and early are to be learned at the same time
    match   κ = R / R', R' of another record of the same examples, such as one under SAM: the data that stand in for it
    secant  κ = κ'^(ln(R/target) / ln(R/R')), R' of a record that was made under a factor κ': corrects a first try
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from icl_theory.errors import InputError, as_floats, check_choice
from icl_theory.upsampling.factor import (
    early_group,
    example_copies,
    example_weights,
    learning_time_ratio,
    random_group,
    ratio_factor,
    secant_factor,
)
from icl_theory.upsampling.lateness import (
    example_learning_times,
    floor_of,
    late_by_clustering,
    late_by_quantile,
    late_by_threshold,
)
from icl_theory.upsampling.loss_record import LossRecord, step_text
from icl_theory.upsampling.settings import MAX_FACTOR, check_settings, parse_late


class Upsampling(NamedTuple):
    """Weights of an upsampled set, and the reasons for them.

    Attributes:
        weights: (P,) κ for the upsampled, 1 for the rest: of a loss or of a sampler.
        late: (P,) learned late.
        chosen: (P,) upsampled; the late, unless a control group was asked for.
        times: (P,) learning times in steps; infinite where never learned, 0 where there was nothing to learn.
        ratio: R, a lower bound where never learned ones count as learned at the last step; NaN where not measurable.
        factor: κ.
        why: in words, how κ came about.
        parted: in words, what parts the late from the others.
        floor: one number or (P,): the loss of each example that stays whatever is learned.
        remaining: the share of the first loss at which an example counts as learned.
        group: "late", "random" or "early".
    """

    weights: np.ndarray
    late: np.ndarray
    chosen: np.ndarray
    times: np.ndarray
    ratio: float
    factor: float
    why: str
    parted: str
    floor: float | Float[Any, " P"]
    remaining: float
    group: str

    def copies(self, *, seed: int = 0) -> np.ndarray:
        """Return the count of each example in the upsampled set, (P,); `seed` draws those that take the rounding."""
        return example_copies(self.chosen, self.factor, seed=seed)

    def indices(self, *, seed: int = 0) -> np.ndarray:
        """The upsampled set as rows of the original, in their order: `dataset.select(indices)`."""
        copies = self.copies(seed=seed)
        return np.repeat(np.arange(len(copies)), copies)


def upsample(
    record: LossRecord,
    *,
    late: str = "quantile",
    remaining: float = 0.5,
    floor: str | np.ndarray = "zero",
    rule: str = "ratio",
    target: float | None = None,
    other: LossRecord | None = None,
    tried_factor: float | None = None,
    factor: float | None = None,
    max_factor: float | None = None,
    group: str = "late",
    seed: int = 0,
) -> Upsampling:
    """Find the late examples of a record and the factor for them.

    An example is learned at the first step at which the share `remaining` of its first loss (above its floor) is left,
    read off between checkpoints. The late are told by `late`:

        quantile=q    later than the quantile q of learning times (default ½)
        threshold=s   more than the share s of the loss left at the last checkpoint (default ½)
        clusters      in the slower of two clusters of relative-loss trajectories

    Examples:
        >>> record = LossRecord([0, 100, 200], [[1.0, 1.0], [0.3, 0.9], [0.1, 0.4]])
        >>> found = upsample(record)
        >>> found.weights.round(2).tolist(), found.why
        ([1.0, 2.52], 'R / target = 2.52 / 1')

    Args:
        record: losses, the first before training.
        late: as above.
        remaining: from 0, below 1.
        floor: the loss that stays whatever is learned: "zero", "last" (an example's own last loss), or (P,) losses,
            such as those of a converged model. With "zero" what no model can fit is late; with "last" what was not
            begun to be learned has nothing to learn.
        rule: "ratio", "match" or "secant", as in the module's text.
        target: the ratio of learning times that is wanted (rules ratio and secant), at least 1 (default 1).
        other: the other record of match and secant, of the same examples: by their ids, where the records have any.
        tried_factor: κ' of secant.
        factor: κ itself instead of a rule; at least 1.
        max_factor: an upper bound on what a rule gives (default 5; no theory behind it).
        group: "late", or a control of equal size: "random" or "early".
        seed: of the random control.

    Returns:
        In the order of the record (`record.for_ids` brings it to that of the data). With no late example (all learned
        at once), or none that is early, κ is 1.

    Raises:
        InputError: a single checkpoint, numbers out of range, options that exclude each other, a ratio that cannot be
            measured (give `factor`).
    """
    method, setting = parse_late(late)
    given = {"target": target, "other": other, "tried_factor": tried_factor, "max_factor": max_factor}
    check_settings(late=late, remaining=remaining, floor=floor, group=group, rule=rule, factor=factor, **given)
    if len(record.steps) < 2:
        raise InputError("steps", f"{len(record.steps)} checkpoint", "a learning time needs at least two")
    levels = _floors(record, floor)
    times = _times(record, remaining, levels)
    late_ones, parted = _late(record, times, method, setting, levels)
    if not late_ones.any() or late_ones.all():
        none, why = np.zeros(len(times), bool), _no_groups(late_ones, times)
        return Upsampling(
            example_weights(none, 1.0), late_ones, none, times, 1.0, 1.0, why, parted, levels, remaining, group
        )
    if factor is not None:
        kappa, why = float(factor), "as given"
        try:
            ratio = _ratio(record, late_ones, times)
        except InputError:
            ratio = np.nan
    else:
        ratio = _ratio(record, late_ones, times)
        achieved, bound = None, ""
        if other is not None:
            other = _same_examples(record, other)
            seen = _times(other, remaining, _floors(other, floor))
            achieved = _ratio(other, late_ones, seen)
            bound = "at least " if np.isinf(np.median(seen[late_ones])) else ""
        kappa, why = _rule(rule, ratio, achieved, 1.0 if target is None else float(target), tried_factor, bound)
        largest = MAX_FACTOR if max_factor is None else float(max_factor)
        if kappa > largest:
            kappa, why = largest, f"{why} → {kappa:.3g}, limited to {largest:g}"
        elif kappa < 1.0:
            kappa, why = 1.0, f"{why} → {kappa:.3g}: the late are learned soon enough already"
    chosen = _chosen(group, late_ones, times, seed)
    return Upsampling(
        example_weights(chosen, kappa), late_ones, chosen, times, ratio, kappa, why, parted, levels, remaining, group
    )


def _floors(record: LossRecord, floor: str | np.ndarray) -> Any:
    """One number, or (P,)."""
    if isinstance(floor, str):
        check_choice("floor", floor, ("zero", "last"))
        return 0.0 if floor == "zero" else record.losses[-1]
    levels = as_floats("floor", floor)
    if levels.shape != (record.num_examples,) or not np.all(np.isfinite(levels)):
        raise InputError("floor", f"shape {levels.shape}", f"give {record.num_examples} finite numbers")
    return levels


def _times(record: LossRecord, remaining: float, floor: Any) -> np.ndarray:
    parts = [
        example_learning_times(record.steps, record.losses[:, part], remaining=remaining, floor=floor_of(floor, part))
        for part in record.chunks()
    ]
    return np.concatenate(parts)


def _late(record: LossRecord, times: np.ndarray, method: str, setting: float, floor: Any) -> tuple[np.ndarray, str]:
    """The late ones, and in words what parts them from the others."""
    if method == "quantile":
        late = late_by_quantile(times, quantile=setting)
        if not late.any():
            return late, "none"
        return late, f"learned after step {step_text(times[~late].max())}, quantile {setting:g}"
    if method == "threshold":
        ends = record.losses[[0, -1]]
        parts = [late_by_threshold(ends[:, p], threshold=setting, floor=floor_of(floor, p)) for p in record.chunks()]
        return np.concatenate(parts), f"more than {setting:g} of the loss left at step {step_text(record.steps[-1])}"
    return late_by_clustering(record.losses, floor=floor), "the slower of two clusters of trajectories"


def _rule(
    rule: str, ratio: float, achieved: float | None, target: float, tried_factor: float | None, bound: str
) -> tuple[float, str]:
    """κ, and in words how it came about."""
    if rule == "ratio":
        return float(ratio_factor(ratio, target=target)), f"R / target = {ratio:.3g} / {target:g}"
    assert achieved is not None
    if rule == "match":
        return float(ratio_factor(ratio, target=achieved)), f"R / R' = {ratio:.3g} / {bound}{achieved:.3g}"
    assert tried_factor is not None
    try:
        kappa = float(secant_factor(tried_factor, ratio=ratio, achieved=achieved, target=target))
    except InputError:
        shown = f"R' = {achieved:.3g} under a factor {tried_factor:g}"
        raise InputError("other", shown, f"it should lie well below R = {ratio:.3g}; try a larger factor") from None
    moved = f"which took R from {ratio:.3g} to {bound}{achieved:.3g}"
    return kappa, f"secant step from {tried_factor:g}, {moved}, towards {target:g}"


def _same_examples(record: LossRecord, other: LossRecord) -> LossRecord:
    """The other record in the order of this one."""
    if (record.ids is None) != (other.ids is None) or other.num_examples != record.num_examples:
        remedy = f"give a record of the same {record.num_examples} examples, with ids if these have some"
        raise InputError("other", f"{other.num_examples} examples", remedy)
    return other if record.ids is None else other.for_ids(record.ids)


def _chosen(group: str, late: np.ndarray, times: np.ndarray, seed: int) -> np.ndarray:
    if group == "random":
        return random_group(late, seed=seed)
    return early_group(times, late) if group == "early" else late


def _no_groups(late: np.ndarray, times: np.ndarray) -> str:
    if late.any():
        return "all examples count as late: there is no group to upsample"
    if np.isinf(times).all():
        return "no example is learned by the last checkpoint: train longer, or raise what may remain"
    if not times.any():
        return "no example had anything to learn"
    return "all examples are learned at once: there is no late group"


def _ratio(record: LossRecord, late: np.ndarray, times: np.ndarray) -> float:
    try:
        return learning_time_ratio(times, late, last=float(record.steps[-1]))
    except InputError as error:
        raise InputError("learning-time ratio", str(error.value), f"{error.remedy}; or give the factor") from None
