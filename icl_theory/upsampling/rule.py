"""The upsampling rule, from a record of losses to weights of examples (theory notes, §8).

The ratio `R` is the median learning time of the late examples divided by that of the early ones. Upsampling the late by
κ lowers it. The rules:

    ratio   κ = R / target; with target 1, late and early are learned at the same time
    excess  κ = (R − 1) / (target − 1), for a target above 1: where the units that learned the early go on to the late
    match   κ = R / R', with R' of another record of the same examples, such as one under SAM, whose order is imitated
    secant  κ = (R − R_∞) / (target − R_∞), R_∞ = (κ'R' − R) / (κ' − 1), with R' of a record made under a factor κ':
            corrects a first try

Why there are two first rules, and when which holds, is in the theory notes, §16. In short: `ratio` is that of units
which learn early and late at once, `excess` that of units which begin the late when the early are learned. If in doubt,
take `ratio` first, which asks for less, and then `secant`.
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
    excess_factor,
    learning_time_ratio,
    random_group,
    ratio_factor,
    secant_factor,
)
from icl_theory.upsampling.late_examples import Source, find_late
from icl_theory.upsampling.lateness import example_learning_times, floor_of
from icl_theory.upsampling.loss_record import LossRecord
from icl_theory.upsampling.noise_scale import NoiseScale, check_noise_scale
from icl_theory.upsampling.optimizer_rule import check_optimizer, median_times, optimizer_factor
from icl_theory.upsampling.settings import MAX_FACTOR, check_settings, parse_late


class Upsampling(NamedTuple):
    """Weights of an upsampled set, and the reasons for them.

    Attributes:
        weights: Weights for a loss or a sampler, (P,): κ for the upsampled examples, 1 for the rest.
        late: True for examples that are learned late, (P,).
        chosen: True for examples that are upsampled, (P,): the late ones, unless a control group was asked for.
        times: Learning times in steps, (P,); infinite if never learned, 0 if there was nothing to learn.
        ratio: R. It is a lower bound if the late median is never reached, and NaN if it cannot be measured.
        factor: κ.
        why: How κ was found, in words.
        parted: What separates the late examples from the others, in words.
        floor: The loss that remains whatever is learned, one number or (P,).
        remaining: The share of the first loss at which an example counts as learned.
        group: The upsampled group: "late", "random" or "early".
        sources: Sources within which the late were found, largest first; empty if among all examples.
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
    sources: tuple[Source, ...] = ()

    def copies(self, *, seed: int = 0) -> np.ndarray:
        """Return the count of each example in the upsampled set, (P,); `seed` draws which get the extra copies."""
        return example_copies(self.chosen, self.factor, seed=seed)

    def indices(self, *, seed: int = 0) -> np.ndarray:
        """Return the upsampled set as row numbers of the original, in order, for `dataset.select(indices)`."""
        copies = self.copies(seed=seed)
        return np.repeat(np.arange(len(copies)), copies)


