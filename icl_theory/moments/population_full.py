"""Moments of the full cubic features over infinite data, in closed form (theory notes, §9).

Given the task vector w, a context token `t = (x, y)` is N(0, C(w)) with `C = [[Λ, Λw], [wᵀΛ, wᵀΛw + σ²]]`. The query
token `q = (x_q, 0)` is independent, with x_q from N(0, Λ). With `G = Σ_n t_n t_nᵀ + q qᵀ` and `φ_(ab)e = G_ab q_e / N`,

    N² E[φ_(ab)e φ_(cd)f] = Λ_ef E_w[N² C_ab C_cd + N (C_ac C_bd + C_ad C_bc)]
                            + N E_w[C_ab] E[q_c q_d q_e q_f] + N E_w[C_cd] E[q_a q_b q_e q_f] + E[q_a q_b q_c q_d q_e
                            q_f]
    N   E[y_q φ_(ab)e]     = N Σ_j E_w[w_j C_ab] Λ_je + Σ_j μ_j E[q_j q_a q_b q_e]

C is quadratic in `u = (w, 1)`, so the averages over w are Gaussian moments up to the fourth:
`E[u_i u_j u_k u_l] = S_ij S_kl + S_ik S_jl + S_il S_jk − 2 m_i m_j m_k m_l` with `m = E[u]`, `S = E[uuᵀ]`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icl_theory.models.cubic_features import token_pairs
from icl_theory.moments.empirical import Moments
from icl_theory.numerics.tracing import array_module, is_traced
from icl_theory.tasks.mixture import TaskDistribution, TaskMixture


def full_population_moments(mixture: TaskMixture) -> Moments:
    """Compute the moments of infinite data for `blocks="full"`, in float64 whatever the session's precision.

    Inputs, task vectors and label noise are Gaussian, as in `TaskDistribution`; features include the 1/N, or 1/(N + 1)
    in groups that count the query.

    Args:
        mixture: Groups and their shares.

    Returns:
        The moments M, c and e of one average prompt (weight one), to be trained on like those of prompts. Computing
        them takes memory for some ten times F² numbers, F = D(D+1)(D+2)/2.

    Reference: theory notes, §9 (derived there; compared with Monte Carlo by the claim `closed_forms`).
    """
    if is_traced(mixture):
        return _mean_moments(mixture)
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _mean_moments(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), mixture)))


def _mean_moments(mixture: TaskMixture) -> Moments:
    parts = [_group_moments(group) for group in mixture.groups]
    array = array_module(parts)
    average = lambda leaves: array.tensordot(array.asarray(mixture.shares), array.stack(leaves), axes=1)  # noqa: E731
    gram, cross, energy = (average(leaves) for leaves in zip(*parts, strict=True))
    return Moments(
        gram=gram, cross=cross, energy=energy, weight=array.ones_like(energy), count=0, dim=mixture.dim, blocks="full"
    )


@jax.jit
def _group_moments(task: TaskDistribution) -> tuple[Any, Any, Any]:
    dim, count = task.dim, jnp.asarray(task.num_context, task.covariance.dtype)
    rows, columns = np.asarray(token_pairs(dim)).T
    a, b = np.repeat(rows, dim), np.repeat(columns, dim)
    e = np.tile(np.arange(dim), len(rows))
    c, d, f = a, b, e

    covariance = jnp.asarray(task.covariance)
    query = jnp.pad(covariance, (0, 1))  # covariance of the query token over all D+1 entries
    mean = jnp.append(task.task_mean, 1.0)
    second = jnp.pad(task.task_covariance, (0, 1)) + jnp.outer(mean, mean)
    forms = _token_forms(task)  # C_ab = Σ_ij forms[a, b, i, j] u_i u_j
    expected = jnp.einsum("abij,ij->ab", forms, second)
    at_mean = jnp.einsum("abij,i,j->ab", forms, mean, mean)
    turned = jnp.einsum("abij,jk->abik", forms, second)

    def of_pairs(left: tuple[Any, ...], right: tuple[Any, ...]) -> Any:
        """`E_w[C_left C_right]` for index arrays that broadcast against each other."""
        products = jnp.einsum("abik,cdki->abcd", turned, turned)
        both = expected[left] * expected[right] - 2.0 * at_mean[left] * at_mean[right]
        return both + 2.0 * products[(*left, *right)]

    A, B, E = a[:, None], b[:, None], e[:, None]
    signal = of_pairs((A, B), (c, d)) + (of_pairs((A, c), (B, d)) + of_pairs((A, d), (B, c))) / count

    def fourth(i: Any, j: Any, k: Any, m: Any) -> Any:
        return query[i, j] * query[k, m] + query[i, k] * query[j, m] + query[i, m] * query[j, k]

    sixth = (
        query[A, B] * fourth(c, d, E, f)
        + query[A, c] * fourth(B, d, E, f)
        + query[A, d] * fourth(B, c, E, f)
        + query[A, E] * fourth(B, c, d, f)
        + query[A, f] * fourth(B, c, d, E)
    )
    crossed = expected[A, B] * fourth(c, d, E, f) + expected[c, d] * fourth(A, B, E, f)
    gram = query[E, f] * signal + (crossed + sixth / count) / count

    # E_w[u_k C_ab] for k < D: third moments of u, since u_D = 1.
    third = (
        mean[:, None, None] * second
        + mean[:, None] * second[:, None, :]
        + mean * second[:, :, None]
        - 2.0 * mean[:, None, None] * mean[:, None] * mean
    )
    task_token = jnp.einsum("kij,abij->kab", third[:dim], forms)
    cross = jnp.einsum("kp,kp->p", task_token[:, a, b], covariance[:, e])
    cross += jnp.einsum("k,kp->p", task.task_mean, fourth(np.arange(dim)[:, None], a, b, e)) / count
    scale = task.beta_scale
    return scale**2 * gram, scale * cross, jnp.sum(covariance * task.task_second_moment)


def _token_forms(task: TaskDistribution) -> Any:
    """The symmetric quadratic form in `u = (w, 1)` of every entry of C(w), shape `(D+1, D+1, D+1, D+1)`."""
    dim = task.dim
    covariance = jnp.asarray(task.covariance)
    forms = jnp.zeros((dim + 1,) * 4, covariance.dtype)
    forms = forms.at[:dim, :dim, dim, dim].set(covariance)
    half = 0.5 * covariance  # C_xy = Λ w · 1, split over (w, 1) and (1, w)
    forms = forms.at[:dim, dim, :dim, dim].set(half).at[:dim, dim, dim, :dim].set(half)
    forms = forms.at[dim, :dim, :dim, dim].set(half).at[dim, :dim, dim, :dim].set(half)
    return forms.at[dim, dim, :dim, :dim].set(covariance).at[dim, dim, dim, dim].set(task.noise_std**2)
