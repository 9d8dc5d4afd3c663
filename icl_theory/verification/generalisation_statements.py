"""What is read off the measurements of claim H: simplicity bias, claim B, claim C, the controls."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats

from icl_theory.verification.claim import Data
from icl_theory.verification.paired import (
    CONFIDENCE,
    PairedChange,
    absolute,
    median_change,
    paired_change,
    worst_change,
)
from icl_theory.verification.statement import Statement, at_least, at_most

TESTS = ("training", "white", "reversed", "short", "long")
ARMS = ("sam", "late", "two-phase", "residual", "random", "early", "fresh late", "fresh random", "fresh early")
MIXTURES = ("one group", "two groups")
LARGE, SMALL = (1000, 5000), (100,)
LEVELS = {"matched": 0, "matched late": -1}  # of the settings' levels: half-way, and near the end of training
ABOUT: dict[str, Any] = {
    "source": "found here",
    "code": "icl_theory.verification.generalisation_statements.pick",
    "figure": "generalisation",
}


def chosen(
    data: Data, *, mixture: str | None = None, sizes: tuple[int, ...] = (), noise_std: float | None = None
) -> np.ndarray:
    """Which settings have this mixture, one of these numbers of prompts and this label noise (default all), (case,)."""
    cases = np.ones(len(data["case_mixture"]), bool)
    if mixture is not None:
        cases &= data["case_mixture"] == MIXTURES.index(mixture)
    if sizes:
        cases &= np.isin(data["case_num_prompts"], sizes)
    if noise_std is not None:
        cases &= data["case_noise_std"] == noise_std
    return cases


def pick(data: Data, name: str, arm: str, test: str = "training", **where: Any) -> list[np.ndarray]:
    """Log ratios to gradient descent, (seed,), of each setting asked for.

    Args:
        data: of `measure`.
        name: a comparison: `"mean"`, `"end"`, `"evaluations_mean"`, `"budget_end"`, `"matched"` or `"matched late"`.
        arm, test: which.
        where: `mixture`, `sizes`, `noise_std`, as in `chosen`.
    """
    if name == "evaluations_mean" and arm != "sam":
        name = "mean"  # one gradient a step, as gradient descent
    values = data[name] if name == "evaluations_mean" else data["matched" if name in LEVELS else name][ARMS.index(arm)]
    values = values[:, :, TESTS.index(test)]
    values = values[..., LEVELS[name]] if name in LEVELS else values
    return list(values[chosen(data, **where)])


def pooled(data: Data, *what: str, **where: Any) -> PairedChange:
    """The median over the seeds of all those settings together."""
    return median_change(np.concatenate(pick(data, *what, **where)))


def each(data: Data, *what: str, **where: Any) -> list[PairedChange]:
    """One median a setting."""
    return [median_change(values) for values in pick(data, *what, **where)]


def bias_changes(data: Data, arm: str, features: tuple[int, ...], **where: Any) -> list[PairedChange]:
    """Changes of ln(t_d/t_1) against gradient descent over all those settings and seeds, one a feature."""
    ratios = data["bias_ratios"][:, chosen(data, **where)]
    number = 1 + ARMS.index(arm)
    return [paired_change(ratios[number, ..., d].ravel(), ratios[0, ..., d].ravel()) for d in features]


def difference(data: Data, name: str, arm: str, other: str, test: str = "training", **where: Any) -> PairedChange:
    """Of two arms, seed by seed: the median of the ln ratio of their held-out losses."""
    ours, theirs = (np.concatenate(pick(data, name, each_arm, test, **where)) for each_arm in (arm, other))
    with np.errstate(invalid="ignore"):
        return median_change(ours - theirs)


def unfinished(data: Data, **where: Any) -> np.ndarray:
    """Share of runs that have not learned all four features at the end, gradient descent first, then each arm."""
    times = data["bias_times"][:, chosen(data, **where)]
    return np.asarray(1.0 - np.isfinite(times).all(axis=-1).mean(axis=(1, 2)))


def statements(data: Data) -> list[Statement]:
    """H1 to H29."""
    return _bias_statements(data) + _claim_b(data) + _claim_c(data) + _costs(data) + _controls(data) + [_missed(data)]


def _bias_statements(data: Data) -> list[Statement]:
    about = ABOUT | {"code": "icl_theory.analysis.simplicity_bias"}
    return [
        worst_change(
            at_most,
            "H1",
            "Finite data, all 16 settings together: SAM, upsampled late and augmented late each lower ln(t_d/t_1), d = 2, 3",
            [change for arm in ("sam", "late", "fresh late") for change in bias_changes(data, arm, (1, 2))],
            **about | {"source": "abstract, claims A, C"},
        ),
        worst_change(
            at_most,
            "H2",
            "Controls, random examples and random fresh ones: |change of ln(t_d/t_1)| below 0.05, d = 2, 3",
            [absolute(change) for arm in ("random", "fresh random") for change in bias_changes(data, arm, (1, 2))],
            bound=0.05,
            **about | {"source": "notes §8"},
        ),
        worst_change(
            at_least,
            "H3",
            "Controls, early examples and fresh early ones: ln(t_d/t_1) does not fall, d = 2, 3",
            [change for arm in ("early", "fresh early") for change in bias_changes(data, arm, (1, 2))],
            **about | {"source": "notes §8"},
        ),
    ]


def _claim_b(data: Data) -> list[Statement]:
    levels, groups = ("matched", "matched late"), ((100, 300), LARGE)
    matched = [pooled(data, n, "sam", mixture=m, sizes=p) for n in levels for m in MIXTURES for p in groups]
    return [
        worst_change(
            at_most,
            "H4",
            "Claim B, at matched training loss half-way: SAM's held-out loss is lower (ln ratio, all settings together)",
            [pooled(data, "matched", "sam")],
            **ABOUT | {"source": "abstract, claim B"},
        ),
        worst_change(
            at_most,
            "H5",
            "but by less than 2 %: |ln ratio| half-way and near the end, both mixtures, P ≤ 300 and P ≥ 1000",
            [absolute(change) for change in matched],
            bound=0.02,
            **ABOUT,
        ),
        worst_change(
            at_most,
            "H6",
            "At the end the typical SAM run has the held-out loss of gradient descent: |ln ratio| below 0.5 %, each P",
            [absolute(pooled(data, "end", "sam", sizes=(size,))) for size in np.unique(data["case_num_prompts"])],
            bound=0.005,
            **ABOUT,
        ),
        worst_change(
            at_least,
            "H7",
            "At equal steps SAM's held-out loss in distribution, mean over training, is higher, P ≥ 1000, each setting",
            each(data, "mean", "sam", sizes=LARGE),
            **ABOUT,
        ),
        worst_change(
            at_least,
            "H8",
            "At equal gradient evaluations it is higher by a tenth at least, each of 16 settings",
            each(data, "evaluations_mean", "sam"),
            bound=float(np.log(1.1)),
            **ABOUT,
        ),
    ]


def _missed(data: Data) -> Statement:
    """How much more often a SAM run misses a feature, with a normal interval over the paired runs."""
    times = data["bias_times"][:2, chosen(data, mixture="one group")]
    missed = (~np.isfinite(times)).any(axis=-1).astype(float)
    change = (missed[1] - missed[0]).ravel()
    half = float(scipy.stats.norm.ppf(0.5 + CONFIDENCE / 2.0)) * float(change.std(ddof=1)) / np.sqrt(change.size)
    middle = float(change.mean())
    return at_least(
        "H29",
        "One group: SAM leaves more runs without a feature at the end than gradient descent, which also leaves some (share more, "
        "99 % interval)",
        bound=0.0,
        measured=middle,
        interval=(middle - half, middle + half),
        count=change.size,
        **ABOUT,
    )


def _claim_c(data: Data) -> list[Statement]:
    about = ABOUT | {"figure": "generalisation_map"}
    shifts = [(mixture, test) for mixture in MIXTURES for test in ("white", "reversed")]
    return [
        worst_change(
            at_most,
            "H9",
            "Claim C, at matched training loss half-way: upsampling late lowers the held-out loss, P ≤ 300 and P ≥ 1000",
            [pooled(data, "matched", "late", sizes=sizes) for sizes in ((100, 300), LARGE)],
            **about | {"source": "abstract, claim C"},
        ),
        worst_change(
            at_most,
            "H10",
            "more than the same factor on random examples does (ln of its loss over theirs)",
            [difference(data, "matched", "late", "random", sizes=sizes) for sizes in ((100, 300), LARGE)],
            **about,
        ),
        worst_change(
            at_most,
            "H11",
            "and on a white and a reversed spectrum, both mixtures (P ≥ 1000)",
            [pooled(data, "matched", "late", test, mixture=mixture, sizes=LARGE) for mixture, test in shifts],
            **about,
        ),
        worst_change(
            at_least,
            "H12",
            "At equal steps, mean over training, in distribution, it gains less than 1 % (ln ratio, P ≥ 1000)",
            [pooled(data, "mean", "late", sizes=LARGE)],
            bound=-0.01,
            **about,
        ),
        worst_change(
            at_most,
            "H13",
            "Upsampling late, then returning: the typical run ends at the loss of gradient descent, |ln ratio| below 0.5 %, each P",
            [absolute(pooled(data, "end", "two-phase", sizes=(size,))) for size in np.unique(data["case_num_prompts"])],
            bound=0.005,
            **about,
        ),
        worst_change(
            at_most,
            "H14",
            "It lowers the final loss on longer contexts (N = 127), both mixtures (P ≥ 1000)",
            [pooled(data, "end", "late", "long", mixture=mixture, sizes=LARGE) for mixture in MIXTURES],
            **about,
        ),
        worst_change(
            at_most,
            "H15",
            "Augmentation at P = 100: fresh late prompts lower the held-out loss, mean over training",
            [pooled(data, "mean", "fresh late", sizes=SMALL)],
            **about | {"source": "abstract, claim C"},
        ),
    ]


def _costs(data: Data) -> list[Statement]:
    about = ABOUT | {"figure": "generalisation_map"}
    return [
        worst_change(
            at_least,
            "H16",
            "Where it hurts: upsampling late to the end raises the final held-out loss in distribution (P ≥ 1000)",
            [pooled(data, "end", "late", mixture=mixture, sizes=LARGE) for mixture in MIXTURES],
            **about,
        ),
        worst_change(
            at_least,
            "H17",
            "and at P = 100",
            [pooled(data, "end", "late", sizes=SMALL)],
            **about,
        ),
        worst_change(
            at_least,
            "H18",
            "with little data (P ≤ 300) by more than random examples upsampled alike, so not only because fewer count (ln of its "
            "loss over theirs)",
            [difference(data, "end", "late", "random", sizes=(100, 300))],
            **about,
        ),
        worst_change(
            at_least,
            "H19",
            "One group: it raises the final loss on a white and on a reversed spectrum (P ≥ 1000)",
            [pooled(data, "end", "late", test, mixture="one group", sizes=LARGE) for test in ("white", "reversed")],
            **about,
        ),
        worst_change(
            at_least,
            "H20",
            "Two groups: at the end it raises the loss on the minority's own spectrum too (P ≥ 1000)",
            [pooled(data, "end", "late", "reversed", mixture="two groups", sizes=LARGE)],
            **about,
        ),
        worst_change(
            at_least,
            "H21",
            "It raises the final loss on shorter contexts (N = 8), both mixtures (P ≥ 1000)",
            [pooled(data, "end", "late", "short", mixture=mixture, sizes=LARGE) for mixture in MIXTURES],
            **about,
        ),
        worst_change(
            at_least,
            "H22",
            "With the pilot paid for, gradient descent that trains twice as long ends no worse than late or two-phase (P ≥ 1000)",
            [pooled(data, "budget_end", arm, sizes=LARGE) for arm in ("late", "two-phase")],
            bound=-0.002,
            **about,
        ),
    ]


def _controls(data: Data) -> list[Statement]:
    about = ABOUT | {"figure": "generalisation_map"}
    return [
        worst_change(
            at_least,
            "H23",
            "Lateness by residual, without each example's own floor, is worse, mean over training (its loss over the rule's, "
            "P ≥ 1000)",
            [difference(data, "mean", "residual", "late", sizes=LARGE)],
            **about,
        ),
        worst_change(
            at_most,
            "H24",
            "but better at the end with little data (P ≤ 300)",
            [difference(data, "end", "residual", "late", sizes=(100, 300))],
            **about,
        ),
        worst_change(
            at_least,
            "H25",
            "At P = 100 as many fresh prompts of any kind do better at the end than fresh late ones (fresh late over fresh random)",
            [difference(data, "end", "fresh late", "fresh random", sizes=SMALL)],
            **about,
        ),
        worst_change(
            at_most,
            "H26",
            "At matched training loss half-way fresh late prompts do better than fresh prompts of any kind, and than copies of the late",
            [difference(data, "matched", "fresh late", other) for other in ("fresh random", "late")],
            **about,
        ),
        worst_change(
            at_least,
            "H27",
            "Controls: random and early examples upsampled do not lower the mean held-out loss (P ≥ 1000)",
            [pooled(data, "mean", arm, sizes=LARGE) for arm in ("random", "early")],
            bound=-0.002,
            **about,
        ),
        worst_change(
            at_least,
            "H28",
            "nor, by more than 0.5 %, that at matched training loss half-way (all settings together)",
            [pooled(data, "matched", arm) for arm in ("random", "early")],
            bound=-0.005,
            **about,
        ),
    ]
