"""The claims, measured: statements hold, fail without their effect, and figures draw from the data.

A claim is measured once, by the worker that has its group; claims that a figure draws together are one group. Data that
`make reproduce` left in `results` are not measured again if this very code and these libraries made them.
"""

import dataclasses
import functools
import pkgutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from claims_without_effects import NO_EFFECT

from figures import FIGURES
from icl_theory import environment
from icl_theory.errors import InputError
from icl_theory.plotting import save_figure
from icl_theory.verification import all_claims, rows_of, saved
from icl_theory.verification.claims import generalisation, phase_diagram
from icl_theory.verification.saved import load, make, manifest

RESULTS = Path(__file__).parents[2] / "results"
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
TOGETHER = ("dynamics", "random_initialisation", "random_starts", "sam_simplicity_bias", "upsampling", "phase_diagram")
pytestmark = pytest.mark.slow


def group(*names):
    """The mark that sends tests of these claims to one worker."""
    (one,) = {"drawn together" if name in TOGETHER else name for name in names} or {"no claim"}
    return pytest.mark.xdist_group(one)


EACH = pytest.mark.parametrize(
    "name",
    [  # the longest first, so that no worker is left alone with one at the end
        pytest.param(name, marks=group(name))
        for name in sorted(CLAIMS, key=lambda name: (name not in TOGETHER, -CLAIMS[name].seconds))
    ],
)


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


@EACH
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


@EACH
def test_every_variable_says_its_meaning_and_unit(measured, name):
    data = measured(name)
    for variable, values in data.data_vars.items():
        assert values.attrs["long_name"], variable
    for variable, values in data.variables.items():
        assert values.attrs["units"], variable


@pytest.mark.parametrize("case", [pytest.param(case, marks=group(NO_EFFECT[case][0])) for case in NO_EFFECT])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_statements_fail_without_their_effect(measured, case):
    name, change, names = NO_EFFECT[case]
    data = measured(name)
    statements = CLAIMS[name].statements.read(
        data.assign({key: values.transpose(*data[key].dims) for key, values in change(data).items()})
    )
    assert {f"{name}/{short}" for short in names.split()} <= {s.name for s in statements if not s.holds}


@pytest.mark.parametrize(
    "figure", [pytest.param(figure, id=figure.name, marks=group(*figure.reads)) for figure in FIGURES.values()]
)
def test_figures_draw_from_measured_data(measured, figure, tmp_path):
    save_figure(figure.draw(*map(measured, figure.reads)), tmp_path / figure.name)
    assert (tmp_path / f"{figure.name}.png").stat().st_size > 10_000
    assert (tmp_path / f"{figure.name}.svg").stat().st_size > 10_000


def test_saved_data_count_only_if_this_code_made_them_here(tmp_path, monkeypatch):
    claim, calls = CLAIMS["fixed_points"], []
    make(claim, tmp_path, lambda *report: None)
    noted = dataclasses.replace(claim, measure=lambda *given: calls.append(given) or claim.measure(*given))
    xr.testing.assert_equal(data_of(noted, tmp_path), claim.data())
    assert calls == []
    for change in (
        lambda: monkeypatch.setattr(saved, "code_version", lambda: "0.0.1+deadbeef"),
        lambda: monkeypatch.setattr(environment, "machine", lambda: {"jax": "0.0.1"}),
        lambda: (tmp_path / "fixed_points" / "data_float64.zarr" / ".zattrs").write_text("{}"),
    ):
        change()
        xr.testing.assert_equal(data_of(noted, tmp_path), claim.data())
        monkeypatch.undo()
    assert len(calls) == 3
