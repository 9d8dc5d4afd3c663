"""Signal and noise of the gradients of late and early examples, and what upsampling does by them (theory notes, §17).

A group g of examples has a mean gradient m_g, its signal, and the variance `V_g = E|g_i − m_g|²` of an example's
gradient, its noise. Its critical batch size is `V_g/|m_g|²`. Batches of b hold the late with the share
`π' = κπ/(1 − π + κπ)`, and the early with the rest. Gradients of their examples have the mean `S = Σ_g π'_g m_g` and
the variance `V = Σ_g π'_g (V_g + |m_g|²) − |S|²`, and the loss of a group h falls at the pace

    SGD    m_h · S
    Adam   Σ_B √n_B (m_h · S)_B / √(|S|² + V/b)_B

in units of the learning rate. The sum is over blocks of weights; the n_B weights of a block share one second moment.
Momentum and what a step does to the second moment are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from icl_theory.errors import InputError, as_floats, check_choice, check_finite, check_number, check_shape
from icl_theory.results import UNREADABLE, load_arrays, save_arrays, writing

LAWS = ("sgd", "adamw")  # optimizers with a law
EARLY, LATE = 0, 1
FIELDS = ("steps", "blocks", "sizes", "signal", "variance", "counts")


class NoiseScale(NamedTuple):
    """Signal and noise of two groups, early (0) and late (1), at C checkpoints, in B blocks of weights.

    Axis R holds the estimate from all batches, then those without one of the batches each, for intervals.

    Attributes:
        steps: Steps of the checkpoints, (C,), ascending.
        blocks: Names of the blocks, (B,).
        sizes: Numbers of weights in the blocks, (B,).
        signal: `m_g · m_h` of each pair of groups, (C, R, B, 2, 2).
        variance: V_g, (C, R, B, 2).
        counts: Numbers of early and late examples, (2,).
    """

    steps: np.ndarray
    blocks: np.ndarray
    sizes: np.ndarray
    signal: np.ndarray
    variance: np.ndarray
    counts: np.ndarray

    @property
    def share(self) -> float:
        """Share π of the late examples."""
        return float(self.counts[LATE] / self.counts.sum())

    def critical_batch(self, *, by_block: bool = False) -> np.ndarray:
        """Return `V_g/|m_g|²` over all weights, (C, R, 2), or of each block, (C, R, B, 2); infinite without signal."""
        signal = np.diagonal(self.signal, axis1=-2, axis2=-1)
        variance = self.variance
        if not by_block:
            signal, variance = signal.sum(2), variance.sum(2)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(signal > 0, variance / signal, np.inf)

    def paces(self, factor: float, batch_size: float, *, optimizer: str = "adamw") -> Float[np.ndarray, "C R 2"]:
        """Return how fast the losses of both groups fall when the late are upsampled by κ.

        Args:
            factor: κ, which is at least 1.
            batch_size: b.
            optimizer: "adamw" or "sgd".

        Raises:
            InputError: A number is out of range, or the optimizer has no law.
        """
        check_choice("optimizer", optimizer, LAWS)
        check_number("factor", factor, minimum=1.0)
        check_number("batch_size", batch_size, minimum=1.0)
        late = factor * self.share / (1.0 - self.share + factor * self.share)
        shares = np.array([1.0 - late, late])
        moved = np.einsum("g,crbgh->crbh", shares, self.signal)  # m_h · S
        if optimizer == "sgd":
            return moved.sum(2)
        square = np.maximum(moved @ shares, 0.0)
        second = self.variance + np.diagonal(self.signal, axis1=-2, axis2=-1)
        noise = np.maximum(second @ shares - square, 0.0)
        size = np.sqrt(square + noise / batch_size)[..., None]
        scaled = np.divide(moved, size, out=np.zeros_like(moved), where=size > 0)
        return np.einsum("b,crbh->crh", np.sqrt(self.sizes), scaled)

    def gains(
        self, times: tuple[float, float], factor: float, batch_size: float, *, optimizer: str = "adamw"
    ) -> Float[np.ndarray, "R 2"]:
        """Predict by how much upsampling by κ divides the learning times of the early and the late.

        That is the factor on the mean pace of a group from the first checkpoint to its learning time. Paces are those
        at the states of the run that was measured, linear in time between its checkpoints.

        Args:
            times: Median learning times of the early and the late in that run.
            factor: κ.
            batch_size: b.
            optimizer: "adamw" or "sgd".

        Raises:
            InputError: As `paces`; or the loss of a group does not fall beyond the noise of the estimate.
        """
        before, after = (self.paces(one, batch_size, optimizer=optimizer) for one in (1.0, factor))
        found = []
        for group, name in ((EARLY, "early"), (LATE, "late")):
            mean_before, mean_after = (self._mean(one[..., group], times[group]) for one in (before, after))
            if not (np.all(mean_before > 0) and np.all(mean_after > 0)):
                remedy = "its pace is not seen beyond noise; measure with more examples"
                raise InputError("noise scale", f"{name} examples", remedy)
            found.append(mean_after / mean_before)
        return np.stack(found, -1)

    def ratio(
        self, times: tuple[float, float], factor: float, batch_size: float, *, optimizer: str = "adamw"
    ) -> Float[np.ndarray, " R"]:
        """Predict the ratio R of learning times when the late are upsampled by κ; arguments and errors as `gains`."""
        early, late = self.gains(times, factor, batch_size, optimizer=optimizer).T
        return np.asarray(times[LATE] / times[EARLY] * early / late)

    def _mean(self, paces: Float[np.ndarray, "C R"], until: float) -> Float[np.ndarray, " R"]:
        if len(self.steps) == 1 or until <= self.steps[0]:
            return paces[0]
        time = np.linspace(self.steps[0], until, 1001)
        return np.array([np.interp(time, self.steps, one).mean() for one in paces.T])


def estimate(
    products: Float[np.ndarray, "2 K 2 K"], rows: int, counts: Sequence[int]
) -> tuple[Float[np.ndarray, "R 2 2"], Float[np.ndarray, "R 2"]]:
    """Estimate the signal and noise of two groups from the inner products of batch gradients.

    Without bias for the examples of the set, from batches without a common example: `m_g · m_h` is the mean product of
    different batches. Within a group this misses `V_g/N_g`, as batches that share no example are anticorrelated; so it
    is added. V_g is `rows` times the variance of a batch.

    Args:
        products: Inner products of the mean gradients of K batches of the early and K of the late.
        rows: Number of examples in a batch.
        counts: Numbers N_g of examples in the two groups.

    Returns:
        The signal and the variance, each from all K batches and then without one of each group.

    Reference: derived here.
    """
    count = products.shape[1]
    signals, variances = [], []
    for left_out in range(-1, count):
        kept = np.arange(count) != left_out
        some, size = products[:, kept][..., kept], int(kept.sum())
        signal, variance = np.empty((2, 2)), np.empty(2)
        for group, of_group in enumerate(counts):
            within = some[group, :, group]
            whole, same = within.sum(), np.trace(within)
            variance[group] = max(rows * (same - whole / size) / (size - 1), 0.0)  # rounding may leave less
            signal[group, group] = (whole - same) / (size * (size - 1)) + variance[group] / of_group
        signal[0, 1] = signal[1, 0] = some[0, :, 1].mean()
        signals.append(signal)
        variances.append(variance)
    return np.array(signals), np.array(variances)


def interval(replicates: np.ndarray) -> tuple[float, float, float]:
    """Return an estimate with its 95 % interval, from itself and its values without one batch each (jackknife).

    Where noise is most of an estimate, the interval is wider than it need be, by about √2.
    """
    value, others = float(replicates[0]), replicates[1:]
    if not np.all(np.isfinite(replicates)):
        return value, -np.inf, np.inf
    error = float(np.sqrt((len(others) - 1) * np.var(others)))
    half = _quantile(len(others) - 1) * error
    return value, value - half, value + half


def _quantile(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def joined(parts: Sequence[NoiseScale]) -> NoiseScale:
    """Join measurements of one run at several checkpoints, in the order of their steps."""
    parts = sorted(parts, key=lambda part: part.steps[0])
    steps, signal, variance = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("steps", "signal", "variance")
    )
    return parts[0]._replace(steps=steps, signal=signal, variance=variance)


def sparse(share: float, count: int) -> NoiseScale:
    """Return the signal and noise of groups that share no feature, each with equal examples (theory notes, §17)."""
    signal = np.zeros((1, 1, 2, 2, 2))
    signal[0, 0, 0, 0, 0] = signal[0, 0, 1, 1, 1] = 1.0
    late = round(share * count)
    names, counts = np.array(["early", "late"]), np.array([count - late, late])
    return NoiseScale(np.zeros(1), names, np.ones(2), signal, np.zeros((1, 1, 2, 2)), counts)


def check_noise_scale(found: NoiseScale, source: str = "noise") -> None:
    """Check a measurement that came from outside.

    Args:
        found: The measurement.
        source: Its name in messages.

    Raises:
        InputError: Shapes of its arrays do not fit each other, an array holds anything but finite numbers, steps do
            not ascend, or sizes, counts or variances are out of range.
    """
    try:
        values = {name: as_floats(name, getattr(found, name)) for name in FIELDS if name != "blocks"}
        signal, blocks = values["signal"], np.size(found.blocks)
        each = (max(values["steps"].size, 1), max(signal.shape[1], 1) if signal.ndim == 5 else 1, blocks)
        check_shape("blocks", found.blocks, (max(blocks, 1),))
        for name, shape in (
            ("steps", each[:1]),
            ("sizes", (blocks,)),
            ("signal", (*each, 2, 2)),
            ("variance", (*each, 2)),
            ("counts", (2,)),
        ):
            check_shape(name, values[name], shape)
            check_finite(name, values[name])
        for name, wrong, wanted in (
            ("steps", np.diff(values["steps"]) <= 0, "ascending steps, each once"),
            ("sizes", values["sizes"] <= 0, "positive numbers of weights"),
            ("counts", values["counts"] <= 0, "positive numbers of examples"),
            ("variance", values["variance"] < 0, "variances that are not negative"),
        ):
            if wrong.any():
                raise InputError(name, values[name], f"give {wanted}")
    except InputError as error:
        remedy = f"{error.remedy}; measure again with `icl-theory finetune --upsample --noise-scale`"
        raise InputError(f"{source}: {error.field}", error.value, remedy) from None


def save_noise_scale(found: NoiseScale, path: Path) -> None:
    """Write a measurement as `.npz`.

    Raises:
        InputError: The path exists or cannot be written.
    """
    with writing(path) as partial:
        save_arrays(partial, found._asdict())


def load_noise_scale(path: Path) -> NoiseScale:
    """Read what `save_noise_scale` wrote.

    Raises:
        InputError: The file cannot be read, or holds something else (see `check_noise_scale`).
    """
    remedy = "give the noise.npz that `icl-theory finetune --noise-scale` wrote"
    try:
        arrays = load_arrays(path)
        found = NoiseScale(**{name: arrays[name] for name in FIELDS})
    except UNREADABLE as error:
        raise InputError("noise scale", str(path), f"it cannot be read ({type(error).__name__}); {remedy}") from None
    check_noise_scale(found, str(path))
    return found
