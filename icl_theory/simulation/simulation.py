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
    """A run with its measurements and its prediction.

    Attributes:
        config: The settings.
        run: Steps, losses, effective matrices and final parameters.
        features: The features; None if the task mixture has no joint eigenbasis (as with a fixed task vector).
        trajectory: Loss and strengths, simplest feature first; strengths are NaN without features.
        bias: Learning times and the other measures of simplicity bias; None without features.
        plateaus: The flat stretches of the loss curve.
        prediction: The theory's trajectory; None if no theory predicts the whole curve.
        predicted_bias: Learning times and the other measures of the prediction, at the same snapshots.
        comparison: The largest deviations from the prediction; None without one.
        start_norm: ‖θ(0)‖, the norm of all parameters at the start.
        never: Features that this run did not learn and for which theory has no head left, from 0, however long the run.
    """

    config: RunConfig
    run: Run
    features: Features | None
    trajectory: Trajectory
    bias: SimplicityBias | None
    plateaus: list[Plateau]
    prediction: Trajectory | None
    predicted_bias: SimplicityBias | None
    comparison: Comparison | None
    start_norm: float
    never: tuple[int, ...] = ()
