"""Settings of the upsampling rule, and their checks."""

from __future__ import annotations

from typing import Any

from icl_theory.errors import InputError, check_choice, check_number
from icl_theory.upsampling import GROUPS

RULES = ("ratio", "excess", "match", "secant")


LATE = {"quantile": 0.5, "threshold": 0.5, "clusters": 0.0, "ratio-clusters": 0.0}  # ways, and default settings


CLUSTERS = ("clusters", "ratio-clusters")


SMALL_SOURCES = ("late", "cluster")


RECIPES = {"vattheuer2025": {"late": "ratio-clusters", "small_sources": "late", "factor": 2.0}}
"""Settings of `upsample` as published. The recipe takes sources too, which are given as `by`."""


MAX_FACTOR = 5.0  # keeps an epoch short; no theory behind it


def check_settings(
    *,
    late: str = "quantile",
    first: int | None = None,
    by: Any = None,
    small_sources: str | None = None,
    remaining: float = 0.5,
    floor: Any = "zero",
    group: str = "late",
    **factor_settings: Any,
) -> None:
    """Raise `InputError` for settings that `upsample` would refuse for any record."""
    method, _ = parse_late(late)
    for name, value in (("first", first), ("by", by), ("small_sources", small_sources)):
        if value is not None and method not in CLUSTERS:
            raise InputError(name, "given", f"late = {method} does not use it; give {' or '.join(CLUSTERS)}")
    if first is not None:
        check_number("first", first, minimum=2, integer=True)
    if small_sources is not None:
        check_choice("small_sources", small_sources, SMALL_SOURCES)
        if by is None:
            raise InputError("small_sources", small_sources, "without sources it does nothing; give by")
    check_number("remaining", remaining, minimum=0.0, maximum=1.0)
    if remaining == 1.0:
        raise InputError("remaining", remaining, "give less than 1, or every example counts as learned at once")
    if isinstance(floor, str):
        check_choice("floor", floor, ("zero", "last"))
        if method == "threshold" and floor == "last":
            raise InputError(
                "floor", floor, "above the last loss nothing is left at the last checkpoint: no threshold parts it"
            )
    check_choice("group", group, GROUPS)
    check_factor_settings(**factor_settings)


def parse_late(text: str) -> tuple[str, float]:
    """Split `"quantile=0.7"` into `("quantile", 0.7)`; without a number, use the default.

    Raises:
        InputError: The method is unknown, or its setting is not a number from 0 to 1.
    """
    method, equals, setting = str(text).partition("=")
    if method not in LATE or (equals and method in CLUSTERS):
        raise InputError("late", text, "give quantile=Q, threshold=S, clusters or ratio-clusters")
    if not equals:
        return method, LATE[method]
    try:
        value = float(setting)
    except ValueError:
        raise InputError("late", text, f"give {method}=NUMBER, such as {method}=0.5") from None
    check_number(f"late: {method}", value, minimum=0.0, maximum=1.0)
    return method, value


def check_factor_settings(*, rule: str = "ratio", factor: float | None = None, **given: Any) -> None:
    """Raise `InputError` for settings that would have no effect, and for rules that lack a setting."""
    check_choice("rule", rule, RULES)
    given = {name: value for name, value in given.items() if value is not None}
    if factor is not None:
        check_number("factor", factor, minimum=1.0)
        if given or rule != "ratio":
            raise InputError("factor", factor, f"with it {next(iter(given), 'rule')} does nothing; give one of them")
        return
    uses = {"ratio": set(), "excess": {"target"}, "match": {"other"}, "secant": {"other", "tried_factor"}}[rule]
    for name in given.keys() - uses - {"max_factor"} - (set() if rule == "match" else {"target"}):
        raise InputError(name, "given", f"the rule {rule} does not use it")
    for name in uses - given.keys():
        raise InputError(name, "none", f"the rule {rule} needs it")
    for name, minimum in (("target", 1.0), ("tried_factor", 1.0), ("max_factor", 1.0)):
        if name in given:
            check_number(name, given[name], minimum=minimum, exclusive=name == "target" and rule == "excess")
