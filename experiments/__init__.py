"""Experiments: one module per claim, each producing data and nothing else.

`python -m experiments` runs all of them, draws the figures and writes the report.
"""

from __future__ import annotations

from experiments import (
    closed_forms,
    dynamics,
    fixed_points,
    generalisation,
    phase_diagram,
    random_initialisation,
    sam_by_data,
    sharpness,
    upsampling,
)
from experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        closed_forms,
        fixed_points,
        dynamics,
        random_initialisation,
        sharpness,
        phase_diagram,
        upsampling,
        sam_by_data,
        generalisation,
    )
}
