"""Experiments: every claim of the verification table makes one, and figures may need more; data and nothing else.

`python -m experiments` runs all of them, draws the figures and writes the report.
"""

from __future__ import annotations

from experiments import phase_diagram
from experiments.experiment import Experiment
from icl_theory.verification import CLAIMS

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment for experiment in (*map(Experiment.of_claim, CLAIMS), phase_diagram.EXPERIMENT)
}
