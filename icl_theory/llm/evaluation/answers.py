"""Grading of replies by `math-verify`: numbers and formulas are compared by value."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from math_verify import parse, verify
from scipy.stats import binomtest

MARK = "####"  # before the answer, in grade-school sets
SECONDS = 5  # for one formula


class Evaluation(NamedTuple):
    """Attributes: right, (Q,) whether each reply was; replies, the texts; cut, (Q,) whether each was cut off."""

    right: np.ndarray
    replies: list[str]
    cut: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of right replies."""
        return float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy over problems, Wilson's."""
        found = binomtest(int(self.right.sum()), len(self.right)).proportion_ci(0.95, "wilson")
        return float(found.low), float(found.high)


def answer_in(completion: str) -> str:
    """Return the answer in a completion: the text after its last `####`, else all of it.

    Examples:
        >>> answer_in("She sold 3 + 4 = 7. #### 7")
        '7'
    """
    return completion.rsplit(MARK, 1)[-1].strip()


def is_right(reply: str, completion: str) -> bool:
    """True where the last number or formula of a reply means the answer; or, if that is neither, where it is the same
    text.

    Examples:
        >>> is_right("So the sum is 12.", "12"), is_right("It is 1/2", "0.5"), is_right("13", "12")
        (True, True, False)
    """
    seconds = SECONDS if threading.current_thread() is threading.main_thread() else None  # its clock is a signal
    expected = parse(answer_in(completion), parsing_timeout=seconds)
    if not expected:
        return answer_in(reply).casefold() == answer_in(completion).casefold()
    found = parse(answer_in(reply), parsing_timeout=seconds)
    return bool(verify(expected, found, timeout_seconds=seconds))


def judge(replies: Sequence[str], completions: Sequence[str], cut: Sequence[bool]) -> Evaluation:
    """Each reply against the completion that the data give."""
    right = [is_right(reply, completion) for reply, completion in zip(replies, completions, strict=True)]
    return Evaluation(np.array(right, bool), list(replies), np.array(cut, bool))
