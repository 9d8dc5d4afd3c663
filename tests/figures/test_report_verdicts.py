"""Words of the verdicts follow from the numbers they rest on."""

import dataclasses
import math

import numpy as np
import pytest
import xarray as xr
from report_material import (
    LATE_END,
    LATE_HALF,
    LATE_RATIO,
    LEAST_CHANGED,
    MERGED,
    ROWS,
    SAM_HALF,
    SAM_RATIO,
    SAM_STEPS,
    SAVED_STUDIES,
)

from figures.report import material, studies
from figures.report.effects import Effect
from figures.report.verdicts import verdicts
from icl_theory.verification import Row, load_claim


def with_interval(name, low, high):
    """All statements, one of them with another interval."""
    return [
        Row(dataclasses.replace(row.statement, measured=(low + high) / 2, interval=(low, high)))
        if row.statement.name == name
        else row
        for row in ROWS
    ]


HARM = "it harms at the end if kept on."
BIAS = "Yes for simplicity bias under gradient descent; under Adam it depends on signal and noise. For generalisation"
WORDS = [
    (0, SAM_RATIO, (-0.2, 0.1), "no", "Not shown with separate keys and queries, no with merged ones."),
    (0, SAM_RATIO, (0.1, 0.2), "no", "No with separate and with merged keys and queries."),
    (0, MERGED, (-0.1, 0.1), "part", "Yes with separate keys and queries, not shown with merged ones."),
    (0, MERGED, (0.1, 0.2), "yes", "Yes with separate and with merged keys and queries."),
    (1, SAM_HALF, (-0.01, 0.001), "no", "At equal training loss no difference is clear; at equal steps SAM is behind."),
    (1, SAM_HALF, (-0.3, -0.1), "part", "At equal training loss SAM is ahead; at equal steps SAM is behind."),
    (1, SAM_HALF, (0.1, 0.3), "no", "At equal training loss SAM is behind; at equal steps SAM is behind."),
    (
        1,
        SAM_STEPS,
        (-1, 1),
        "hardly",
        "At equal training loss the gain is tiny; at equal steps no difference is clear.",
    ),
    (1, SAM_STEPS, (-2, -1), "hardly", "At equal training loss the gain is tiny; at equal steps SAM is ahead."),
    (2, LATE_RATIO, (-1, 1), "part", f"Not shown{BIAS[3:]} only half-way through training; {HARM}"),
    (2, LATE_HALF, (-0.1, 0.1), "part", f"{BIAS} not shown half-way; {HARM}"),
    (2, LATE_END, (-0.1, 0.1), "part", f"{BIAS} only half-way through training."),
    (2, LATE_END, (-0.2, -0.1), "yes", f"{BIAS} half-way and at the end."),
]


@pytest.mark.parametrize(("claim", "name", "interval", "tone", "sentence"), WORDS)
def test_the_words_of_a_verdict_follow_from_its_intervals(claim, name, interval, tone, sentence):
    verdict = verdicts(with_interval(name, *interval), LEAST_CHANGED, SAVED_STUDIES, "any")[claim]
    assert (verdict.tone, verdict.sentence) == (tone, sentence)


def shifted(by):
    """The saved studies with the accuracies of upsampling late changed, up and down by turns where the change is 0."""
    found = {}
    for name, study in SAVED_STUDIES.items():
        arms = {arm: dict(values) for arm, values in study["arms"].items()}
        for optimizer in ("adamw", "muon"):
            for measured in {"accuracy", "unseen"} & set(arms[f"{optimizer} plain"]):
                plain = np.array(arms[f"{optimizer} plain"][measured])
                turns = 0.1 * (-1.0) ** np.arange(len(plain)) if by == 0 else 1e-3 * np.arange(len(plain))
                arms[f"{optimizer} late"][measured] = list(plain + by + turns)
        found[name] = study | {"arms": arms}
    return found


@pytest.mark.parametrize(
    ("by", "tone", "word"), [(0.2, "yes", "Yes in a"), (0.0, "no", "Not shown in a"), (-0.2, "no", "No in a")]
)
def test_the_verdict_on_language_models_follows_from_the_studies(by, tone, word):
    verdict = verdicts(ROWS, LEAST_CHANGED, shifted(by), "any")[3]
    assert verdict.tone == tone
    assert verdict.sentence.startswith(word)
    assert verdict.sentence.count(".") == 3  # 0.1 M, 0.8 M and the end: one verdict for all settings


def test_what_was_not_measured_is_not_shown():
    nothing = Effect(math.nan, math.nan, math.nan)
    assert nothing.word("below") == nothing.word("above") == "not shown"
    assert str(Effect(0.001, -0.002, 0.004, nothing=0.0)) == "0.00 ± 0.00"


@pytest.mark.parametrize(
    ("effect", "text"),
    [
        (Effect(0.0424, 0.0006, 0.0842, nothing=0.0), "+0.042 ± 0.042"),  # two decimals hide that zero is left out
        (Effect(-0.0129, -0.0249, -0.0009, nothing=0.0), "−0.013 ± 0.012"),
        (Effect(0.0424, -0.0006, 0.0854, nothing=0.0), "+0.04 ± 0.04"),
        (Effect(0.05, 0.01, 0.09, nothing=0.0), "+0.05 ± 0.04"),
        (Effect(0.98694, 0.98671, 0.98741), "× 0.987 (0.987 to 0.987)"),
    ],
)
def test_decimals_are_few_and_show_what_is_clear(effect, text):
    assert str(effect) == text


def test_gains_name_their_radius_and_those_at_equal_compute_are_apart():
    """Two radii were tried at 0.8 M weights, one in the other studies."""
    lines = {line.where: line for line in studies.table(SAVED_STUDIES)}
    assert set(lines["0.8 M weights, AdamW"].gains[2]) == {"0.02", "0.1"}
    assert set(lines["SmolLM2-135M, sums, Muon"].gains[3]) == {"0.05"}
    assert str(lines["0.8 M weights, AdamW"].gains[3]["0.1"]) == "+0.01 ± 0.09"
    arms = SAVED_STUDIES["arithmetic-cpu"]["arms"]
    change = np.mean(np.subtract(arms["muon sam 0.02, half the steps"]["accuracy"], arms["muon plain"]["accuracy"]))
    halved = studies.half_the_steps(SAVED_STUDIES)
    assert any(effect.middle == pytest.approx(change) for effect in halved["arithmetic-cpu"])
    assert [len(effects) for effects in halved.values()] == [4, 8, 4, 4]


def test_the_ratio_that_changes_least_is_named():
    """Of t_2, t_3 and t_4 over t_1, whichever it is."""
    claim = load_claim("sam_simplicity_bias")
    for least in (2, 3, 4):
        falls = {feature: 0.9 if feature == least else 0.5 for feature in (1, 2, 3, 4)}
        values = np.broadcast_to([[[1.0] * 4], [list(falls.values())]], (2, 24, 4))
        labels = {"rho": [0.0, 0.05], "feature": [1, 2, 3, 4]}
        ratio = xr.DataArray(values, dims=("rho", "seed", "feature"), coords=labels)
        assert material.least_changed(claim, xr.Dataset({"learning_time_ratio": ratio}), SAM_RATIO) == least
