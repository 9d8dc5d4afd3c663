"""What of a row of a fine-tuning set is asked and what is to be answered, in the shapes that the field uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

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
    """Attributes: prompt, what is asked; completion, what is to be answered (empty for plain text)."""

    prompt: str
    completion: str


def texts_of(row: Mapping[str, Any]) -> Texts | None:
    """Prompt and completion of a row; None where its fields are none of the known shapes.

    Known are `instruction` (with `input`) and `output`, `question` and `answer`, `prompt` and `completion`, `problem` and
    `solution`, `messages` of `role` and `content`, `conversations` of `from` and `value`, and a lone `text`.

    >>> texts_of({"question": "1 + 1?", "answer": "2"})
    Texts(prompt='1 + 1?', completion='2')
    >>> texts_of({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})
    Texts(prompt='Hi', completion='Hello')
    """
    turns = turns_of(row)
    if turns is not None:
        return _of_turns(turns)
    for asked, answered in PAIRS:
        if asked in row and answered in row:
            if isinstance(row[asked], list) or isinstance(row[answered], list):  # conversational prompt and completion
                return Texts(_joined(row[asked]), _joined(row[answered]))
            more = _text(row.get("input")) if asked == "instruction" else ""
            return Texts("\n".join(part for part in (_text(row[asked]), more) if part), _text(row[answered]))
    return Texts(_text(row["text"]), "") if "text" in row else None


def turns_of(row: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    """Speakers and texts of `messages` or `conversations`; None for a row of another shape."""
    for field, (role, content) in TURNS.items():
        turns = row.get(field)
        if isinstance(turns, list) and turns and all(isinstance(turn, Mapping) for turn in turns):
            return [(str(turn.get(role, "")), _text(turn.get(content))) for turn in turns]
    return None


def _of_turns(turns: list[tuple[str, str]]) -> Texts:
    """The last turn is the completion where the model speaks it."""
    answer = turns[-1][1] if turns[-1][0] in ANSWERING else ""
    asked = turns[:-1] if answer else turns
    return Texts("\n".join(text for _, text in asked if text), answer)


def _joined(value: Any) -> str:
    if not isinstance(value, list):
        return _text(value)
    return "\n".join(_text(turn.get("content")) if isinstance(turn, Mapping) else _text(turn) for turn in value)


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value)
