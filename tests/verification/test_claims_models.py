"""The claims on other models: ranks, softmax, many features, weights."""

from measured_claims import (  # noqa: F401
    measured,
    pytestmark,
    test_every_variable_says_its_meaning_and_unit,
    test_figures_draw_from_measured_data,
    test_statements_fail_without_their_effect,
    test_statements_hold,
)

PART = "models"
