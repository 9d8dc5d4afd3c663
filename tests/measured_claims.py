"""Tests of measured claims: statements hold, fail without their effect, and figures draw from the data.

Each part of the claims has a file of tests that imports these, so that a claim is measured once. Data that
`make reproduce` left in `results` are not measured again if this very code and these libraries made them.
"""

import dataclasses
import functools
import pkgutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from claims_without_effects import NO_EFFECT

from figures import FIGURES
from icl_theory import environment
from icl_theory.errors import InputError
from icl_theory.plotting import save_figure
from icl_theory.verification import all_claims, rows_of
from icl_theory.verification.claims import generalisation, phase_diagram
from icl_theory.verification.saved import load, manifest

RESULTS = Path(__file__).parents[1] / "results"
# All claims are measured at full size but these: many data sets that take minutes, which `make reproduce` judges, and a
# grid.
SMALLER = {
    "generalisation": generalisation.Settings(
        num_prompts=(100, 1000, 5000), noise_stds=(0.0,), num_seeds=2, duration=300.0, num_snapshots=61
    ),
    "phase_diagram": dataclasses.replace(
        phase_diagram.Settings(),
        ratios=(1.0, 1.5, 2.0, 3.0),
        deltas=(0.0, 0.5, 1.5),
        learning_rate=1e-2,
        duration=150.0,
    ),
}
CLAIMS = {
    claim.name: dataclasses.replace(claim, settings=SMALLER.get(claim.name, claim.settings)) for claim in all_claims()
}
PARTS = {  # each is one file of tests, so one worker's; claims that a figure draws together are in one of them
    "trajectories": (
        *("dynamics", "random_initialisation", "random_starts", "sam_simplicity_bias", "upsampling", "phase_diagram"),
    ),
    "models": ("softmax", "many_features", "random_starts_beyond", "low_rank", "weights", "in_weight_learning"),
    "data": (
        *("closed_forms", "fixed_points", "sam_by_data", "generalisation", "context_lengths"),
        *("principal_components", "adaptive_optimizers"),
    ),
}
pytestmark = pytest.mark.slow


def cases_of(part):
    """Names of claims, of cases without an effect and of figures, by the argument of the tests that take them."""
    first = {figure: (FIGURES[figure].reads or ("closed_forms",))[0] for figure in FIGURES}
    return {
        "name": PARTS[part],
        "case": [case for case, (name, *_) in NO_EFFECT.items() if name in PARTS[part]],
        "figure": [figure for figure in FIGURES if first[figure] in PARTS[part]],
    }


def data_of(claim, results):
    """The data of a claim in float64: those in the folder, if they are what measuring now would give."""
    with suppress(InputError):  # there are none, or of other code or settings, or damaged
        if manifest(claim, results)["machine"] == environment.machine():
            return load(claim, results)
    return claim.data()


@pytest.fixture(scope="module")
def measured(optimised):
    """A function that returns the data of the claim of a name."""
    return functools.cache(lambda name: data_of(CLAIMS[name], RESULTS))


def test_statements_hold(measured, name):
    """At full size; of generalisation, which is measured at a smaller one, the statements are only read."""
    claim = CLAIMS[name]
    rows = rows_of(claim, measured(name))
    assert [row.statement.name for row in rows] == claim.statements.names
    assert [row.statement.name for row in rows if not row.holds and name != "generalisation"] == []
    for row in rows:
        assert pkgutil.resolve_name(row.statement.predictor), row.statement.predictor
        assert row.statement.figure == "" or row.statement.figure in FIGURES
        assert row.statement.source
        assert np.isfinite(row.statement.tolerance)


def test_every_variable_says_its_meaning_and_unit(measured, name):
    data = measured(name)
    for variable, values in data.data_vars.items():
        assert values.attrs["long_name"], variable
    for variable, values in data.variables.items():
        assert values.attrs["units"], variable


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_statements_fail_without_their_effect(measured, case):
    name, change, names = NO_EFFECT[case]
    data = measured(name)
    statements = CLAIMS[name].statements.read(
        data.assign({key: values.transpose(*data[key].dims) for key, values in change(data).items()})
    )
    assert {f"{name}/{short}" for short in names.split()} <= {s.name for s in statements if not s.holds}


def test_figures_draw_from_measured_data(measured, figure, tmp_path):
    save_figure(FIGURES[figure].draw(*map(measured, FIGURES[figure].reads)), tmp_path / figure)
    assert (tmp_path / f"{figure}.png").stat().st_size > 10_000
    assert (tmp_path / f"{figure}.svg").stat().st_size > 10_000
