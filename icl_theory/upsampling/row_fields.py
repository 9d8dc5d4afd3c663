"""Prompt and completion of a row of a fine-tuning set, in the usual formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from icl_theory.errors import InputError

PAIRS = (  # fields asked, fields answered
    ("instruction", "output"),
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("problem", "solution"),
    ("query", "response"),
    ("input", "output"),
)
TURNS = {"messages": ("role", "content"), "conversations": ("from", "value")}
ANSWERING = ("assistant", "gpt", "model")


class Texts(NamedTuple):
    """Texts of a row.

    Attributes:
        prompt: What is asked.
        completion: What is to be answered.
        whole: True if the row is a single text without a completion.
    """

    prompt: str
    completion: str
    whole: bool = False


def texts_of(row: Mapping[str, Any]) -> Texts | None:
    """Return prompt and completion of a row, or None if its fields match no known format.

    Known are the pairs of `PAIRS` (an `instruction` may have an `input`), `messages` of `role` and `content`,
    `conversations` of `from` and `value`, and a single `text`. A text may be a list of parts
    `{"type": "text", "text": ...}`.

    Examples:
        >>> texts_of({"question": "1 + 1?", "answer": "2"})
        Texts(prompt='1 + 1?', completion='2', whole=False)
        >>> texts_of({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})
        Texts(prompt='Hi', completion='Hello', whole=False)

    Raises:
        InputError: A field that should hold a text does not.
    """
    turns = turns_of(row)
    if turns is not None:
        return _of_turns(turns)
    for asked, answered in PAIRS:
        if asked in row and answered in row:
            more = _text(row.get("input")) if asked == "instruction" else ""
            return Texts("\n".join(part for part in (_text(row[asked]), more) if part), _text(row[answered]))
    return Texts(_text(row["text"]), "", whole=True) if "text" in row else None


def answer_of(row: Mapping[str, Any]) -> str:
    """Return the answer that replies to a row are judged by: its field `answer` if there is one, else its completion.

    Examples:
        >>> answer_of({"problem": "2x = 14. Find x.", "solution": "x = 14/2 = 7, not 12.", "answer": 7})
        '7'

    Raises:
        InputError: A field that should hold a text does not.
    """
    texts = texts_of(row)
    return _text(row.get("answer")) or ("" if texts is None else texts.completion)


def turns_of(row: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    """Return speakers and texts of `messages`, `conversations` or a `prompt` that is a list of turns; else None."""
    for field, (role, content) in TURNS.items():
        if _is_turns(row.get(field)):
            return [(str(turn.get(role, "")), _text(turn.get(content))) for turn in row[field]]
    for answered in ("completion", "response"):
        if _is_turns(row.get("prompt")) and answered in row:
            asked = [(str(turn.get("role", "")), _text(turn.get("content"))) for turn in row["prompt"]]
            return [*asked, ("assistant", _joined(row[answered]))]
    return None


def _of_turns(turns: list[tuple[str, str]]) -> Texts:
    """Split turns into prompt and completion; the last turn is the completion if the model speaks it."""
    answer = turns[-1][1] if turns[-1][0] in ANSWERING else ""
    asked = turns[:-1] if answer else turns
    return Texts("\n".join(text for _, text in asked if text), answer)


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def _joined(value: Any) -> str:
    if not isinstance(value, list):
        return _text(value)
    return "\n".join(_text(turn.get("content")) if isinstance(turn, Mapping) else _text(turn) for turn in value)


def _text(value: Any) -> str:
    if isinstance(value, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value
    ):
        return "".join(part["text"] for part in value)
    if isinstance(value, list | Mapping):
        raise InputError("text", value, "give a text, or a list of parts that have one")
    return "" if value is None else str(value)
