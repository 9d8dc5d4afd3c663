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

from figures.report import material
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


HARM, BIAS = "it harms at the end if kept on.", "Yes for simplicity bias. For generalisation"
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


def test_the_ratio_that_changes_least_is_named():
    """Of t_2, t_3 and t_4 over t_1, whichever it is."""
    claim = load_claim("sam_simplicity_bias")
    for least in (2, 3, 4):
        falls = {feature: 0.9 if feature == least else 0.5 for feature in (1, 2, 3, 4)}
        values = np.broadcast_to([[[1.0] * 4], [list(falls.values())]], (2, 24, 4))
        labels = {"rho": [0.0, 0.05], "feature": [1, 2, 3, 4]}
        ratio = xr.DataArray(values, dims=("rho", "seed", "feature"), coords=labels)
        assert material.least_changed(claim, xr.Dataset({"learning_time_ratio": ratio}), SAM_RATIO) == least
