"""A statement can fail in every way, takes one tolerance, and shows its worst number."""

import json
import math

import numpy as np
import pytest
import xarray as xr

from icl_theory.theory.hitting_time import hitting_time
from icl_theory.verification import Reading, Row, Statements
from icl_theory.verification.changes import Change
from icl_theory.verification.table import as_json

NO_DATA = xr.Dataset()


def judged(kind, found, **settings):
    """The one statement that a function returning `found` makes."""
    table = Statements("group", source="here")
    getattr(table, kind)("text", predictor=hitting_time, **settings)(lambda data: found)
    (statement,) = table.read(NO_DATA)
    return statement


@pytest.mark.parametrize("bad", [1.1, math.nan, math.inf])
def test_every_kind_of_statement_can_fail(bad):
    assert judged("agrees", (1.0, 1.0), rtol_of_largest=1e-3).holds
    assert not judged("agrees", ([1.0, 1.0], [1.0, bad]), rtol_of_largest=1e-3).holds
    assert not judged("agrees", (0.0, bad), rtol_of_largest=1e-3).holds
    assert not judged("agrees", ([1.0, 5.0], [bad, 5.0]), rtol=1e-3).holds
    assert not judged("agrees", (1.0, bad), atol=1e-3).holds
    assert not judged("agrees", (1.0, bad, 0.01), standard_errors=4.0).holds
    assert not judged("agrees", Reading(1.0, 1.0, error=bad), half_widths=1.0).holds
    assert not judged("at_most", bad, bound=1.0).holds
    assert not judged("at_most", [0.5, bad], bound=1.0).holds
    assert not judged("at_most", Reading(0.5, interval=(0.0, bad)), bound=1.0).holds
    assert not judged("at_least", -bad, bound=-1.0).holds
    assert not judged("at_most", [Change(0.0, -bad, bad, 9), Change(0.0, 0.0, 0.0, 9)], bound=1.0).holds


def test_a_change_that_was_not_measured_breaks_any_bound():
    changes = [Change(math.nan, math.nan, math.nan, 0), Change(0.0, 0.0, 0.0, 9)]
    assert not judged("at_most", changes, bound=1.0).holds
    assert not judged("at_least", changes, bound=-1.0).holds


def test_the_worst_number_is_shown():
    statement = judged("agrees", ([1.0, 2.0, 4.0], [1.0, 2.2, 4.1]), rtol=0.5)
    assert (statement.predicted, statement.measured, statement.count) == (2.0, 2.2, 3)


def test_labelled_numbers_are_compared_by_their_labels():
    predicted = xr.DataArray([[1.0, 2.0], [3.0, 4.0]], dims=("seed", "rho"))
    assert judged("agrees", (predicted, predicted.transpose()), rtol=1e-12).holds


def test_a_statement_takes_exactly_one_tolerance():
    table = Statements("group", source="here")
    for settings in ({}, {"rtol": 0.1, "atol": 0.1}):
        with pytest.raises(TypeError, match="one tolerance"):
            table.agrees("text", predictor=hitting_time, **settings)


def test_a_misspelt_word_or_a_name_that_is_taken_is_refused_at_once():
    table = Statements("group", source="here")
    with pytest.raises(TypeError, match="figur: a statement is described by"):
        table.at_most("text", predictor=hitting_time, figur="upsampling")
    with pytest.raises(TypeError, match="predictor"):
        table.at_most("text")

    def twice(data):
        return 0.0

    table.at_most("text", predictor=hitting_time)(twice)
    with pytest.raises(TypeError, match="twice: there are two"):
        table.at_least("text", predictor=hitting_time)(twice)


def test_cases_make_a_statement_each():
    table = Statements("group", source="here")

    @table.at_most("{case} of {seed} seeds", bound=1.0, predictor=hitting_time, cases={"low": "few", "high": "many"})
    def numbers(data, case):
        return {"low": 0.0, "high": 2.0}[case]

    statements = table.read(xr.Dataset({"loss": ("seed", np.zeros(7))}))
    assert [(s.name, s.text, s.holds) for s in statements] == [
        ("group/numbers_low", "few of 7 seeds", True),
        ("group/numbers_high", "many of 7 seeds", False),
    ]
    assert statements[0].predictor == "icl_theory.theory.hitting_time.hitting_time"


def test_infinite_numbers_stay_valid_json():
    row = Row(judged("agrees", (1.0, math.inf), rtol=1.0))
    assert json.loads(as_json([row]))["statements"][0]["measured"] is None
