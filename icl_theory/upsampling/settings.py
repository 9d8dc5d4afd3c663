"""Settings of the upsampling rule, and their checks."""

from __future__ import annotations

from typing import Any

from icl_theory.errors import InputError, check_choice, check_number
from icl_theory.upsampling import GROUPS

RULES = ("ratio", "excess", "match", "secant")


LATE = {"quantile": 0.5, "threshold": 0.5, "clusters": 0.0}  # ways to find the late, and default settings


MAX_FACTOR = 5.0  # keeps an epoch short; no theory behind it


def check_settings(
    *, late: str = "quantile", remaining: float = 0.5, floor: Any = "zero", group: str = "late", **factor_settings: Any
) -> None:
    """Raise `InputError` for settings that `upsample` would refuse for any record."""
    method, _ = parse_late(late)
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
    if method not in LATE or (equals and method == "clusters"):
        raise InputError("late", text, "give quantile=Q, threshold=S or clusters")
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
