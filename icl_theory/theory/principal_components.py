"""In-context regression on principal components, which attention performs on a plateau (theory notes, §4).

Component m is feature m. Features are numbered by drive, which for Γ = I is the order of the eigenvalues.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from icl_theory.errors import check_number
from icl_theory.tasks.features import Features
from icl_theory.tasks.prompts import Prompts


def plateau_predictions(prompts: Prompts, features: Features, num_learned: int) -> Float[Array, " P"]:
    """Return `Σ_{d≤m} w_d* β_d x_q,d`, (P,): what the fixed point with m features learned predicts.

    It is a regression on the first m components by their covariances with y, shrunk by w_d*. m may be 0.

    Raises:
        InputError: m is outside 0 … D.
    """
    check_number("num_learned", num_learned, minimum=0, maximum=len(features.drive), integer=True)
    chosen = jnp.asarray(features.directions[:, :num_learned])
    strength = jnp.asarray(features.optimum[:num_learned])
    return jnp.einsum("pm,m,pm->p", prompts.beta @ chosen, strength, prompts.x_query @ chosen)


def component_regression(prompts: Prompts, features: Features, num_components: int) -> Float[Array, " P"]:
    """Predict at the query by least squares on the first m components of the context, (P,), without shrinkage; N > m.

    Raises:
        InputError: m is outside 1 … D, or a context has m tokens or fewer.
    """
    check_number("num_components", num_components, minimum=1, maximum=len(features.drive), integer=True)
    check_number("prompts.num_context", int(jnp.min(prompts.num_context)), minimum=num_components + 1, integer=True)
    chosen = jnp.asarray(features.directions[:, :num_components])
    scores = prompts.x @ chosen
    gram = jnp.einsum("pnm,pnk->pmk", scores, scores)
    cross = jnp.einsum("pnm,pn->pm", scores, prompts.y)
    weights = jnp.linalg.solve(gram, cross[..., None])[..., 0]
    return jnp.sum(weights * (prompts.x_query @ chosen), axis=-1)


def regression_gap(num_components: int, num_context: int) -> float:
    """Return `(m + 1)/N`, the relative mean square gap between the two predictions at leading order in 1/N (Γ = I).

    They are `plateau_predictions` and `component_regression`; the gap is relative to the mean square of either.
    Attention uses the true covariance Λ of the components. Least squares estimates it from the context, with the
    error `Σ_{d≤m} λ_d Var((Λ⁻¹ δS w)_d) = Σ_{d≤m} (λ_d + Σ_{j≤m} λ_j)/N = (m + 1) Σ_{j≤m} λ_j/N`.

    Reference: theory notes, §4 (derived there).
    """
    return (num_components + 1) / num_context
