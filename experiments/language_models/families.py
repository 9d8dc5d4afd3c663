"""Eleven families of mathematical problems with three levels each, as generators of reasoning-gym and their settings.

Families have unequal shares, as the sources of real sets have. Prompts are short; stories are answered by their worked
solution, all others by the result alone.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Entry = Mapping[str, Any]
Asking = Callable[[Entry], tuple[str, str, str] | None]
LEVEL_SHARES = (0.5, 0.3, 0.2)


class Family(NamedTuple):
    """A family of problems.

    Attributes:
        share: its share of the mixture.
        ask: function from a drawn entry to prompt, completion and answer, or one for each level; None leaves the entry
            out.
        levels: generator of each level, with its settings.
        ordered: whether the order of terms matters.
    """

    share: float
    ask: Asking | tuple[Asking, ...]
    levels: tuple[tuple[str, dict[str, Any]], ...]
    ordered: bool = True


def _expression(entry: Entry) -> tuple[str, str, str]:
    return f"{entry['metadata']['expression']} =", entry["answer"], entry["answer"]


def _chain(entry: Entry) -> tuple[str, str, str]:
    """Ask for sums of products; the answers of the generator are left out, as it works from left to right."""
    text = entry["metadata"]["expression"]
    parts = re.findall(r"([+-]?)([\d*]+)", text.replace(" ", ""))
    answer = str(sum((-1 if sign == "-" else 1) * math.prod(map(int, part.split("*"))) for sign, part in parts))
    return f"{text} =", answer, answer


def _function(name: str) -> Asking:
    def ask(entry: Entry) -> tuple[str, str, str]:
        numbers = ", ".join(map(str, entry["metadata"]["numbers"]))
        return f"{name}({numbers}) =", entry["answer"], entry["answer"]

    return ask


def _fraction(entry: Entry) -> tuple[str, str, str]:
    found = entry["metadata"]
    return f"simplify {found['numerator']}/{found['denominator']} =", entry["answer"], entry["answer"]


def _equation(entry: Entry) -> tuple[str, str, str] | None:
    found = entry["metadata"]
    text = found["equation"] if "equation" in found else f"{found['polynomial_expr']} = 0"
    text = re.sub(rf"\b{found['variable']}\b", "x", text)
    return (f"{text}, x =", entry["answer"], entry["answer"]) if "x" in text and entry["answer"] else None


def _duration(entry: Entry) -> tuple[str, str, str]:
    """Ask for whole minutes or seconds: a clock time is no number that a grader could compare."""
    found = entry["metadata"]
    begin, end = (datetime.datetime.fromisoformat(found[name]) for name in ("start_time", "end_time"))
    seconds = int((end - begin).total_seconds())
    unit, form, answer = ("seconds", "%H:%M:%S", seconds)
    if found["task_type"] == "time":
        unit, form, answer = ("minutes", "%H:%M", seconds // 60)
    return f"{begin:{form}} to {end:{form}}, {unit} =", str(answer), str(answer)


def _sequence(entry: Entry) -> tuple[str, str, str]:
    return entry["question"], entry["answer"], entry["answer"]


def _story(fewest: int, most: int) -> Asking:
    """Return a function that takes stories whose worked solution has `fewest` to `most` equations."""

    def ask(entry: Entry) -> tuple[str, str, str] | None:
        solution = entry["metadata"]["answer_cot"]
        prompt = entry["question"].partition(" Give the result as your final answer.")[0]
        return (prompt, solution, entry["answer"]) if fewest <= solution.count("=") <= most else None

    return ask


def _levels(generator: str, *levels: dict[str, Any]) -> tuple[tuple[str, dict[str, Any]], ...]:
    return tuple((generator, level) for level in levels)


def _range(**bounds: Any) -> dict[str, Any]:
    """Return settings `min_NAME` and `max_NAME` of a generator for each NAME=(least, most)."""
    return {
        f"{end}_{name}": value for name, pair in bounds.items() for end, value in zip(("min", "max"), pair, strict=True)
    }


FAMILIES = {
    "sums": Family(
        0.20,
        _expression,
        _levels(
            "chain_sum",
            _range(terms=(2, 2), digits=(2, 2)),
            _range(terms=(3, 3), digits=(2, 2)),
            _range(terms=(2, 2), digits=(3, 3)),
        ),
        ordered=False,
    ),
    "products": Family(
        0.14,
        (_chain, _expression, _expression),
        (
            (
                "basic_arithmetic",
                _range(terms=(3, 4), digits=(1, 1))
                | {"operators": ("+", "-", "*"), "allow_parentheses": False, "allow_negation": False},
            ),
            *_levels("products", _range(terms=(2, 2), digits=(1, 2)), _range(terms=(2, 2), digits=(2, 2))),
        ),
        ordered=False,
    ),
    "stories": Family(0.14, (_story(0, 2), _story(3, 3), _story(4, 99)), (("gsm_symbolic", {}),) * 3),
    "equations": Family(
        0.12,
        _equation,
        _levels(
            "simple_equations",
            _range(terms=(2, 2), value=(1, 20)),
            _range(terms=(2, 2), value=(1, 50)),
            _range(terms=(3, 3), value=(1, 50)),
        ),
    ),
    "decimals": Family(
        0.10,
        _expression,
        _levels(
            "decimal_chain_sum",
            _range(terms=(2, 2), digits=(1, 1), decimal_places=(1, 1)),
            _range(terms=(2, 2), digits=(1, 1), decimal_places=(1, 2)),
            _range(terms=(2, 2), digits=(2, 2), decimal_places=(1, 2)),
        ),
        ordered=False,
    ),
    "fractions": Family(
        0.07,
        _fraction,
        _levels(
            "fraction_simplification",
            *(
                _range(value=(1, most), factor=(2, factor)) | {"styles": ("plain",)}
                for most, factor in ((30, 9), (60, 9), (100, 20))
            ),
        ),
    ),
    # with more terms, a rule that squares several times makes numbers of millions of digits
    "sequences": Family(
        0.07, _sequence, _levels("number_sequence", *({"max_complexity": most, "max_terms": 5} for most in (1, 2, 3)))
    ),
    "times": Family(
        0.05,
        _duration,
        _levels(
            "time_intervals",
            {"task_types": ("time",), "max_time_difference_seconds": 3600},
            {"task_types": ("time",), "max_time_difference_seconds": 3 * 3600},
            {"task_types": ("time_seconds",), "max_time_difference_seconds": 600},
        ),
    ),
    "gcd": Family(
        0.05,
        _function("gcd"),
        _levels(
            "gcd",
            _range(numbers=(2, 2), value=(1, 100)),
            _range(numbers=(2, 2), value=(1, 300)),
            _range(numbers=(3, 3), value=(1, 100)),
        ),
        ordered=False,
    ),
    "lcm": Family(
        0.03,
        _function("lcm"),
        _levels(
            "lcm",
            _range(numbers=(2, 2), value=(1, 50)),
            _range(numbers=(2, 2), value=(1, 100)),
            _range(numbers=(3, 3), value=(1, 30)),
        ),
        ordered=False,
    ),
    "polynomials": Family(
        0.03,
        _equation,
        _levels(
            "polynomial_equations",
            _range(degree=(1, 1), terms=(2, 3), value=(1, 30)),
            _range(degree=(2, 2), terms=(2, 2), value=(1, 50)),
            _range(degree=(2, 2), terms=(3, 3), value=(1, 50)),
        ),
    ),
}
PLAIN_FAMILIES = tuple(name for name in FAMILIES if name != "stories")


def kind_name(family: str, level: int) -> str:
    """Return the name of a kind of problems."""
    return f"{family} {level + 1}"


def shares(families: tuple[str, ...]) -> dict[str, float]:
    """Return the share of each kind in the mixture of some families."""
    whole = sum(FAMILIES[family].share for family in families)
    return {
        kind_name(family, level): FAMILIES[family].share / whole * share
        for family in families
        for level, share in enumerate(LEVEL_SHARES)
    }
