"""The verification table at full size from I on: beyond rank one, linear scores and four features."""

import pytest

from icl_theory.verification import CLAIMS, verify


@pytest.mark.slow
def test_the_second_half_of_the_table_holds():
    """Every statement from I on at full size in float64."""
    rows = verify([claim for claim in CLAIMS if claim.letter > "H"], float32=False)
    assert len(rows) >= 35
    assert [row.statement.id for row in rows if not row.holds] == []
