"""The verification table: claims, one letter each, simulated and held against their theory.

`verify` runs them all; the table can also be read off data saved earlier (`Claim.statements`).
"""

from icl_theory.verification.claim import Claim, Data
from icl_theory.verification.runner import CLAIMS, Row, combine, measure_claim, verify
from icl_theory.verification.statement import Statement

__all__ = ["CLAIMS", "Claim", "Data", "Row", "Statement", "combine", "measure_claim", "verify"]
