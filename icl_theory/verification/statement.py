"""One line of the verification table: a prediction, a measurement, and how far apart they may be."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Statement:
    """A checked statement. It holds when `error <= tolerance`, with the tolerance written before the run.

    Attributes:
        name: group and name, such as `dynamics/learned_at_the_hitting_time`.
        text: the sentence.
        source: where it comes from.
        predictor: dotted name of the object in this package that predicts.
        relation: "=", "≤" or "≥": how the measurement should stand to the prediction.
        predicted, measured: numbers; for a statement about many numbers, the pair that deviates most.
        error: deviation in `unit`.
        unit: "relative", "absolute", "standard errors", "interval half-widths" or "excess".
        tolerance: largest allowed error.
        interval: confidence interval of the measurement, where it has one.
        count: how many numbers were compared.
        figure: the figure that shows it, or "".
        after_measurement: why the bound was set after a first measurement, or "" for one that stood before.
    """

    name: str
    text: str
    source: str
    predictor: str
    relation: str
    predicted: float
    measured: float
    error: float
    unit: str
    tolerance: float
    interval: tuple[float, float] | None = None
    count: int = 1
    figure: str = ""
    after_measurement: str = ""

    @property
    def holds(self) -> bool:
        """True where the error is within the tolerance; a NaN never is."""
        return bool(self.error <= self.tolerance)
