"""Features of a data set of unknown distribution, with directions and drives estimated from its prompts."""

from __future__ import annotations

import numpy as np

from icl_theory.moments.empirical import prompt_moments
from icl_theory.tasks.features import Features
from icl_theory.tasks.prompts import Prompts


def estimate_features(prompts: Prompts) -> Features:
    """Estimate the features of a data set from its prompts.

    The directions are the eigenvectors of the inputs' second moment. Drive and curvature are
    `a_d = E_s[y_q (e_d·β)(e_d·x_q)]` and `c_d = E_s[((e_d·β)(e_d·x_q))²]`, means under the prompts' weights. For
    prompts of one Gaussian group the estimates approach the features of `find_features` as P grows.

    Args:
        prompts: Prompts, for example from `Prompts.from_arrays`.

    Returns:
        The features, largest drive first.

    Raises:
        InputError: The prompts are empty, not finite or badly weighted.

    Reference: theory notes, §8.
    """
    mean = prompt_moments(prompts, blocks="reduced").mean()
    dim = prompts.dim
    weights = np.asarray(prompts.weights, float)
    rows, queries = np.asarray(prompts.x, float), np.asarray(prompts.x_query, float)
    second = np.einsum("p,pni,pnj->ij", weights, rows, rows) + np.einsum("p,pi,pj->ij", weights, queries, queries)
    _, axes = np.linalg.eigh(second / np.sum(weights * (np.asarray(prompts.num_context) + 1)))
    gram = np.asarray(mean.gram, float).reshape(dim, dim, dim, dim)
    drive = np.einsum("id,ij,jd->d", axes, np.asarray(mean.cross, float).reshape(dim, dim), axes)
    entries = np.einsum("id,je,ijkl,kd,le->de", axes, axes, gram, axes, axes, optimize=True)
    order = np.argsort(-drive, kind="stable")
    entries = entries[np.ix_(order, order)]
    return Features(axes[:, order], drive[order], np.diagonal(entries).copy(), float(mean.energy), entries)
