"""A wrong closed form is caught by its Monte Carlo statement, and by no other."""

import dataclasses

import pytest

from icl_theory.verification import rows_of
from icl_theory.verification.claims import closed_forms


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