def upsample(
    record: LossRecord,
    *,
    late: str = "quantile",
    first: int | None = None,
    by: Any = None,
    small_sources: str | None = None,
    remaining: float = 0.5,
    floor: str | np.ndarray = "zero",
    rule: str = "ratio",
    target: float | None = None,
    other: LossRecord | None = None,
    tried_factor: float | None = None,
    factor: float | None = None,
    max_factor: float | None = None,
    optimizer: str | None = None,
    batch_size: int | None = None,
    noise: NoiseScale | None = None,
    group: str = "late",
    seed: int = 0,
) -> Upsampling:
    """Find the late examples of a record and the factor for them.

    An example is learned at the first step at which only the share `remaining` of its first loss (above its floor) is
    left, interpolated between checkpoints. `late` says which examples are late:

        quantile=q       later than the quantile q of learning times (default ½)
        threshold=s      more than the share s of the loss left at the last checkpoint (default ½)
        clusters         in the slower of two clusters of relative-loss trajectories
        ratio-clusters   in that of two clusters whose ratios of consecutive losses are higher

    Examples:
        >>> record = LossRecord([0, 100, 200], [[1.0, 1.0], [0.3, 0.9], [0.1, 0.4]])
        >>> found = upsample(record)
        >>> found.weights.round(2).tolist(), found.why
        ([1.0, 2.52], 'R / target = 2.52 / 1')

    Args:
        record: The record of losses, the first before training.
        late: How to find the late examples, as above.
        first: Cluster by the first checkpoints only, so many (default all).
        by: The source of each example, (P,), whole numbers or texts in the order of the record. Each source is
            clustered by itself.
        small_sources: With `by`, "late" (default) counts all examples of sources smaller than the average as late;
            "cluster" treats these like the others.
        remaining: The share of the first loss at which an example counts as learned, at least 0 and below 1.
        floor: The loss that remains whatever is learned: "zero", "last" (an example's own last loss), or losses (P,),
            such as those of a converged model. With "zero", examples that no model can fit count as late. With "last",
            examples whose loss did not fall count as having nothing to learn.
        rule: "ratio", "excess", "match" or "secant", as in the docstring of the module.
        target: The wanted ratio of learning times, at least 1 (default 1); above 1 for `excess`, which needs it.
        other: The other record of match and secant, of the same examples. Records with ids are matched by them.
        tried_factor: κ' of secant.
        factor: κ itself instead of a rule, at least 1.
        max_factor: An upper bound on the κ of a rule (default 5, chosen without theory).
        optimizer: "sgd" or "adamw", for the κ that brings R to the target by the law of that optimizer
            (`optimizer_rule`); κ is 1 where no factor lowers R. By default, and for "sgd" without `noise`, R / target.
        batch_size: The rows of a step, which "adamw" needs.
        noise: The measured signal and noise of the same groups (`load_noise_scale`). By default late and early examples
            share no feature.
        group: "late", or a control group of equal size: "random" or "early".
        seed: Seed of the random control group.

    Returns:
        The upsampling, in the order of the record (`record.for_ids` brings it to that of the data). If no example or
        every example is late, κ is 1.

    Raises:
        InputError: There is a single checkpoint, a number is out of range, options exclude each other, or the ratio
            cannot be measured (then give `factor`).
    """
    method, setting = parse_late(late)
    given: dict[str, Any] = {"target": target, "other": other, "tried_factor": tried_factor, "max_factor": max_factor}
    within: dict[str, Any] = {"first": first, "by": by, "small_sources": small_sources}
    check_settings(
        late=late, remaining=remaining, floor=floor, group=group, rule=rule, factor=factor, **within, **given
    )
    check_optimizer(optimizer, batch_size, noise, rule=rule, factor=factor)
    if noise is not None:
        check_noise_scale(noise)
    if len(record.steps) < 2:
        raise InputError("steps", f"{len(record.steps)} checkpoint", "a learning time needs at least two")
    levels = _floors(record, floor)
    times = _times(record, remaining, levels)
    late_ones, parted, sources = find_late(
        record, times, method, setting, levels, first=first, by=by, small_sources=small_sources or "late"
    )
    if not late_ones.any() or late_ones.all():
        none, why = np.zeros(len(times), bool), _no_groups(late_ones, times, method)
        return Upsampling(
            example_weights(none, 1.0), late_ones, none, times, 1.0, 1.0, why, parted, levels, remaining, group, sources
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
        wanted, largest = (
            1.0 if target is None else float(target),
            MAX_FACTOR if max_factor is None else float(max_factor),
        )
        if optimizer is None or (optimizer == "sgd" and noise is None):
            kappa, why = _rule(rule, ratio, achieved, wanted, tried_factor, bound)
        else:
            law: dict[str, Any] = {"optimizer": optimizer, "batch_size": batch_size, "noise": noise}
            medians = median_times(times, late_ones, float(record.steps[-1]))
            kappa, why = optimizer_factor(medians, late_ones, target=wanted, largest=largest, **law)
        if kappa > largest:
            kappa, why = largest, f"{why} → {kappa:.3g}, limited to {largest:g}"
        elif kappa < 1.0:
            kappa, why = 1.0, f"{why} → {kappa:.3g}: the late are learned soon enough already"
    chosen = _chosen(group, late_ones, times, seed)
    weights = example_weights(chosen, kappa)
    return Upsampling(weights, late_ones, chosen, times, ratio, kappa, why, parted, levels, remaining, group, sources)


def _floors(record: LossRecord, floor: str | np.ndarray) -> Any:
    """Return the floor as one number or (P,)."""
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


def _rule(
    rule: str, ratio: float, achieved: float | None, target: float, tried_factor: float | None, bound: str
) -> tuple[float, str]:
    """Return κ, and in words how it was found."""
    if rule == "ratio":
        return float(ratio_factor(ratio, target=target)), f"R / target = {ratio:.3g} / {target:g}"
    if rule == "excess":
        kappa = float(excess_factor(ratio, target=target)) if ratio > 1 else 1.0
        return kappa, f"(R − 1) / (target − 1) = {ratio - 1:.3g} / {target - 1:.3g}"
    assert achieved is not None
    if rule == "match":
        return float(ratio_factor(ratio, target=achieved)), f"R / R' = {ratio:.3g} / {bound}{achieved:.3g}"
    assert tried_factor is not None
    try:
        kappa = float(secant_factor(tried_factor, ratio=ratio, achieved=achieved, target=target))
    except InputError as error:
        if error.field == "target":
            raise
        shown = f"R' = {achieved:.3g} under a factor {tried_factor:g}"
        raise InputError("other", shown, f"it should lie well below R = {ratio:.3g}; try a larger factor") from None
    moved = f"which took R from {ratio:.3g} to {bound}{achieved:.3g}"
    return kappa, f"secant step from {tried_factor:g}, {moved}, towards {target:g}"


def _same_examples(record: LossRecord, other: LossRecord) -> LossRecord:
    """Return the other record in the order of this one."""
    if (record.ids is None) != (other.ids is None) or other.num_examples != record.num_examples:
        remedy = f"give a record of the same {record.num_examples} examples, with ids if these have some"
        raise InputError("other", f"{other.num_examples} examples", remedy)
    return other if record.ids is None else other.for_ids(record.ids)


def _chosen(group: str, late: np.ndarray, times: np.ndarray, seed: int) -> np.ndarray:
    if group == "random":
        return random_group(late, seed=seed)
    return early_group(times, late) if group == "early" else late


def _no_groups(late: np.ndarray, times: np.ndarray, method: str) -> str:
    if late.any():
        return "all examples count as late: there is no group to upsample"
    if method == "ratio-clusters":
        return "all losses fall in the same ratios: there is no late group"
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
