"""The verification table at full size, in files of their own so that they run beside the others; here the first letters."""

import pytest

from icl_theory.verification import CLAIMS, verify


@pytest.mark.slow
def test_the_first_half_of_the_table_holds():
    """Every statement from A to G at full size in float64; H, whose many data sets take a minute, is in `make reproduce`."""
    rows = verify([claim for claim in CLAIMS if claim.letter < "H"], float32=False)
    assert len(rows) >= 80
    assert [row.statement.id for row in rows if not row.holds] == []
