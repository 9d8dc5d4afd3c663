"""Saved data stand for measured ones where they are the same, and every claim is measured in one file."""

import dataclasses

import xarray as xr
from measured_claims import CLAIMS, PARTS, cases_of, data_of

from figures import FIGURES
from icl_theory import environment
from icl_theory.verification import NAMES, saved
from icl_theory.verification.saved import make


def test_every_claim_and_figure_is_in_one_file():
    assert sorted(name for part in PARTS.values() for name in part) == sorted(NAMES)
    drawn = {figure: part for part in PARTS for figure in cases_of(part)["figure"]}
    assert set(drawn) == set(FIGURES)
    for figure, part in drawn.items():
        assert set(FIGURES[figure].reads) <= set(PARTS[part]), figure


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
