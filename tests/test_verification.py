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
    context_lengths,
    dynamics,
    fixed_points,
    generalisation,
    in_weight_learning,
    low_rank,
    many_features,
    measure_claim,
    principal_components,
    random_initialisation,
    sam_by_data,
    sharpness,
    softmax,
    upsampling,
    verify,
    weights,
)
from icl_theory.verification.sharpness_aligned import AlignedSettings
from icl_theory.verification.statement import agrees, agrees_each, at_least, at_most, within_standard_errors
from icl_theory.verification.table import as_json, count, print_table

ABOUT = {"source": "here", "code": "icl_theory.theory"}

# Small versions of the claims' measurements: every line of code runs, the numbers are too few to judge.
SMALL = {
    "closed_forms": closed_forms.Settings(num_prompts=4000, num_chunks=2),
    "fixed_points": fixed_points.Settings(),
    "dynamics": dynamics.Settings(mlp_steps=200, mlp_prompts=50, duration=60.0),
    "random_initialisation": random_initialisation.Settings(
        num_seeds=8, duration=800.0, small_duration=6000.0, small_init_scale=0.03, num_snapshots=400
    ),
    "sharpness": sharpness.Settings(
        aligned=AlignedSettings(trap_grid=6, trap_duration=60.0), num_seeds=8, duration=400.0, num_snapshots=300
    ),
    "upsampling": upsampling.Settings(
        num_seeds=12,
        factors=(1.0, 2.0),
        early_factors=(2.0,),
        four_duration=300.0,
        two_duration=300.0,
        num_prompts=1500,
        num_sets=6,
        example_duration=800.0,
    ),
    "sam_by_data": sam_by_data.Settings(
        deltas=(0.0, 0.1, 0.3, 0.5), rhos=(0.03, 0.05), num_seeds=16, duration=300.0, num_snapshots=201
    ),
    "generalisation": generalisation.Settings(
        num_prompts=(100, 1000, 5000), noise_stds=(0.0,), num_seeds=2, duration=300.0, num_snapshots=61
    ),
    "low_rank": low_rank.Settings(num_prompts=2000, num_seeds=3, init_scale=0.1, duration=1500.0, num_snapshots=300),
    "context_lengths": context_lengths.Settings(
        num_prompts=2000, num_seeds=4, init_scale=0.05, duration=3000.0, num_snapshots=300
    ),
    "in_weight_learning": in_weight_learning.Settings(
        dim=2, num_heads=3, shares=(0.0, 0.5, 1.0), num_seeds=2, num_steps=20_000, num_snapshots=200, noise_prompts=2000
    ),
    "softmax": softmax.Settings(
        num_prompts=32, num_seeds=3, duration=60.0, num_snapshots=40, asked_prompts=200, drive_prompts=4000
    ),
    "weights": weights.Settings(
        num_steps=400, aligned_starts=2, aligned_steps=1000, picture_scale=0.05, picture_duration=3000.0
    ),
    "many_features": many_features.Settings(dim=17, num_heads=17, num_seeds=2, duration=1500.0, num_snapshots=200),
    "principal_components": principal_components.Settings(
        num_contexts=(31, 63), num_prompts=2000, num_seeds=4, init_scale=0.05, duration=3000.0, num_snapshots=500
    ),
}


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
def measured():
    """Data of all claims at small size, float64."""
    return {claim.name: measure_claim(claim._replace(settings=SMALL[claim.name]), float64=True) for claim in CLAIMS}


def test_statements_name_code_and_figures_that_exist(measured):
    rows = [row for claim in CLAIMS for row in combine(claim, measured[claim.name], None)]
    assert len(rows) >= 20
    assert len({row.statement.id for row in rows}) == len(rows)
    for row in rows:
        assert pkgutil.resolve_name(row.statement.code), row.statement.code
        assert row.statement.figure == "" or row.statement.figure in FIGURES
        assert row.statement.source
        assert np.isfinite(row.statement.tolerance)


def test_the_readme_names_statements_that_exist(measured):
    ids = {row.statement.id for claim in CLAIMS for row in combine(claim, measured[claim.name], None)}
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    named = set(re.findall(r"\b[A-P]\d{1,2}\b", readme))  # an H200 is a device
    for letter, first, last in re.findall(r"\b([A-P])(\d+)–[A-P](\d+)\b", readme):
        named |= {f"{letter}{number}" for number in range(int(first), int(last) + 1)}
    assert len(named) > 20
    assert named <= ids
    assert ids - named == set(), "a statement that the README leads nobody to"


def test_exact_statements_hold_at_small_size_too(measured):
    exact = {
        "A1",
        "A2",
        "A3",
        "A4",
        "A5",
        "A6",
        "A7",
        "A9",
        "B1",
        "B2",
        "B3",
        "B4",
        "B5",
        "B6",
        "B7",
        "C1",
        "C2",
        "C3",
        "C5",
    }
    exact |= {"C7", "C10", "E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8"}
    exact |= {"F1", "F2", "F3", "F4", "G1", "G2", "G3", "G4", "G5", "G6"}
    exact |= {"I2", "J2", "J3", "K1", "K3", "K5", "J6", "L1", "M1", "M2", "M3", "M4", "M5", "M6"}
    rows = {row.statement.id: row for claim in CLAIMS for row in combine(claim, measured[claim.name], None)}
    assert [name for name in sorted(exact) if not rows[name].holds] == []


def test_a_wrong_formula_is_caught(measured, monkeypatch):
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
