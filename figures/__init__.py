"""Figures: one module each, reading saved data only.

`python -m figures NAME` draws one again from `results/`.
"""

from __future__ import annotations

from figures import (
    feature_strengths,
    generalisation,
    generalisation_map,
    loss_plateaus,
    merged_model,
    phase_diagram,
    sam_by_data,
    simplicity_bias,
    upsampling,
)
from figures.figure import FigureSpec

FIGURES: dict[str, FigureSpec] = {
    module.FIGURE.name: module.FIGURE
    for module in (
        loss_plateaus,
        feature_strengths,
        simplicity_bias,
        merged_model,
        phase_diagram,
        upsampling,
        sam_by_data,
        generalisation,
        generalisation_map,
    )
}
