"""Figures: one module each, reading saved data only.

`python -m figures NAME` draws one again from `results/`.
"""

from __future__ import annotations

from figures import (
    adaptive_optimizers,
    batch_sizes,
    context_lengths,
    feature_strengths,
    generalisation,
    generalisation_map,
    in_weight_learning,
    language_models,
    language_models_details,
    loss_plateaus,
    low_rank,
    many_features,
    merged_model,
    overview,
    phase_diagram,
    principal_components,
    random_starts,
    sam_by_data,
    schematic,
    simplicity_bias,
    softmax,
    upsampling,
    weights,
)
from figures.figure import FigureSpec

FIGURES: dict[str, FigureSpec] = {
    figure.name: figure
    for figure in (
        schematic.FIGURE,
        overview.FIGURE,
        loss_plateaus.FIGURE,
        feature_strengths.FIGURE,
        simplicity_bias.FIGURE,
        random_starts.FIGURE,
        merged_model.FIGURE,
        phase_diagram.FIGURE,
        upsampling.FIGURE,
        sam_by_data.FIGURE,
        generalisation.FIGURE,
        generalisation_map.FIGURE,
        low_rank.FIGURE,
        principal_components.FIGURE,
        context_lengths.FIGURE,
        in_weight_learning.FIGURE,
        softmax.FIGURE,
        weights.FIGURE,
        many_features.FIGURE,
        adaptive_optimizers.FIGURE,
        language_models.FIGURE,
        language_models_details.FIGURE,
        batch_sizes.FIGURE,
    )
}
