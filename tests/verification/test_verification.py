"""The table can fail, refers to objects and figures that exist, and holds."""

import dataclasses
import json
import math
import pkgutil
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from figures import FIGURES
from icl_theory.theory.hitting_time import hitting_time
from icl_theory.verification import NAMES, Reading, Row, Statements, all_claims, load_claim, rows_of, verify
from icl_theory.verification.changes import Change
from icl_theory.verification.claims import closed_forms, generalisation, phase_diagram
from icl_theory.verification.table import as_json, count, print_table

ROOT = Path(__file__).parents[2]
NO_DATA = xr.Dataset()

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


def test_precision_is_restored_after_a_claim():
    before = jax.config.jax_enable_x64
    load_claim("fixed_points").data("float32" if before else "float64")
    assert jax.config.jax_enable_x64 == before


@pytest.fixture(scope="module")
def measured(optimised):
    """Data of all claims in float64."""
    claims = [dataclasses.replace(c, settings=SMALLER[c.name]) if c.name in SMALLER else c for c in all_claims()]
    return {claim.name: claim.data() for claim in claims}


@pytest.fixture(scope="module")
def rows(measured):
    """All statements, read off these data."""
    return [row for claim in all_claims() for row in rows_of(claim, measured[claim.name])]


@pytest.mark.slow
def test_the_table_holds(rows):
    """Every statement but those on generalisation, at full size."""
    full = [row for row in rows if not row.statement.name.startswith("generalisation/")]
    assert len(full) == sum(len(c.statements.entries) for c in all_claims() if c.name != "generalisation")
    assert [row.statement.name for row in full if not row.holds] == []


@pytest.mark.slow
def test_statements_name_objects_and_figures_that_exist(rows):
    assert len({row.statement.name for row in rows}) == len(rows)
    for row in rows:
        assert pkgutil.resolve_name(row.statement.predictor), row.statement.predictor
        assert row.statement.figure == "" or row.statement.figure in FIGURES
        assert row.statement.source
        assert np.isfinite(row.statement.tolerance)


@pytest.mark.slow
def test_every_variable_says_its_meaning_and_unit(measured):
    for name, data in measured.items():
        for variable, values in data.data_vars.items():
            assert values.attrs["long_name"], f"{name}: {variable}"
        assert all(values.attrs["units"] for values in data.variables.values()), name


def test_names_of_claims_are_those_of_their_modules():
    assert [claim.name for claim in all_claims()] == list(NAMES)
    for claim in all_claims():
        assert claim.takes
        assert claim.statements.group == claim.name


