"""The noise scale of late and early examples in the first run of upsampling, and what it predicts of the factor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh

from icl_theory.errors import InputError
from icl_theory.llm.data.examples import Examples
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.training.config import FinetuneConfig
from icl_theory.llm.training.noise_scale import measure_noise
from icl_theory.llm.training.train import finetune
from icl_theory.upsampling.loss_record import LossRecord, step_text
from icl_theory.upsampling.noise_scale import LAWS, NoiseScale, interval, joined
from icl_theory.upsampling.optimizer_rule import median_times
from icl_theory.upsampling.rule import Upsampling
from icl_theory.upsampling.summary import line

FRACTIONS = (16, 4)  # checkpoints between the first and the last, as divisors of the number of steps
FACTORS = (1.5, 2.0, 3.0, 5.0)


def noise_of_run(
    model: Decoder,
    ended: Decoder,
    examples: Examples,
    config: FinetuneConfig,
    late: np.ndarray,
    *,
    mesh: Mesh | None = None,
    report: Callable[..., None] = lambda *_: None,
) -> NoiseScale:
    """Measure the noise scale at the start of a run, at a sixteenth and a quarter of its steps, and at its end.

    The run is repeated up to the checkpoints within it: at a constant learning rate, a shorter run is the same run.

    Args:
        model: decoder before the run.
        ended: decoder at its end.
        examples: examples of the run, each once.
        config: settings of the run, with a constant learning rate.
        late: True for late examples.
        mesh: devices; None for one.
        report: progress callback.
    """
    first = max(config.warmup, 1)
    between = {max(config.num_steps // part, first) for part in FRACTIONS} - {config.num_steps}
    steps, found = [0, *sorted(between), config.num_steps], []
    for place, step in enumerate(steps):
        report("measuring noise", place, len(steps))
        decoder = {0: model, config.num_steps: ended}.get(step)
        if decoder is None:
            some = dataclasses.replace(config, num_steps=step)
            decoder = finetune(model, examples.tokens, some, mesh=mesh).model
        together = config.batch_size // config.accumulate
        one = measure_noise(decoder, examples.tokens, late, step=step, together=together, seed=config.seed, mesh=mesh)
        found.append(one)
    report("measuring noise", len(steps), len(steps))
    return joined(found)


def noise_lines(noise: NoiseScale, record: LossRecord, found: Upsampling, config: FinetuneConfig) -> list[str]:
    """Return the critical batch sizes, and the predicted effect of some factors, as lines of text."""
    critical = noise.critical_batch()
    lines = [("noise scale", "critical batch sizes, with 95 % intervals")]
    for step, values in zip(noise.steps, critical, strict=True):
        early, late = (_shown(values[:, group], low=0.0) for group in (0, 1))
        lines.append(("", f"step {step_text(step)}: early {early}, late {late}"))
    if config.optimizer not in LAWS:
        lines.append(("predicted", f"nothing: for {config.optimizer} in batches of a decoder there is no law"))
        return [line(name, text) for name, text in lines]
    lines.append(("predicted", f"by {config.optimizer}'s law at batches of {config.batch_size}, without momentum"))
    for factor in sorted({*FACTORS, found.factor} - {1.0}):
        lines.append(("", f"factor {factor:.3g}: {_effect(noise, record, found, factor, config)}"))
    return [line(name, text) for name, text in lines]


def _effect(noise: NoiseScale, record: LossRecord, found: Upsampling, factor: float, config: FinetuneConfig) -> str:
    try:
        times = median_times(found.times, found.late, float(record.steps[-1]))
        before, after = (noise.ratio(times, one, config.batch_size) for one in (1.0, factor))
        gains = noise.gains(times, factor, config.batch_size)
    except InputError as error:
        return f"not seen ({error})"
    early, late = (_shown(gain) for gain in gains.T)
    return f"R × {_shown(after / before)}; pace of the late × {late}, of the early × {early}"


def _shown(values: Any, low: float = -np.inf) -> str:
    value, least, most = interval(values)
    return f"{value:.3g} ({max(least, low):.3g}–{most:.3g})" if np.isfinite(most) else f"{value:.3g} (unknown)"
