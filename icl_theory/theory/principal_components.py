"""In-context regression on principal components, what attention does on a plateau (theory notes, §4).

Component m is feature m, numbered by drive, which is the order of the eigenvalues where Γ = I.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from icl_theory.errors import check_number
from icl_theory.tasks.features import Features
from icl_theory.tasks.prompts import Prompts


def plateau_predictions(prompts: Prompts, features: Features, num_learned: int) -> Float[Array, " P"]:
    """`Σ_{d≤m} w_d* β_d x_q,d`: regression on the first m components by their covariances with y, shrunk by w_d*; (P,).

    What the fixed point with m features predicts. m may be 0.

    Raises:
        InputError: m outside 0 … D.
    """
    check_number("num_learned", num_learned, minimum=0, maximum=len(features.drive), integer=True)
    chosen = jnp.asarray(features.directions[:, :num_learned])
    strength = jnp.asarray(features.optimum[:num_learned])
    return jnp.einsum("pm,m,pm->p", prompts.beta @ chosen, strength, prompts.x_query @ chosen)


def component_regression(prompts: Prompts, features: Features, num_components: int) -> Float[Array, " P"]:
    """Least squares of y on the first m components of the context, read at the query; (P,). No shrinkage; N > m.

    Raises:
        InputError: m outside 1 … D, or contexts of m tokens or fewer.
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
    """`(m + 1)/N`: mean square difference of the two over the mean square of either, to leading order in 1/N (Γ = I).

    Attention takes the covariance of the components as known, Λ; least squares measures it in the context, where it
    fluctuates: `Σ_{d≤m} λ_d Var((Λ⁻¹ δS w)_d) = Σ_{d≤m} (λ_d + Σ_{j≤m} λ_j)/N = (m + 1) Σ_{j≤m} λ_j/N`.

    Reference: theory notes, §4 (derived there).
    """
    return (num_components + 1) / num_context
