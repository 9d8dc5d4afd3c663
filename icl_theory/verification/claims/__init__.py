"""The claims, one module each; the statements of longer ones are in a second module."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module

from icl_theory.errors import InputError
from icl_theory.verification.claim import Claim
from icl_theory.verification.names import NAMES, nearest


@lru_cache
def load_claim(name: str) -> Claim:
    """Import a claim by its name.

    Raises:
        InputError: there is no such claim; the message suggests similar names.
    """
    if name not in NAMES:
        raise InputError("claim", name, f"no such group of statements; {nearest(name, tuple(NAMES))}")
    return import_module(f"icl_theory.verification.claims.{name}").CLAIM


def all_claims() -> list[Claim]:
    """Import all claims."""
    return [load_claim(name) for name in NAMES]
