"""Figures: one module each, reading saved data only.

`python -m figures NAME` draws one again from `results/`.
"""

from __future__ import annotations

from figures import (
    feature_strengths,
    generalisation,
    generalisation_map,
    language_models,
    loss_plateaus,
    merged_model,
    phase_diagram,
    sam_by_data,
    simplicity_bias,
    upsampling,
)
from figures.figure import FigureSpec

FIGURES: dict[str, FigureSpec] = {
    figure.name: figure
    for figure in (
        loss_plateaus.FIGURE,
        feature_strengths.FIGURE,
        simplicity_bias.FIGURE,
        merged_model.FIGURE,
        phase_diagram.FIGURE,
        upsampling.FIGURE,
        sam_by_data.FIGURE,
        generalisation.FIGURE,
        generalisation_map.FIGURE,
        language_models.FIGURE,
        language_models.LARGER,
    )
}
