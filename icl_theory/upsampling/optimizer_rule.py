"""The factor for an optimizer and a batch size, by the law of `noise_scale` (theory notes, §17).

Gradient descent moves by a group's share, so that κ divides R. Adam divides a gradient by its size, so that κ acts
through the noise of batches and through what late and early share: it may take much more than R / target, or no factor
may do. Learning times have to come from a run with the same optimizer and batch size. There is no law for Muon in
batches outside aligned heads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from icl_theory.errors import InputError, check_choice, check_number
from icl_theory.upsampling.noise_scale import NoiseScale, interval, sparse

NAMES = {"sgd": "SGD", "adamw": "AdamW", "muon": "Muon"}
OPTIMIZERS = tuple(NAMES)
FLAT = 0.1  # share by which the largest factor has to lower R, or the rule says that none changes it
FACTORS = 400  # factors that are tried, even in their logarithm
INSTEAD = "take more steps on the late, or fresh examples of their kind"
UNMEASURED = ". In a language model they share weights and a factor may do more: see finetune --upsample --noise-scale"


def check_optimizer(
    optimizer: str | None, batch_size: int | None, noise: Any, *, rule: str = "ratio", factor: float | None = None
) -> None:
    """Raise `InputError` for an optimizer without a law, and for settings that would have no effect."""
    if optimizer is None:
        if batch_size is not None:
            raise InputError("batch_size", batch_size, "it belongs to an optimizer; give that too")
        if noise is not None:
            raise InputError("noise scale", "given", "it belongs to an optimizer; give that too")
        return
    check_choice("optimizer", optimizer, OPTIMIZERS)
    if factor is not None or rule != "ratio":
        what = "the factor is given" if factor is not None else f"the rule {rule} measures what it does"
        raise InputError("optimizer", optimizer, f"{what}; leave one of them out")
    if optimizer == "muon":
        remedy = "no law says what a factor does; give a factor instead, train, and correct it by the rule secant"
        raise InputError("optimizer", optimizer, remedy)
    if optimizer == "sgd":
        if batch_size is not None:
            raise InputError("batch_size", batch_size, "the law of sgd is the same at any; leave it out")
    elif batch_size is None:
        raise InputError("batch_size", "not given", f"the law of {optimizer} depends on it; give the rows of a step")
    else:
        check_number("batch_size", batch_size, minimum=1, integer=True)


def median_times(times: Float[np.ndarray, " P"], late: Bool[np.ndarray, " P"], last: float) -> tuple[float, float]:
    """Return the median learning times of the early and the late, with `last` for those never learned.

    Examples that had nothing to learn do not count.
    """
    learns = times > 0
    early, slow = (float(np.median(np.minimum(times[group & learns], last))) for group in (~late, late))
    return early, slow


def optimizer_factor(
    times: tuple[float, float],
    late: Bool[np.ndarray, " P"],
    *,
    target: float,
    largest: float,
    optimizer: str,
    batch_size: int | None,
    noise: NoiseScale | None,
) -> tuple[float, str]:
    """Return the κ that brings R to its target by the law, and in words how it was found.

    It is 1 where no factor up to the largest lowers R by a tenth, or where noise hides whether one does.

    Args:
        times: Median learning times of the early and the late, in a run with this optimizer and batch size.
        late: True for late examples.
        target: R that is wanted.
        largest: Largest κ.
        optimizer: "sgd" or "adamw".
        batch_size: Rows of a step; None for sgd.
        noise: Measured signal and noise; None for groups that share no feature.

    Raises:
        InputError: The batch is larger than the set, or the noise was measured for other groups.
    """
    count, share = len(late), float(late.mean())
    if batch_size is not None and batch_size > count:
        raise InputError("batch_size", batch_size, f"the set has {count} examples; give at most as many")
    if noise is not None and abs(noise.share - share) > 0.01:
        remedy = f"here it is {share:.3g}; find the late as in the run that was measured"
        raise InputError("noise", f"late share {noise.share:.3g}", remedy)
    law = sparse(share, count) if noise is None else noise
    factors = np.geomspace(1.0, largest, FACTORS)
    batch = 1 if batch_size is None else batch_size
    found = np.array([law.ratio(times, factor, batch, optimizer=optimizer)[0] for factor in factors])
    ratio, least = float(found[0]), float(found.min())
    measured = noise is not None and len(noise.signal[0]) > 1

    def shown(factor: float, reached: float) -> tuple[str, float]:
        """Return R under a factor, in words with its interval if noise was measured, and its lower end."""
        if not measured:
            return f"R {ratio:.3g} → {reached:.3g}", reached
        _, low, high = interval(law.ratio(times, factor, batch, optimizer=optimizer))
        return f"R {ratio:.3g} → {reached:.3g} ({low:.3g}–{high:.3g})", low

    name = NAMES[optimizer] + ("" if batch_size is None else f" in batches of {batch_size}")
    said = f"{name}, {'if late and early share no feature' if noise is None else 'by the measured noise'}"
    if ratio <= target:
        return 1.0, f"{said}: R = {ratio:.3g} is low enough already"
    if least > (1.0 - FLAT) * ratio and least > target:
        change, low = shown(float(factors[found.argmin()]), least)
        if low <= (1.0 - FLAT) * ratio:
            return 1.0, f"{said}: not known whether a factor lowers R ({change}); measure with more examples"
        remedy = INSTEAD + (UNMEASURED if noise is None else "")
        return 1.0, f"{said}: no factor up to {largest:g} lowers R by a tenth ({change}); {remedy}"
    place = int(np.argmax(found <= target)) if least <= target else int(found.argmin())
    if least > target:
        reached, factor = least, float(factors[place])
    else:
        lower, upper = np.log(factors[place - 1 : place + 1])
        above, below = found[place - 1 : place + 1]
        reached, factor = target, float(np.exp(lower + (upper - lower) * (above - target) / (above - below)))
    more = "" if least <= target else f", the least up to factor {largest:g}"
    return factor, f"{said}: {shown(factor, reached)[0]}{more}"
