"""The verification table at full size, in a file of its own so that it runs beside the others."""

import pytest

from icl_theory.verification import CLAIMS, verify


@pytest.mark.slow
def test_the_whole_table_holds():
    """Every statement at full size in float64 but those of H, whose many data sets take a minute (`make reproduce`)."""
    rows = verify([claim for claim in CLAIMS if claim.letter != "H"], float32=False)
    assert len(rows) >= 80
    assert [row.statement.id for row in rows if not row.holds] == []
