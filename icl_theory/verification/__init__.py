"""The verification table: claims, simulated and compared with their theory.

`verify` runs all claims; `Claim.statements.read` evaluates the statements of a claim on data that were saved earlier.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "claim": ["Claim"],
        "claims": ["all_claims", "load_claim"],
        "names": ["NAMES"],
        "runner": ["Row", "rows_of", "verify"],
        "judging": ["Reading"],
        "statements": ["Statement", "Statements"],
    },
)
