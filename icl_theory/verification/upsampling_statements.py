"""What is read off the measurements of claim F: groups against theory, random starts, single examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from icl_theory.verification.claim import Data
from icl_theory.verification.paired import absolute, median_change, paired_change, worst_change
from icl_theory.verification.statement import Statement, agrees, agrees_each, at_least, at_most


def statements(data: Data) -> list[Statement]:
    """F1 to F21."""
    return _group_statements(data) + _random_statements(data) + _example_statements(data)


def _group_statements(data: Data) -> list[Statement]:
    ratios = data["pair_times"][:, 1] / data["pair_times"][:, 0]
    theory = "icl_theory.theory.upsampling"
    return [
        agrees_each(
            "F1",
            "Two groups with a feature each, aligned: upsampling the slow one by κ divides t_2/t_1 by κ (½ to 8; ½ is the control, the fast one upsampled)",
            source="notes §8",
            code=f"{theory}.upsampled_learning_times",
            predicted=float(data["pair_ratio"]) / data["pair_factors"],
            measured=ratios,
            tolerance=0.01,
            figure="upsampling",
        ),
        agrees_each(
            "F2",
            "Two groups that share four features, aligned: every learning time under κ from ½ to 8 is as predicted",
            source="notes §8",
            code=f"{theory}.upsampled_learning_times",
            predicted=data["shared_predicted_times"],
            measured=data["shared_times"],
            tolerance=0.01,
            figure="upsampling",
        ),
        agrees_each(
            "F3",
            "The optimum moves: after training, all strengths are a_d(κ)/c_d(κ) of the upsampled mixture",
            source="notes §8",
            code="icl_theory.features.GroupFeatures",
            predicted=data["shared_optimum"],
            measured=data["shared_strength"],
            tolerance=1e-3,
        ),
        agrees(
            "F4",
            "What that bias costs on the original mixture: the loss above its least one is Σ c_d (w_d*(κ) − w_d*)²",
            source="notes §8",
            code=f"{theory}.upsampled_loss",
            predicted=data["shared_predicted_excess"],
            measured=data["shared_excess"],
            tolerance=1e-3,
            figure="upsampling",
        ),
    ]


def _random_statements(data: Data) -> list[Statement]:
    kappa = list(data["factors"]).index(2.0)
    early = len(data["factors"]) + list(data["early_factors"]).index(2.0)
    about: dict[str, Any] = {"code": "icl_theory.analysis.simplicity_bias", "figure": "upsampling"}
    four, two = ({name: data[f"{case}_{name}"] for name in ("ratios", "progress", "times")} for case in ("four", "two"))

    def changes(case: dict, arm: int, name: str, features: tuple[int, ...]) -> list:
        return [paired_change(case[name][arm, :, d], case[name][0, :, d]) for d in features]

    further = [median_change(four["progress"][kappa, :, d] - four["progress"][0, :, d]) for d in (2, 3)]
    drive = np.log(data["two_drive"][:, 0] / data["two_drive"][:, 3])
    beyond = paired_change(two["ratios"][kappa, :, 3], two["ratios"][0, :, 3])
    excess = beyond._replace(
        **{end: getattr(beyond, end) - (drive[kappa] - drive[0]) for end in ("median", "low", "high")}
    )

    late = changes(four, kappa, "ratios", (2, 3))
    return [
        worst_change(
            at_most,
            "F5",
            "Claim C, random starts, a group for each feature: upsampling 3 and 4 by κ = 2 lowers ln(t_d/t_1), d = 3, 4",
            late,
            source="abstract, claim C",
            **about,
        ),
        worst_change(
            at_least,
            "F6",
            "Not mere delay: features 3 and 4 are then further on when the first is learned: change of w_d/w_d*",
            further,
            source="notes §7",
            **about,
        ),
        worst_change(
            at_least,
            "F7",
            "Found: with a group for each feature the ratio then falls by less than the rule says: its ln falls by less than ln 2",
            late,
            bound=-float(np.log(2.0)),
            source="found here",
            **about,
        ),
        worst_change(
            at_most,
            "F8",
            "Groups that share all features, random starts: upsampling the minority by κ = 2 lowers ln(t_d/t_1), d = 3, 4",
            changes(two, kappa, "ratios", (2, 3)),
            source="abstract, claim C",
            **about,
        ),
        worst_change(
            at_most,
            "F9",
            "Found: where groups share features it falls by more than the drives say: change of ln(t_4/t_1) less the predicted",
            [excess],
            source="found here",
            **about,
        ),
        worst_change(
            at_most,
            "F10",
            "In absolute time the slowest feature is then learned sooner (SAM: later, E17): change of ln t_4, both cases, κ = 2",
            changes(four, kappa, "times", (3,)) + changes(two, kappa, "times", (3,)),
            source="found here",
            **about,
        ),
        worst_change(
            at_least,
            "F11",
            "Control: κ = 2 on the early groups does not lower ln(t_d/t_1), d = 3, 4, both cases (random examples leave a population as it is)",
            changes(four, early, "ratios", (2, 3)) + changes(two, early, "ratios", (2, 3)),
            source="notes §8",
            **about,
        ),
    ]


def _example_statements(data: Data) -> list[Statement]:
    """Finite data: errors are medians over the data sets, the worst arm and feature is judged."""
    measured = data["example_measured_times"]
    factor = float(np.median(data["example_factor"]))
    typical = {
        name: np.median(np.abs(measured / data[f"example_{name}_times"] - 1.0), axis=1)
        for name in ("drives", "coupled")
    }
    late, random, early, threshold, clusters = 1, 2, 3, 4, 5
    better = typical["coupled"][:, 1:] / typical["drives"][:, 1:]  # feature 1 is learned before any other can act on it
    further = [median_change(data["example_progress"][late, :, d] - data["example_progress"][0, :, d]) for d in (1, 2)]
    about: dict[str, Any] = {"code": "icl_theory.lateness.late_by_quantile", "figure": "upsampling"}

    def changes(arm: int, name: str, features: tuple[int, ...]) -> list:
        values = data[f"example_{name}"]
        return [paired_change(values[arm, :, d], values[0, :, d]) for d in features]

    return [
        at_most(
            "F12",
            "Single examples: the drives of the weighted moments predict each feature's learning time, aligned starts, six "
            "arms (median relative error over the data sets, the worst arm and feature)",
            source="notes §8",
            code="icl_theory.theory.moment_flow.MomentFlow",
            bound=0.1,
            measured=float(typical["drives"].max()),
            figure="upsampling",
            count=typical["drives"].size,
        ),
        at_most(
            "F13",
            "With the couplings between features, which the choice of examples makes, the errors of t_2, t_3, t_4 are less than half "
            "(error with over without, worst)",
            source="derived here (notes §8)",
            code="icl_theory.theory.moment_flow.MomentFlow",
            bound=0.5,
            measured=float(better.max()),
            figure="upsampling",
            count=better.size,
        ),
        worst_change(
            at_most,
            "F14",
            f"Claim C, single examples, random starts: the late half upsampled by the ratio rule (median κ = {factor:.2f}) lowers "
            "ln(t_d/t_1), d = 2, 3",
            changes(late, "ratios", (1, 2)),
            source="abstract, claim C",
            **about,
        ),
        worst_change(
            at_least,
            "F15",
            "Not mere delay: features 2 and 3 are then further on when the first is learned: change of w_d/w_d*",
            further,
            source="notes §7",
            **about,
        ),
        worst_change(
            at_most,
            "F16",
            "In absolute time features 2 and 3 are then learned sooner: change of ln t_d",
            changes(late, "times", (1, 2)),
            source="found here",
            **about,
        ),
        worst_change(
            at_most,
            "F17",
            "Control: the same factor on random examples leaves ln(t_d/t_1), d = 2, 3, as it is (|change| below 0.05)",
            [absolute(change) for change in changes(random, "ratios", (1, 2))],
            bound=0.05,
            source="notes §8",
            **about,
        ),
        worst_change(
            at_least,
            "F18",
            "Control: the same factor on the early examples does not lower ln(t_d/t_1), d = 2, 3 (it raises it)",
            changes(early, "ratios", (1, 2)),
            source="notes §8",
            **about,
        ),
        worst_change(
            at_least,
            "F19",
            "Upsampling the late half moves the best weights of the slow features up, d = 2, 3, 4: change of ln w_d*",
            changes(late, "optimum", (1, 2, 3)),
            source="found here",
            **about,
        ),
        worst_change(
            at_most,
            "F20",
            "The same factor on examples that a threshold or a two-cluster split calls late lowers ln(t_4/t_1)",
            changes(threshold, "ratios", (3,)) + changes(clusters, "ratios", (3,)),
            source="notes §8",
            code="icl_theory.lateness.late_by_clustering",
            figure="",
        ),
        at_most(
            "F21",
            "With the couplings the weighted moments predict learning times to 1 % (median over the data sets, worst arm and feature)",
            source="derived here (notes §8)",
            code="icl_theory.theory.moment_flow.MomentFlow",
            bound=0.01,
            measured=float(typical["coupled"].max()),
            figure="upsampling",
            count=typical["coupled"].size,
        ),
    ]
