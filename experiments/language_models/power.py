"""`python -m experiments.language_models.power`: which gains a study of paired seeds can see.

Differences of two arms over seeds are tested by Student's t, two-sided. Their spreads come from the saved studies. The
gain that a study can see is the one for which the test has the wanted power.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.optimize import brentq
from scipy.stats import f, ncf

from icl_theory.cli.one_line import run
from icl_theory.llm.evaluation.study import load_study

MEASURED = Path(__file__).parent / "measured"
STUDIES = {
    "0.1 M from scratch": "arithmetic-cpu",
    "0.8 M from scratch": "arithmetic-h200",
    "SmolLM2-135M, sums": "checkpoint-sums-cpu",
    "SmolLM2-135M, words": "checkpoint-words-h200",
}
SEEDS = (5, 8, 16, 24)
LEVELS = (0.05, 0.05 / 6)  # of one test, and of the first of six by Holm's procedure
POWER = 0.8


def power(gain: float, spread: float, seeds: int, level: float = 0.05) -> float:
    """Return the probability that a two-sided t test at `level` finds a mean difference.

    Args:
        gain: true mean difference.
        spread: standard deviation of the differences over seeds.
        seeds: number of seeds.
        level: level of the test.
    """
    square = seeds * (gain / spread) ** 2
    return float(ncf.sf(f.ppf(1 - level, 1, seeds - 1), 1, seeds - 1, square))  # t² follows F


def visible(spread: float, seeds: int, level: float = 0.05, wanted: float = POWER) -> float:
    """Return the smallest gain that a study finds with the wanted power; the arguments are those of `power`."""
    return spread * float(brentq(lambda ratio: power(ratio, 1.0, seeds, level) - wanted, 1e-3, 10.0))


def spread_of(arms: dict[str, Any], optimizer: str, other: str) -> float:
    """Return the standard deviation over seeds of the accuracy of late × κ minus that of another arm."""
    late, against = (np.array(arms[f"{optimizer} {arm}"]["accuracy"]) for arm in ("late", other))
    return float((late - against).std(ddof=1))


def lines() -> list[str]:
    """Return a table: spread of the gain of late × κ, and the gains that some numbers of seeds can see."""
    head = "".join(f"{f'n={seeds}, {level:.2g}':>12}" for level in LEVELS for seeds in SEEDS)
    found = [f"{'study':20} {'optimizer':9} {'late minus':10} spread{head}"]
    for name, file in STUDIES.items():
        arms = load_study(MEASURED / f"{file}.json")["arms"]
        for optimizer in ("adamw", "muon"):
            for other in ("plain", "random"):
                spread = spread_of(arms, optimizer, other)
                gains = "".join(f"{visible(spread, seeds, level):12.3f}" for level in LEVELS for seeds in SEEDS)
                found.append(f"{name:20} {optimizer:9} {other:10} {spread:6.3f}{gains}")
    return found


@click.command()
def main() -> None:
    """Print which gains a study of paired seeds can see."""
    click.echo("\n".join(lines()))


if __name__ == "__main__":
    run(main, "power", cache=False)
