"""The site's pages are made of the repository's: formulas are set, names of code stay, rows become cards."""

import pytest

from experiments.docs.pages import CARD_ROW, card_of, turned
from experiments.docs.typesetting import latex, typeset


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("w_d* = a_d/c_d", "w_{d}^{*} = a_{d}/c_{d}"),
        ("min{t : x_d > 0}", r"\operatorname{min}\lbrace t : x_{d} > 0\rbrace "),
        ("z³ = fraction of w*", r"z^{3} = \text{fraction of} w^{*}"),
        ("ŷ = βᵀW x_q", r"\hat{y} = β^{T}W x_{q}"),
        ("x ~ N(0, Λ)", r"x \sim  N(0, Λ)"),
    ],
)
def test_formulas_become_latex(written, made):
    assert latex(written) == made


@pytest.mark.parametrize(
    "name", ["tasks/test_tasks.py", "icl.hitting_time", "make reproduce", "--rho", "x_query", "t.py"]
)
def test_names_of_code_stay_code(name):
    assert typeset(f"see `{name}` there") == f"see `{name}` there"


def test_what_is_in_a_block_of_code_is_left():
    assert typeset("```python\nx = `a_d`\n```\n") == "```python\nx = `a_d`\n```\n"
    assert "<math" in typeset("so `a_d = λ_d² γ_d`.")


def test_a_row_of_formulas_becomes_a_card():
    row = "| `u` | what | `tasks.features.find_features` | `dynamics/x` | | `f` |\n"
    card = CARD_ROW.sub(
        card_of, "| formula | what it says | code | statements | test | figure |\n| --- | --- |\n" + row
    )
    assert "`u`<br>what" in card
    assert "[`tasks.features.find_features`][icl_theory.tasks.features.find_features]" in card
    assert "test:" not in card
    assert "---" not in card


def test_links_between_pages_lead_to_the_pages_of_the_site():
    assert turned("[n](NOTES.md#a)", "icl_theory/theory/FORMULAS.md", "theory/formulas.md") == "[n](notes.md#a)"
    assert turned("[n](https://x.org)", "README.md", "index.md") == "[n](https://x.org)"
