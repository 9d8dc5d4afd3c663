"""The table can fail, refers to code and figures that exist, and holds."""

import dataclasses
import json
import math
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

from figures import FIGURES
from icl_theory.verification import (
    CLAIMS,
    Row,
    closed_forms,
    combine,
    fixed_points,
    generalisation,
    measure_claim,
    random_initialisation,
    sharpness,
    verify,
)
from icl_theory.verification.statement import agrees, agrees_each, at_least, at_most, within_standard_errors
from icl_theory.verification.table import as_json, count, print_table

ABOUT = {"source": "here", "code": "icl_theory.theory"}

# All claims are measured at full size but this one, whose many data sets take minutes; `make reproduce` judges it.
FEW_DATA_SETS = generalisation.Settings(
    num_prompts=(100, 1000, 5000), noise_stds=(0.0,), num_seeds=2, duration=300.0, num_snapshots=61
)


@pytest.mark.parametrize("bad", [1.1, math.nan, math.inf])
def test_every_kind_of_statement_can_fail(bad):
    assert agrees("X", "", predicted=1.0, measured=1.0, tolerance=1e-3, **ABOUT).holds
    assert not agrees("X", "", predicted=[1.0, 1.0], measured=[1.0, bad], tolerance=1e-3, **ABOUT).holds
    assert not agrees("X", "", predicted=0.0, measured=bad, tolerance=1e-3, **ABOUT).holds
    assert not agrees_each("X", "", predicted=[1.0, 5.0], measured=[bad, 5.0], tolerance=1e-3, **ABOUT).holds
    assert not at_most("X", "", bound=1.0, measured=bad, **ABOUT).holds
    assert not at_most("X", "", bound=1.0, measured=0.5, interval=(0.0, bad), **ABOUT).holds
    assert not at_least("X", "", bound=-1.0, measured=-bad, **ABOUT).holds
    assert not within_standard_errors("X", "", predicted=1.0, mean=bad, standard_error=0.01, **ABOUT).holds


def test_the_worst_number_is_shown():
    statement = agrees_each("X", "", predicted=[1.0, 2.0, 4.0], measured=[1.0, 2.2, 4.1], tolerance=0.5, **ABOUT)
    assert (statement.predicted, statement.measured, statement.count) == (2.0, 2.2, 3)


def test_precision_is_restored_after_a_claim():
    import jax

    before = jax.config.jax_enable_x64
    measure_claim(CLAIMS[1], float64=not before)
    assert jax.config.jax_enable_x64 == before


@pytest.fixture(scope="module")
def measured(optimised):
    """Data of all claims in float64."""
    claims = [claim._replace(settings=FEW_DATA_SETS) if claim.name == "generalisation" else claim for claim in CLAIMS]
    return {claim.name: measure_claim(claim, float64=True) for claim in claims}


@pytest.mark.slow
def test_the_table_holds(measured):
    """Every statement but those on generalisation, at full size."""
    rows = [row for claim in CLAIMS if claim.letter != "H" for row in combine(claim, measured[claim.name], None)]
    assert len(rows) >= 115
    assert [row.statement.id for row in rows if not row.holds] == []


@pytest.mark.slow
def test_statements_name_code_and_figures_that_exist(measured):
    rows = [row for claim in CLAIMS for row in combine(claim, measured[claim.name], None)]
    assert len(rows) >= 20
    assert len({row.statement.id for row in rows}) == len(rows)
    for row in rows:
        assert pkgutil.resolve_name(row.statement.code), row.statement.code
        assert row.statement.figure == "" or row.statement.figure in FIGURES
        assert row.statement.source
        assert np.isfinite(row.statement.tolerance)


@pytest.mark.slow
def test_the_readme_names_statements_that_exist(measured):
    ids = {row.statement.id for claim in CLAIMS for row in combine(claim, measured[claim.name], None)}
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    named = set(re.findall(r"\b[A-P]\d{1,2}\b", readme))  # an H200 is a device
    for letter, first, last in re.findall(r"\b([A-P])(\d+)–[A-P](\d+)\b", readme):
        named |= {f"{letter}{number}" for number in range(int(first), int(last) + 1)}
    assert len(named) > 20
    assert named <= ids
    assert ids - named == set(), "a statement that the README leads nobody to"


def test_a_wrong_formula_is_caught(monkeypatch):
    """Break B = E[ββᵀ] by one part in ten: Monte Carlo says so."""
    right = closed_forms.beta_second_moment
    monkeypatch.setattr(closed_forms, "beta_second_moment", lambda group: 1.1 * right(group))
    claim = closed_forms.CLAIM._replace(settings=closed_forms.Settings(num_prompts=80_000, num_chunks=4))
    failing = [row.statement.id for row in combine(claim, measure_claim(claim, float64=True), None) if not row.holds]
    assert failing == ["A5"]


@pytest.mark.parametrize("mutant", ["one_token_more", "no_noise"])
def test_wrong_moments_of_full_blocks_are_caught(mutant, monkeypatch):
    right = closed_forms.full_population_moments

    def wrong(mixture):
        more = {
            "one_token_more": lambda g: {"num_context": g.num_context + 1},
            "no_noise": lambda g: {"noise_std": 0.0},
        }
        return right(mixture._replace(groups=tuple(g._replace(**more[mutant](g)) for g in mixture.groups)))

    monkeypatch.setattr(closed_forms, "full_population_moments", wrong)
    claim = closed_forms.CLAIM._replace(settings=closed_forms.Settings(num_chunks=4, num_prompts=80_000))
    failing = [row.statement.id for row in combine(claim, measure_claim(claim, float64=True), None) if not row.holds]
    assert failing == ["A8"]