def test_the_changelog_has_the_old_and_the_new_name_of_every_statement():
    table = dict(re.findall(r"^\| ([A-P]\d+) \| `([\w/]+)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE))
    assert len(table) == len(set(table.values())) == 157
    assert set(table.values()) <= {name for claim in all_claims() for name in claim.statements.names}


def failing(claim):
    """Names of the statements that do not hold, without their group."""
    return {row.statement.name.partition("/")[2] for row in rows_of(claim, claim.data()) if not row.holds}


def with_few_prompts():
    settings = closed_forms.Settings(num_chunks=4, num_prompts=80_000)
    return dataclasses.replace(closed_forms.CLAIM, settings=settings)


def test_a_wrong_formula_is_caught(monkeypatch):
    """Break B = E[ββᵀ] by one part in ten: Monte Carlo says so."""
    right = closed_forms.beta_second_moment
    monkeypatch.setattr(closed_forms, "beta_second_moment", lambda group: 1.1 * right(group))
    assert failing(with_few_prompts()) == {"second_moment_equals_its_monte_carlo_mean"}


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
    assert failing(with_few_prompts()) == {"full_loss_equals_its_monte_carlo_mean"}


@pytest.mark.parametrize("mutant", ["one_token_more", "term_dropped"])
def test_a_wrong_term_in_one_over_n_is_caught(mutant, monkeypatch):
    """Count the query as context, or drop ΛSΛ/N: at full size every Monte Carlo statement it touches fails."""
    right = closed_forms.beta_second_moment

    def wrong(task):
        if mutant == "one_token_more":
            return right(task._replace(num_context=task.num_context + 1))
        return right(task) - task.covariance @ task.task_second_moment @ task.covariance / task.num_context

    monkeypatch.setattr(closed_forms, "beta_second_moment", wrong)
    assert "second_moment_equals_its_monte_carlo_mean" in failing(with_few_prompts())


def never(values):
    return xr.full_like(values, np.inf)


def unknown(values):
    return xr.full_like(values, np.nan)


def nothing_learned(data):
    """Runs from random starts that never learn a feature; of aligned starts nothing changes."""
    changed = {}
    for name, values in data.items():
        if name.startswith("aligned"):
            continue
        if name.endswith("learning_time"):
            changed[name] = never(values)
        elif name.endswith(("rank_agreement", "learning_time_ratio", "progress")):
            changed[name] = unknown(values)
    return changed


def drives_alone(data):
    """No brake on the values of softmax attention, a feature for each head, and merged heads that are balanced."""
    times, merged = data.predicted_softmax_learning_time, data.predicted_merged_learning_time
    linear = times.sel(scores="linear").values
    softmax = linear * (1.0 + 1.0 / data.context.values[:, None, None]) ** 2
    return {
        "predicted_softmax_learning_time": times.copy(data=np.stack([softmax, linear], axis=1)),
        "most_held": xr.ones_like(data.most_held),
        "predicted_merged_learning_time": merged.copy(data=np.repeat(merged.values[:, :1], 2, axis=1)),
    }


# Each claim's data without the effect, and the statements that must then fail.
NO_EFFECT = {
    "never learned from random starts": (
        "random_initialisation",
        nothing_learned,
        "learned_in_the_order_of_their_drives still_simple_first_from_a_larger_start",
    ),
    "never learned under SAM": (
        "sam_simplicity_bias",
        nothing_learned,
        "medians_agree_with_the_notes_rho_0 sam_lowers_learning_time_ratios slow_features_are_further_on "
        "merged_bias_does_not_fall merged_bias_hardly_changes",
    ),
    "nothing learned, any rank": (
        "low_rank",
        lambda data: {"learning_time": never(data.learning_time)},
        "full_heads_wait_longer_at_rank_2 full_heads_wait_longer_at_rank_4 higher_ranks_learn_the_sixth_sooner "
        "higher_ranks_lower_simplicity_bias",
    ),
    "rank does not matter": (
        "low_rank",
        lambda data: {"learning_time": data.learning_time.sel(rank=8).broadcast_like(data.learning_time)},
        "full_heads_wait_longer_at_rank_2 full_heads_wait_longer_at_rank_4 higher_ranks_learn_the_sixth_sooner "
        "higher_ranks_lower_simplicity_bias",
    ),
    "lengths do not matter": (
        "context_lengths",
        lambda data: {"difference": 0 * data.difference},
        "training_lengths_change_the_loss_on_short_contexts training_lengths_change_the_loss_on_long_contexts",
    ),
    "losses only fall": (
        "in_weight_learning",
        lambda data: {"test_loss": data.test_loss.copy(data=np.minimum.accumulate(data.test_loss.values, axis=-1))},
        "in_context_learning_is_best_midway weights_know_the_fixed_task_midway",
    ),
    "no share of any feature": (
        "softmax",
        nothing_learned,
        "simple_features_come_first_gd simple_features_come_first_sam sam_lowers_learning_time_ratios",
    ),
    "nothing learned beyond rank one": (
        "random_starts_beyond",
        nothing_learned,
        "softmax_is_slower_by_the_brake softmax_comes_to_linear_attention cascade_predicts_first_features_at_rank_2 "
        "cascade_predicts_first_features_at_rank_4 cascade_predicts_all_features_at_rank_2 "
        "cascade_predicts_all_features_at_rank_4 error_of_the_balanced_head_falls_with_the_scale "
        "error_of_the_effective_head_falls_faster effective_head_is_nearer",
    ),
    "drives alone beyond rank one": (
        "random_starts_beyond",
        drives_alone,
        "softmax_is_slower_by_the_brake one_head_takes_as_many_features_as_its_rank_2 "
        "one_head_takes_as_many_features_as_its_rank_4 error_of_the_effective_head_falls_faster "
        "effective_head_is_nearer",
    ),
    "no heads on features": (
        "weights",
        lambda data: {"head_share": xr.full_like(data.head_share, 0.5)},
        "heads_end_on_one_feature",
    ),
    "32 features never learned": (
        "many_features",
        lambda data: {
            name: never(values) if name.endswith("learning_time") else unknown(values)
            for name, values in data.items()
            if not name.startswith("predicted") and name not in ("drive", "time")
        },
        "gd_learns_when_the_map_says sam_learns_when_the_map_says sam_lowers_aligned_learning_time_ratios "
        "order_of_learning_follows_drives_gd order_of_learning_follows_drives_sam sam_lowers_learning_time_ratios "
        "learning_times_go_as_inverse_drives",
    ),
    "upsampling does nothing": (
        "adaptive_optimizers",
        lambda data: {
            name: data[name].isel({factor: 0}, drop=True).broadcast_like(data[name])
            for name, factor in (("learning_time", "factor"), ("row_time", "row_factor"), ("plane_time", "end"))
        },
        "gradient_descent_has_one_law_at_all_batch_sizes sign_descent_moves_when_a_batch_has_an_example "
        "adam_in_batches_follows_the_map_often adam_in_batches_follows_the_map_seldom adam_has_the_exponent_of_the_map "
        "adam_has_the_exponent_of_the_map_at_other_shares "
        "muon_in_batches_follows_the_map muon_feels_upsampling_in_small_batches "
        "signal_and_noise_of_examples_predict_adam weights_in_sampling_act",
    ),
    "upsampling acts in full batches, and the loss's weights do": (
        "adaptive_optimizers",
        lambda data: {
            **{
                name: data[name] * (1.0 + (data.feature == 2) / data.full_odds**0.5)
                for name in ("adam_time", "sign_time", "muon_time")
            },
            "row_time": data.row_time.sel(weighting="sampling", drop=True).broadcast_like(data.row_time),
            "short_learning_time": data.root_learning_time.broadcast_like(data.short_learning_time),
        },
        "sign_descent_learns_at_the_closed_form adam_follows_the_reduced_map muon_follows_the_reduced_map "
        "upsampling_does_nothing_in_full_batches_adam upsampling_does_nothing_in_full_batches_sign "
        "upsampling_does_nothing_in_full_batches_muon weights_in_the_loss_do_nothing "
        "adam_with_a_short_memory_follows_its_law law_without_memory_is_too_low",
    ),
    "plain least squares": (
        "principal_components",
        lambda data: {"difference": data.difference.isel(regression=1).broadcast_like(data.difference)},
        "predictions_are_those_of_the_fixed_point",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", NO_EFFECT)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_statements_fail_without_their_effect(measured, case):
    name, change, names = NO_EFFECT[case]
    data = measured[name]
    statements = load_claim(name).statements.read(
        data.assign({key: values.transpose(*data[key].dims) for key, values in change(data).items()})
    )
    assert {f"{name}/{short}" for short in names.split()} <= {s.name for s in statements if not s.holds}


def test_verify_reports_both_precisions(capsys):
    rows = verify([load_claim("fixed_points")], float32=True)
    assert all(row.holds for row in rows)
    assert {row.holds_float32 for row in rows} == {True, False}
    print_table(rows)
    printed = capsys.readouterr().out
    assert "merged_gradient_vanishes_nowhere_else" in printed
    assert count(rows) in printed
    document = json.loads(as_json(rows))
    assert document["statements"][0]["holds"] is True
    assert document["code"].startswith("0.")


def test_infinite_numbers_stay_valid_json():
    row = Row(judged("agrees", (1.0, math.inf), rtol=1.0))
    assert json.loads(as_json([row]))["statements"][0]["measured"] is None


@pytest.mark.slow
def test_figures_draw_from_measured_data(measured, tmp_path):
    from icl_theory.plotting import save_figure

    for figure in FIGURES.values():
        save_figure(figure.draw(*[measured[name] for name in figure.reads]), tmp_path / figure.name)
        assert (tmp_path / f"{figure.name}.png").stat().st_size > 10_000
        assert (tmp_path / f"{figure.name}.svg").stat().st_size > 10_000
