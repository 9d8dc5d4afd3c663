"""Verdicts of the study of mathematical problems: single comparisons, the claim as a whole, how upsampling helps."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from experiments.language_models.mathematics_mediation import Mediation, Slope, mediation, mediation_lines, slopes
from experiments.language_models.mathematics_report import comparisons, difference, holm, lines
from experiments.language_models.mathematics_verdicts import how, overall, single
from figures.mathematics import draw
from icl_theory.llm.evaluation.study import paired


def made_up(gain, seeds=8, **more):
    random = np.random.default_rng(5)
    plain = random.normal(0.5, 0.02, seeds)
    base = {"cut": [0.0] * seeds, "loss": [1.0] * seeds, "contrast": [None] * seeds, "R": [2.0] * seeds}
    base |= {"seeds": list(range(seeds)), "by_kind": {"sums 1": [0.5] * seeds}}
    noise = random.normal(0, 0.005, (3, seeds))
    return {
        "plain": base | {"accuracy": plain.tolist()},
        "late": base | {"accuracy": (plain + gain + noise[0]).tolist()} | more,
        "random": base | {"accuracy": (plain + noise[1]).tolist()},
    }


@pytest.mark.parametrize(("gain", "word"), [(0.05, "gain"), (-0.05, "loss"), (0.0, "no gain of 2 points")])
def test_verdicts(gain, word):
    told = [line for line in lines(made_up(gain), 8) if line.startswith(("late minus plain", "late minus random"))]
    assert len(told) == 2
    assert all(line.endswith(f": {word}") for line in told)


def test_a_comparison_without_all_seeds_has_no_verdict():
    found = made_up(0.05)
    assert {one.get("verdict") for one in comparisons(found, 8) if one["primary"]} == {"gain"}
    assert {one.get("verdict") for one in comparisons(found, 9) if one["primary"]} == {None}
    told = [line for line in lines(found, 9) if line.startswith("late minus")]
    assert all(line.endswith("not made: seeds are missing") for line in told)


def test_the_figure_draws_each_comparison_with_its_verdict():
    found = made_up(0.05)
    axis = draw({"comparisons": comparisons(found, 8)}).axes[0]
    words = [text.get_text() for text in axis.texts]
    assert [word for word in words if "−" in word] == ["late × κ − plain", "late × κ − random × κ"]
    assert words.count("gain") == 2
    points = sorted(x for line in axis.lines if line.get_marker() == "o" for x in line.get_xdata())
    means = [100 * float(np.mean(difference(found, "late", other))) for other in ("plain", "random")]
    assert points == pytest.approx(sorted(means))


def test_with_a_wide_interval_a_gain_is_not_shown():
    assert single(*paired(np.array([0.1, -0.1, 0.05])), rejected=False) == "not shown"


def test_a_single_comparison_is_judged_as_the_first_of_six():
    found = made_up(0.0)
    gains = np.array([0.01, 0.03, 0.02, -0.01, 0.025, 0.0, 0.015, 0.02])
    found = {
        "plain": found["plain"],
        "late": found["late"] | {"accuracy": (found["plain"]["accuracy"] + gains).tolist()},
    }
    assert 0.05 / 6 < ttest_1samp(gains, 0).pvalue < 0.05
    (told,) = (line for line in lines(found, 8) if line.startswith("late minus plain"))
    assert told.endswith(": not shown")


def test_holm_stops_at_the_first_that_stands():
    """The example of Holm's procedure with four hypotheses: 0.005 and 0.01 fall, 0.03 stands, and so does 0.04."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([0.5]) == [False]


def test_arms_are_compared_over_the_seeds_of_both():
    arms_of = {"a": {"seeds": [0, 1, 2], "accuracy": [0.1, 0.2, 0.4]}, "b": {"seeds": [2, 0], "accuracy": [0.1, 0.1]}}
    np.testing.assert_allclose(difference(arms_of, "a", "b"), [0.0, 0.3])