@pytest.mark.parametrize("mutant", ["one_token_more", "term_dropped"])
def test_a_wrong_term_in_one_over_n_is_caught(mutant, monkeypatch):
    """Count the query as context, or drop ΛSΛ/N: at full size every Monte Carlo statement it touches fails."""
    from icl_theory.theory import population

    def wrong(task):
        right = population.beta_second_moment(
            task._replace(num_context=task.num_context + 1) if mutant == "one_token_more" else task
        )
        signal = task.covariance @ task.task_second_moment @ task.covariance
        return right if mutant == "one_token_more" else right - signal / task.num_context

    monkeypatch.setattr(closed_forms, "beta_second_moment", wrong)
    claim = closed_forms.CLAIM._replace(settings=closed_forms.Settings(num_chunks=4, num_prompts=80_000))
    failing = {row.statement.id for row in combine(claim, measure_claim(claim, float64=True), None) if not row.holds}
    assert "A5" in failing


@pytest.mark.slow
def test_claims_fail_when_nothing_is_learned(measured):
    """Runs that never learn a feature must not pass for runs that learn in order, or as the notes found."""
    for claim, ids in (
        (random_initialisation.CLAIM, {"D1", "D6"}),
        (sharpness.CLAIM, {"E12", "E15", "E16", "E20", "E21"}),
    ):
        never = {
            name: np.full_like(values, np.inf) if name.endswith("times") else np.full_like(values, np.nan)
            for name, values in measured[claim.name].items()
            if name.endswith(
                ("learning_times", "rank_agreement", "separate_times", "merged_times", "ratios", "progress")
            )
            and name not in ("reference_ratios", "two_phase_ratios")
        }
        rows = claim.statements(measured[claim.name] | never)
        assert not {row.id for row in rows if row.holds} & ids


def never(values):
    return np.full_like(values, np.inf)


# What each claim's data would be without the effect, and the statements that must then fail.
NO_EFFECT = {
    "nothing learned, any rank": (
        "low_rank",
        lambda data: {f"times_{rank}": never(data["times_1"]) for rank in (1, 2, 4, 8)},
        "I3 I4 I5 I6",
    ),
    "rank does not matter": (
        "low_rank",
        lambda data: {f"times_{rank}": data["times_8"] for rank in (1, 2, 4, 8)},
        "I3 I4 I5 I6",
    ),
    "lengths do not matter": (
        "context_lengths",
        lambda data: {"difference_mean": 0 * data["difference_mean"]},
        "J4 J5",
    ),
    "losses only fall": (
        "in_weight_learning",
        lambda data: {name: np.minimum.accumulate(data[name], axis=2) for name in ("in_context", "in_weight")},
        "K6 K7",
    ),
    "no share of any feature": (
        "softmax",
        lambda data: {name: 0 * values for name, values in data.items() if name.endswith("shares")},
        "L2 L3 L4",
    ),
    "no heads on features": (
        "weights",
        lambda data: {"head_share": np.full(4, 0.5), "grown_heads": np.full(1, 4)},
        "M7",
    ),
    "32 features never learned": (
        "many_features",
        lambda data: {name: 0 * values for name, values in data.items() if name.startswith(("aligned_", "random_"))},
        "N1 N2 N3 N4 N5 N6 N7",
    ),
    "plain least squares": ("principal_components", lambda data: {"shrunk": data["plain"]}, "P1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", NO_EFFECT)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_statements_fail_without_their_effect(measured, case):
    name, change, ids = NO_EFFECT[case]
    claim = next(claim for claim in CLAIMS if claim.name == name)
    rows = claim.statements(measured[name] | change(measured[name]))
    assert set(ids.split()) <= {row.id for row in rows if not row.holds}


def test_verify_reports_both_precisions(capsys):
    rows = verify([fixed_points.CLAIM], float32=True)
    assert all(row.holds for row in rows)
    assert {row.holds_float32 for row in rows} == {True, False}
    print_table(rows)
    printed = capsys.readouterr().out
    assert "B7" in printed
    assert count(rows) in printed
    document = json.loads(as_json(rows))
    assert document["statements"][0]["holds"] is True
    assert document["code"].startswith("0.")


def test_infinite_numbers_stay_valid_json():
    row = Row(agrees("X", "", predicted=1.0, measured=math.inf, tolerance=1.0, **ABOUT))
    assert json.loads(as_json([row]))["statements"][0]["measured"] is None


@pytest.mark.slow
def test_figures_draw_from_measured_data(measured, tmp_path):
    from experiments import EXPERIMENTS, phase_diagram
    from icl_theory.plotting import save_figure

    settings = dataclasses.replace(
        phase_diagram.Settings(),
        ratios=(1.0, 1.5, 2.0, 3.0),
        deltas=(0.0, 0.5, 1.5),
        learning_rate=1e-2,
        duration=150.0,
    )
    import jax

    with jax.enable_x64(True):
        data = measured | {"phase_diagram": phase_diagram.measure(settings, lambda done, total: None)}
    assert set(EXPERIMENTS) == set(data)
    for figure in FIGURES.values():
        save_figure(figure.draw(*[data[name] for name in figure.reads]), tmp_path / figure.name)
        assert (tmp_path / f"{figure.name}.png").stat().st_size > 10_000
        assert (tmp_path / f"{figure.name}.svg").stat().st_size > 10_000
