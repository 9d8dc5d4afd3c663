"""The verification table at full size, in a file of its own so that it runs beside the others."""

import pytest

from icl_theory.verification import verify


@pytest.mark.slow
def test_the_whole_table_holds():
    """Every statement at full size in float64; one to two minutes."""
    rows = verify(float32=False)
    assert len(rows) >= 20
    assert [row.statement.id for row in rows if not row.holds] == []