def test_mediation_tells_a_gain_by_bias_from_one_by_draws():
    """By bias: accuracy follows R of each seed. By draws: it follows the arm alone, whatever its R."""
    random = np.random.default_rng(2)
    names, seeds = ["late", "random", "recipe"], 12
    x = np.array([-0.6, 0.0, -0.3])[:, None] + random.normal(0, 0.2, (3, seeds))
    by_bias = -0.1 * x
    by_draws = np.array([0.06, 0.0, 0.03])[:, None] + random.normal(0, 0.002, (3, seeds))
    np.testing.assert_allclose(slopes(x, by_bias), [-0.1, -0.1])
    within, between = slopes(x, by_draws)
    assert abs(within) < 0.01
    assert between == pytest.approx(-0.1, abs=0.03)
    shares = {}
    for case, y in (("bias", by_bias), ("draws", by_draws)):
        base = {"seeds": list(range(seeds))}
        given = {
            name: base | {"R": np.exp(x[place]).tolist(), "accuracy": y[place].tolist()}
            for place, name in enumerate(names)
        } | {"plain": base | {"R": [1.0] * seeds, "accuracy": [0.0] * seeds}}
        shares[case] = mediation(given).share
    assert shares["bias"] == pytest.approx(1.0)
    assert abs(shares["draws"]) < 0.15


def test_mediation_needs_arms_and_seeds():
    assert mediation({"plain": {}}) is None
    base = {"seeds": [0, 1], "R": [1.0, None], "accuracy": [0.1, 0.2]}
    assert mediation({"plain": base, "late": base, "random": base}) is None
    assert mediation_lines(None)[0].startswith("mediation: too few arms")


def one(arm, other, mean, half=0.01, **more):
    return {"arm": arm, "other": other, "mean": mean, "half": half} | more


@pytest.mark.parametrize(
    ("over_plain", "over_random", "word"),
    [
        ((0.05, "gain"), (0.05, "gain"), "shown"),
        ((0.05, "gain"), (0.015, "not shown"), "not shown"),
        ((0.05, "gain"), (0.005, "no gain of 2 points"), "refuted at 2 points"),
        ((0.008, "gain"), (0.009, "gain"), "shown"),
    ],
)
def test_a_gain_is_shown_over_plain_and_random_copies(over_plain, over_random, word):
    for arm, random in (("late", "random"), ("recipe", "recipe, random")):
        found = [
            one(arm, other, mean, verdict=verdict)
            for other, (mean, verdict) in (("plain", over_plain), (random, over_random))
        ]
        assert overall(found, arm) == word
        del found[1]["verdict"]
        assert overall(found, arm) == "not made"
        assert overall(found[:1], arm) == "not made"


MEDIATED = Mediation(8, 16, Slope(-0.1, -0.15, -0.05), Slope(-0.1, -0.2, 0.0), 0.7)


@pytest.mark.parametrize(
    ("order", "weight", "steps", "mediated", "word"),
    [
        (0.03, 0.03, 0.0, MEDIATED, "a lower bias"),
        (0.03, 0.03, 0.0, MEDIATED._replace(share=0.3), "not decided"),
        (0.03, 0.03, 0.0, None, "not decided"),
        (0.03, 0.005, 0.0, MEDIATED, "not decided"),
        (0.0, 0.005, 0.03, MEDIATED, "more steps"),
        (0.0, 0.015, 0.03, MEDIATED, "not decided"),
        (0.0, 0.005, 0.005, MEDIATED, "not decided"),
    ],
)
def test_how_the_rule_helps(order, weight, steps, mediated, word):
    found = [
        one("late", "plain", 0.05, verdict="gain"),
        one("late", "random", 0.05, verdict="gain"),
        one("late, first half", "late, second half", order),
        one("late, by weight", "plain", weight),
        one("late, second half", "random", steps),
    ]
    assert how(found, mediated) == word
    assert how(found[:-1], mediated) == "not decided"
    found[0]["verdict"] = "not shown"
    assert how(found, mediated) == "not decided"
