"""Grading of replies with `math-verify`: numbers and formulas are compared by value, words as text."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from math_verify import parse, verify
from scipy.stats import binomtest

MARK = re.compile(r"####[ \t]*([^\n]*)")  # precedes the answer in grade-school data sets such as GSM8K
SAID = re.compile(r"answer(?: is)?\b:?\s+([^\n]+?)\.?\s*(?:\n|$)", re.IGNORECASE)
ENDS = re.compile(r".*\bis\s+([^\n]+?)\.?\s*$")  # how a sentence ends, for answers in words
CLOCK = re.compile(r"(?<![\d:])(\d{1,2}(?::\d\d){1,2})(?![\d:])")  # a time of day or a duration
CHOSEN = re.compile(r"^\s*(\([A-Za-z]\)|[A-Za-z](?=[.):]))")  # a letter that the reply begins with, as of a list
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")  # not a LaTeX command
MATHEMATICAL = {"sin", "cos", "tan", "ln", "log", "exp", "pi", "sqrt", "or", "and", "mod", "gcd", "lcm", "max", "min"}
DRESS = re.compile(r"\\(?:text|mathrm|textbf|mathbf|textit|operatorname)\s*\{([^{}]*)\}")
SCIENTIFIC = re.compile(r"(?<![\w.])([-+]?\d+(?:\.\d+)?)[eE]([-+]?\d+)(?!\w)")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
SECONDS = 5  # time limit for one formula


class Evaluation(NamedTuple):
    """Graded replies to Q problems.

    Attributes:
        right: (Q,) True for replies that are correct.
        replies: texts of the replies.
        cut: (Q,) True for replies that were cut off at the token limit.
    """

    right: np.ndarray
    replies: list[str]
    cut: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of correct replies."""
        return float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval of the accuracy over problems."""
        found = binomtest(int(self.right.sum()), len(self.right)).proportion_ci(0.95, "wilson")
        return float(found.low), float(found.high)


def answer_in(text: str) -> str:
    """Return the answer in a text: what follows `####`, else the content of the last `\\boxed{}`, else the whole text.

    A `####` that only starts a heading is ignored: a formula has to follow it, or it has to be the last line of a text
    without `\\boxed{}`.

    Examples:
        >>> answer_in("She sold 3 + 4 = 7. #### 7")
        '7'
        >>> answer_in("So it is \\\\boxed{18}. #### Check: 9 + 9 is that.")
        '18'
    """
    boxed = _last_boxed(text)
    for found in reversed(list(MARK.finditer(text))):
        answer = found[1].strip()
        ends = not text[found.end() :].strip()
        if answer and (_is_formula(answer) or (ends and boxed is None)):
            return answer
    return text.strip() if boxed is None else boxed


def is_right(reply: str, reference: str) -> bool:
    """Return whether a reply gives the same answer as the reference.

    A reference that consists of one formula (a number, a tuple, an interval, a set, LaTeX without dollars) is
    compared by value. A time such as `6:09` or `00:34:28` is compared with the last time in the reply, number by
    number. A letter or words are compared as text, with what follows "answer is" or "answer:"; words also with how
    the reply ends after "is", a letter with the one that the reply begins with (`B. Paris`). In a longer text, the
    last number or formula counts. The answer of a reply is what is marked or boxed, else the whole reply if it is a
    formula, else its last formula.

    Examples:
        >>> is_right("So the sum is 12.", "12"), is_right("It is 1/2", "0.5"), is_right("13", "12")
        (True, True, False)
        >>> is_right("\\\\boxed{11}", "11\\\\sqrt2"), is_right("\\\\boxed{11\\\\sqrt{2}}", "11\\\\sqrt2")
        (False, True)
    """
    wanted, said = answer_in(_plain(reference)), answer_in(_plain(reply))
    if _undressed(said) == _undressed(wanted):
        return bool(_undressed(wanted))
    if CLOCK.fullmatch(wanted):
        times = CLOCK.findall(said)
        return bool(times) and _numbers(times[-1]) == _numbers(wanted)
    if (not _is_formula(wanted) and _must_be_whole(wanted)) or _is_letter(wanted):
        found = SAID.findall(said) or (CHOSEN if _is_letter(wanted) else ENDS).findall(said)
        return any(_undressed(one) == _undressed(wanted) for one in found)
    seconds = SECONDS if threading.current_thread() is threading.main_thread() else None  # needs signals
    expected, found = _parsed(wanted, seconds), _parsed(said, seconds)
    return bool(expected) and bool(verify(expected, found, timeout_seconds=seconds))


def judge(replies: Sequence[str], references: Sequence[str], cut: Sequence[bool]) -> Evaluation:
    """Compare each reply with its reference answer."""
    right = [is_right(reply, reference) for reply, reference in zip(replies, references, strict=True)]
    return Evaluation(np.array(right, bool), list(replies), np.array(cut, bool))


def _plain(text: str) -> str:
    """Return what is said after any thoughts, with ASCII minus signs, powers of ten written out and no money signs."""
    said = text.rpartition("</think>")[2].replace("\u2212", "-").replace("\\$", "")
    return SCIENTIFIC.sub(r"\1 \\cdot 10^{\2}", said)


def _parsed(text: str, seconds: int | None) -> list[Any]:
    return parse(f"${text.strip().strip('$')}$" if _is_formula(text) else text, parsing_timeout=seconds)


def _is_formula(text: str) -> bool:
    """Return whether the whole text is one formula or number, with no words around it."""
    bare = DRESS.sub(" ", text).strip().strip("$").strip()
    if not bare or "$" in bare or "\n" in bare or "\\boxed" in bare or bare.endswith((".", "!", "?")):
        return False
    return all(word.lower() in MATHEMATICAL for word in WORD.findall(bare))


def _must_be_whole(text: str) -> bool:
    """Return whether an answer is words, or a short text with several numbers, of which one number is only a part."""
    if any(sign in DRESS.sub(r"\1", text) for sign in "=$\\"):  # a formula stands in it
        return False
    numbers = NUMBER.findall(text)
    return not numbers or (len(numbers) > 1 and len(text.split()) <= 8)


def _numbers(time: str) -> list[int]:
    return [int(part) for part in time.split(":")]


def _is_letter(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z]", _undressed(text)))


def _undressed(text: str) -> str:
    """Return a text for comparison: no dollars, font commands or brackets around a letter, lower case."""
    text = " ".join(DRESS.sub(r"\1", text).replace("$", " ").replace("**", "").split()).rstrip(".").strip()
    return re.sub(r"^\(([A-Za-z])\)$", r"\1", text).casefold()


def _last_boxed(text: str) -> str | None:
    """Return the content of the last `\\boxed{}`, inner braces included; None if there is none or it is not closed."""
    begin = text.rfind("\\boxed{")
    depth = 0
    for place in range(begin + len("\\boxed"), len(text)) if begin >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin + len("\\boxed{") : place].strip()
    return None
