"""Trajectories, predicted or measured, and their comparison."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from icl_theory.errors import InputError, check_number


class Trajectory(NamedTuple):
    """Loss and feature strengths over time (learning rate × step). NaN marks times without a value.

    Attributes:
        time: Ascending times, (T,).
        loss: Mean square error without ½, (T,).
        strength: Strengths `w_d`, simplest feature first, (T, D).
    """

    time: np.ndarray
    loss: np.ndarray
    strength: np.ndarray


@runtime_checkable
class Dynamics(Protocol):
    """Any theory of training: closed form, ODE or reduced map."""

    def predict(self, time: np.ndarray) -> Trajectory:
        """Predict the trajectory at these times."""
        ...


class Comparison(NamedTuple):
    """Largest deviations of a prediction from a measurement.

    Attributes:
        loss: `max_t |L_pred − L_meas| / max_t |L_meas|`.
        strength: `max_{t,d} |w_pred − w_meas| / max_{t,d} |w_meas|`.
        compared: Number of times at which both have values.
    """

    loss: float
    strength: float
    compared: int


def compare(prediction: Dynamics | Trajectory, measurement: Trajectory) -> Comparison:
    """Compare a prediction with a measurement at the measurement's times.

    If the prediction has no value at some time where the measurement has one, the deviations are infinite.

    Raises:
        InputError: The prediction is at other times, or there is no time at which both have values.
    """
    predicted = prediction if isinstance(prediction, Trajectory) else prediction.predict(measurement.time)
    if not np.array_equal(predicted.time, measurement.time):
        raise InputError("prediction.time", predicted.time, "predict at the measurement's times")
    both = np.isfinite(predicted.loss) & np.isfinite(measurement.loss)
    if not both.any():
        raise InputError("prediction", "no finite values", "prediction and measurement share no time")
    if not both[np.isfinite(measurement.loss)].all():
        return Comparison(loss=np.inf, strength=np.inf, compared=int(both.sum()))
    return Comparison(
        loss=_deviation(predicted.loss[both], measurement.loss[both]),
        strength=_deviation(predicted.strength[both], measurement.strength[both]),
        compared=int(both.sum()),
    )


def relative_error(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return `measured / predicted − 1`: 0 where both are infinite, infinity where one is, NaN where one is missing."""
    measured, predicted = np.asarray(measured, float), np.asarray(predicted, float)
    never, missing = np.isposinf(measured), np.isnan(measured) | np.isnan(predicted)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(never & np.isposinf(predicted), 0.0, measured / predicted - 1.0)
    return np.where(np.isposinf(predicted) & ~never & ~missing, np.inf, error)


def _deviation(predicted: np.ndarray, measured: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.max(np.abs(predicted - measured)) / np.max(np.abs(measured)))


def whole_steps(time: np.ndarray, learning_rate: float) -> np.ndarray:
    """Return the steps `time / η`.

    Raises:
        InputError: The learning rate is not positive, or a time is no multiple of it.
    """
    check_number("learning_rate", learning_rate, minimum=0.0, exclusive=True)
    steps = np.round(np.asarray(time) / learning_rate).astype(int)
    if not np.allclose(steps * learning_rate, time, rtol=1e-6):
        raise InputError("time", time, f"give multiples of the learning rate {learning_rate:g}")
    return steps
