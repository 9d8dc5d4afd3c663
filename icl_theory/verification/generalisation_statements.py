"""What is read off the measurements of claim H: simplicity bias, claim B, claim C, the controls."""

from __future__ import annotations

from typing import Any

import numpy as np

from icl_theory.verification.claim import Data
from icl_theory.verification.paired import PairedChange, absolute, median_change, paired_change, worst_change
from icl_theory.verification.statement import Statement, at_least, at_most

TESTS = ("training", "white", "reversed", "short", "long")
ARMS = ("sam", "late", "two-phase", "residual", "random", "early", "fresh late", "fresh random")
MIXTURES = ("one group", "two groups")
LARGE, SMALL = (1000, 5000), (100,)
ABOUT: dict[str, Any] = {
    "source": "found here",
    "code": "icl_theory.verification.generalisation_statements.pick",
    "figure": "generalisation",
}


def chosen(data: Data, *, mixture: str | None = None, sizes: tuple[int, ...] = ()) -> np.ndarray:
    """Which settings have this mixture and one of these numbers of prompts (default all), (case,)."""
    cases = np.ones(len(data["case_mixture"]), bool)
    if mixture is not None:
        cases &= data["case_mixture"] == MIXTURES.index(mixture)
    if sizes:
        cases &= np.isin(data["case_num_prompts"], sizes)
    return cases


def pick(data: Data, name: str, arm: str, test: str = "training", **where: Any) -> list[np.ndarray]:
    """Log ratios to gradient descent, (seed,), of each setting asked for.

    Args:
        data: of `measure`.
        name: a comparison: `"mean"`, `"end"`, `"evaluations_mean"`, `"budget_end"`, or `"matched"` (the lowest level).
        arm, test: which.
        where: `mixture` and `sizes`, as in `chosen`.
    """
    values = data[name][ARMS.index(arm), :, :, TESTS.index(test)]
    values = values[..., -1] if name == "matched" else values
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


def statements(data: Data) -> list[Statement]:
    """H1 to H20."""
    return _bias_statements(data) + _claim_b(data) + _claim_c(data)


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
            "Control, early examples: ln(t_d/t_1) does not fall, d = 2, 3",
            bias_changes(data, "early", (1, 2)),
            **about | {"source": "notes §8"},
        ),
    ]


def _claim_b(data: Data) -> list[Statement]:
    return [
        worst_change(
            at_most,
            "H4",
            "At the end SAM has the held-out loss of gradient descent: |ln ratio| below 0.5 %, each of 16 settings",
            [absolute(change) for change in each(data, "end", "sam")],
            bound=0.005,
            **ABOUT,
        ),
        worst_change(
            at_most,
            "H5",
            "Claim B, at matched training loss, P ≥ 1000: SAM's held-out loss is that of gradient descent within 1 %, "
            "training and reversed spectrum together",
            [absolute(pooled(data, "matched", "sam", test, sizes=LARGE)) for test in ("training", "reversed")],
            bound=0.01,
            **ABOUT,
        ),
        worst_change(
            at_most,
            "H6",
            "and at P = 100 too: no gain in distribution from SAM's lower simplicity bias (all settings together)",
            [absolute(pooled(data, "matched", "sam", sizes=SMALL))],
            bound=0.01,
            **ABOUT,
        ),
        worst_change(
            at_least,
            "H7",
            "At equal steps SAM's held-out loss, mean over training, is higher, P ≥ 1000, each setting",
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


def _claim_c(data: Data) -> list[Statement]:
    about = ABOUT | {"figure": "generalisation_map"}
    residual = np.concatenate(pick(data, "mean", "residual", sizes=LARGE))
    own = np.concatenate(pick(data, "mean", "late", sizes=LARGE))
    fresh = np.concatenate(pick(data, "end", "fresh late", sizes=SMALL))
    any_kind = np.concatenate(pick(data, "end", "fresh random", sizes=SMALL))
    return [
        worst_change(
            at_least,
            "H9",
            "Upsampling late to the end raises the final held-out loss: the optimum is biased (ln ratio, P ≥ 1000)",
            [pooled(data, "end", "late", sizes=LARGE)],
            **about,
        ),
        worst_change(
            at_most,
            "H10",
            "Upsampling late, then returning, ends at the loss of gradient descent: |ln ratio| below 0.5 %, each of 16 settings",
            [absolute(change) for change in each(data, "end", "two-phase")],
            bound=0.005,
            **about,
        ),
        worst_change(
            at_most,
            "H11",
            "Claim C, in distribution: with it the held-out loss, mean over training, is lower at P ≥ 1000 (all settings together)",
            [pooled(data, "mean", "two-phase", sizes=LARGE)],
            **about,
        ),
        worst_change(
            at_least,
            "H12",
            "Claim C, in distribution, P = 100: upsampling late does not help: final ln ratio, all settings together",
            [pooled(data, "end", "late", sizes=SMALL)],
            **about,
        ),
        worst_change(
            at_most,
            "H13",
            "Claim C, shift: where a minority has the reversed spectrum, upsampling late lowers the loss on that spectrum at "
            "matched training loss (P = 5000)",
            [pooled(data, "matched", "late", "reversed", mixture="two groups", sizes=(5000,))],
            **about,
        ),
        worst_change(
            at_least,
            "H14",
            "Claim C fails under shift with one group: upsampling late raises the final loss on a white and on a reversed "
            "spectrum (P ≥ 1000)",
            [pooled(data, "end", "late", test, mixture="one group", sizes=LARGE) for test in ("white", "reversed")],
            **about,
        ),
        worst_change(
            at_least,
            "H15",
            "and on shorter contexts (N = 8), both mixtures (P ≥ 1000)",
            [pooled(data, "end", "late", "short", mixture=mixture, sizes=LARGE) for mixture in MIXTURES],
            **about,
        ),
        worst_change(
            at_most,
            "H16",
            "but lowers it on longer ones (N = 127), both mixtures (P ≥ 1000)",
            [pooled(data, "end", "late", "long", mixture=mixture, sizes=LARGE) for mixture in MIXTURES],
            **about,
        ),
        worst_change(
            at_least,
            "H17",
            "Lateness by residual, without each example's own floor, is worse: its mean held-out loss over the rule's (P ≥ 1000)",
            [median_change(residual - own)],
            **about,
        ),
        worst_change(
            at_most,
            "H18",
            "Augmentation at P = 100: fresh late prompts lower the held-out loss, mean over training",
            [pooled(data, "mean", "fresh late", sizes=SMALL)],
            **about,
        ),
        worst_change(
            at_least,
            "H19",
            "but because they are more data: at the end as many fresh prompts of any kind do better (fresh late over fresh random)",
            [median_change(fresh - any_kind)],
            **about,
        ),
        worst_change(
            at_least,
            "H20",
            "Controls: random and early examples upsampled do not lower the mean held-out loss (P ≥ 1000, all settings together)",
            [pooled(data, "mean", arm, sizes=LARGE) for arm in ("random", "early")],
            bound=-0.002,
            **about,
        ),
    ]
