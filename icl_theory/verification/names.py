"""Names and titles of the claims in the order of the table, available without importing the claims."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

NAMES = {
    "closed_forms": "Closed forms against Monte Carlo",
    "fixed_points": "Fixed points and plateau losses",
    "dynamics": "Dynamics against reduced systems and closed forms",
    "random_initialisation": "Random initialisation, gradient descent",
    "random_starts": "Laws of random starts",
    "sam_simplicity_bias": "Simplicity bias of sharpness-aware minimization against gradient descent",
    "upsampling": "Upsampling what is learned late",
    "sam_by_data": "SAM by data",
    "generalisation": "Generalisation",
    "low_rank": "Keys and queries of rank R",
    "context_lengths": "Context lengths",
    "in_weight_learning": "In-context and in-weight learning",
    "softmax": "Softmax attention",
    "weights": "Weights and what the flow conserves",
    "many_features": "Thirty-two features",
    "random_starts_beyond": "Random starts beyond rank one and linear scores",
    "principal_components": "Regression on principal components",
    "adaptive_optimizers": "Adaptive optimizers and batch size",
    "phase_diagram": "Phase diagram of the reduced flow",  # only for a figure; it has no statements
}

GROUPS = tuple(name for name in NAMES if name != "phase_diagram")  # claims with statements


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a suggestion of known names for a wrong name, as text."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"give one of {', '.join(known)}"
