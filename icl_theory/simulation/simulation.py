"""A finished simulation: its run, its measurements and its prediction."""

from __future__ import annotations

from typing import NamedTuple

from icl_theory.analysis.plateaus import Plateau
from icl_theory.analysis.simplicity_bias import SimplicityBias
from icl_theory.analysis.trajectory import Comparison, Trajectory
from icl_theory.simulation.config import RunConfig
from icl_theory.tasks.features import Features
from icl_theory.training.run import Run


class Simulation(NamedTuple):
    """A run, what was measured on it and what theory says of it.

    Attributes:
        config: the settings.
        run: steps, losses, effective matrices and final parameters.
        features: None where the task mixture has no joint eigenbasis (a fixed task vector, say).
        trajectory: loss and strengths, simplest feature first; strengths NaN without features.
        bias: learning times and the other measures of simplicity bias; None without features.
        plateaus: flat stretches of the loss curve.
        prediction: the theory's trajectory; None where there is no theory of the whole curve.
        comparison: largest deviations of the prediction; None without one.
        start_norm: ‖θ(0)‖, the length of all parameters at the start.
    """

    config: RunConfig
    run: Run
    features: Features | None
    trajectory: Trajectory
    bias: SimplicityBias | None
    plateaus: list[Plateau]
    prediction: Trajectory | None
    comparison: Comparison | None
    start_norm: float
