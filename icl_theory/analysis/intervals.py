"""Intervals over seeds."""

from __future__ import annotations

import numpy as np

from icl_theory.errors import check_number


def median_interval(values: np.ndarray, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Median and its distribution-free interval from order statistics; infinite values are allowed.

    The k-th smallest and k-th largest of n values enclose the median with probability
    `1 − 2 P(Binomial(n, ½) < k)`. The largest k that keeps this at or above the confidence is used. With too few values
    for that, the interval is unbounded; with none, or only NaN, all results are NaN. Single NaNs count as infinite.
    """
    import scipy.stats

    check_number("confidence", confidence, minimum=0.0, maximum=1.0, exclusive=True)
    ordered = np.sort(np.asarray(values, dtype=float))  # NaN sorts last, like never
    if np.isnan(ordered).all():
        return np.nan, np.nan, np.nan
    ordered = np.where(np.isnan(ordered), np.inf, ordered)
    k = max(int(scipy.stats.binom.ppf((1.0 - confidence) / 2.0, len(ordered), 0.5)), 1)
    middle = ordered[[(len(ordered) - 1) // 2, len(ordered) // 2]]
    median = middle[0] if middle[0] == middle[1] else middle.mean()
    if 1.0 - 2.0 * scipy.stats.binom.cdf(k - 1, len(ordered), 0.5) < confidence:
        return float(median), -np.inf, np.inf
    return float(median), float(ordered[k - 1]), float(ordered[-k])
