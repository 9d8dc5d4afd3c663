"""Noise of late and early gradients along a plain run, and the change of R under κ that the law predicts from it.

The law is that of adaptive optimizers (theory notes, §17). Its exponent is `ln(R / R_κ) / ln κ`: 1 under gradient
descent with a group for each feature, 0 where κ changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import icl_theory as icl
from icl_theory.llm.data.batches import Tokenized
from icl_theory.llm.evaluation.study import paired
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.training.noise_scale import measure_noise
from icl_theory.upsampling.noise_scale import LAWS, NoiseScale, joined
from icl_theory.upsampling.optimizer_rule import median_times

PLACES = (1 / 16, 1 / 4, 1.0)  # where along a run noise is measured, beside its start
TOGETHER = 32


def noise_steps(records: Sequence[int]) -> list[int]:
    """Return the records nearest to `PLACES` of a run."""
    distances = np.abs(np.subtract.outer(np.multiply(PLACES, records[-1]), records))
    return sorted({records[place] for place in distances.argmin(axis=1)})


class Measured:
    """Noise along the run of one seed.

    Args:
        examples: training examples.
        late: True for the late ones.
        seed: seed of the draw of batches.
    """

    def __init__(self, examples: Sequence[Tokenized], late: np.ndarray, seed: int):
        self.examples, self.late, self.seed = examples, late, seed
        self.parts: list[NoiseScale] = []

    def add(self, step: int, model: Decoder) -> None:
        """Measure at a step's weights."""
        found = measure_noise(model, self.examples, self.late, step=step, together=TOGETHER, seed=self.seed)
        self.parts.append(found)

    def summary(self, chosen: icl.Upsampling, batch_size: int, optimizer: str, last: int) -> dict[str, Any]:
        """Return steps, critical batch sizes of early and late there, and the exponent that the law predicts.

        Args:
            chosen: the late, with their factor and learning times.
            batch_size: examples of a step.
            optimizer: "adamw" or "muon", for which there is no law.
            last: last step of the run that found the late.
        """
        noise = joined(self.parts)
        return {
            "steps": noise.steps.astype(int).tolist(),
            "critical_batch": [[_finite(value) for value in row] for row in noise.critical_batch()[:, 0]],
            "exponent": self._exponent(noise, chosen, batch_size, optimizer, last),
        }

    def _exponent(
        self, noise: NoiseScale, chosen: icl.Upsampling, batch_size: int, optimizer: str, last: int
    ) -> float | None:
        if optimizer not in LAWS or chosen.factor <= 1.0:
            return None
        times = median_times(chosen.times, chosen.late, float(last))
        try:
            before, after = (
                noise.ratio(times, factor, batch_size, optimizer=optimizer)[0] for factor in (1.0, chosen.factor)
            )
        except icl.InputError:  # a pace is not seen beyond noise
            return None
        return _finite(np.log(before / after) / np.log(chosen.factor))


def law_lines(arms: dict[str, dict[str, Any]]) -> list[str]:
    """Return what the law predicts of the late arm and what was measured: R over that of random copies."""
    if not {"late", "random"} <= set(arms) or not any(arms["plain"].get("exponent", [])):
        return ["law of adaptive optimizers: it needs AdamW, the noise along plain, and the arms late and random"]
    ratios, factors = ({seed: value for seed, value in _by_seed(arms["late"], name)} for name in ("R", "factors"))
    random, predicted = dict(_by_seed(arms["random"], "R")), dict(_by_seed(arms["plain"], "exponent"))
    known = [seed for seed in predicted if seed in ratios and seed in random and factors[seed] > 1.0]
    if len(known) < 2:
        return [f"law of adaptive optimizers: prediction and measurement are known for {len(known)} seeds only"]
    measured = [np.log(random[seed] / ratios[seed]) / np.log(factors[seed]) for seed in known]
    (law, spread), (found, half) = (paired(np.array(one)) for one in ([predicted[seed] for seed in known], measured))
    word = "holds" if abs(law - found) <= half else "does not hold"
    numbers = f"law {law:.2f} ± {spread:.2f}, measured {found:.2f} ± {half:.2f}"
    return [f"exponent of R in 1/κ ({len(known)} seeds): {numbers}: {word}"]


def _by_seed(arm: dict[str, Any], name: str) -> list[tuple[int, float]]:
    return [(seed, value) for seed, value in zip(arm["seeds"], arm[name], strict=True) if value is not None]


def _finite(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
