"""The fields of a row of a fine-tuning set that hold what is asked and what is answered, in the usual formats."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from icl_theory.errors import InputError

PAIRS = (  # fields asked, fields answered; of several that a row has, the first counts
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "response"),
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("problem", "solution"),
    ("problem", "answer"),
    ("query", "response"),
    ("input", "output"),
)
CONTEXTS = ("input", "context")  # what an `instruction` is about
SYSTEMS = ("system", "system_prompt")
KNOWN = "instruction/output, question/answer, prompt/completion, problem/solution, messages or text"


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields to read in place of those of the usual formats.

    Attributes:
        prompt: The field that holds what is asked: a text, or a list of turns.
        completion: The field that holds what is answered. Without `prompt`, it is a text that is learned whole.
        answer: The field that holds the answer that replies are judged by.
        system: The field that holds the system prompt.
    """

    prompt: str | None = None
    completion: str | None = None
    answer: str | None = None
    system: str | None = None


USUAL = Fields()


class Pair(NamedTuple):
    """What a row asks and answers.

    Attributes:
        asked: A text, or a list of turns.
        answered: A text or a list of turns; None if the turns of `asked` hold the answer.
        used: The fields that were read.
    """

    asked: Any
    answered: Any
    used: tuple[str, ...]


def pair_of(row: Mapping[str, Any], fields: Fields = USUAL) -> Pair | None:
    """Return what a row asks and answers, or None if its fields match no known format.

    Raises:
        InputError: A field of `fields` is missing, or a field that should hold a text does not.
    """
    if fields.prompt is not None:
        asked = required(row, fields.prompt)
        if fields.completion is not None:
            return Pair(asked, required(row, fields.completion), (fields.prompt, fields.completion))
        if not is_turns(asked):
            raise InputError(fields.prompt, "a text", "name the field of its answer too (--completion-field)")
        return Pair(asked, None, (fields.prompt,))
    if fields.completion is not None:
        return None
    for name in ("messages", "conversations", "conversation"):
        if is_turns(row.get(name)):
            return Pair(row[name], None, (name,))
    for asks, answers in PAIRS:
        if asks in row and answers in row:
            about = next((name for name in CONTEXTS if asks == "instruction" and row.get(name)), None)
            if about is None:
                return Pair(row[asks], row[answers], (asks, answers))
            texts = [text for text in (as_text(row[asks], asks), as_text(row[about], about)) if text]
            return Pair("\n".join(texts), row[answers], (asks, about, answers))
    return None


def whole_of(row: Mapping[str, Any], fields: Fields = USUAL) -> tuple[str, str] | None:
    """Return the name and the text of the field of a row that is a single text; None if the row is none.

    Raises:
        InputError: The field of `fields` is missing, or it holds no text.
    """
    if fields.prompt is None and fields.completion is not None:
        return fields.completion, as_text(required(row, fields.completion), fields.completion)
    if pair_of(row, fields) is None and "text" in row:
        return "text", as_text(row["text"], "text")
    return None


def required(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field.

    Raises:
        InputError: The row does not have the field.
    """
    if name not in row:
        raise InputError(name, "missing", f"the row has {', '.join(map(str, row))}; name one of these")
    return row[name]


def is_turns(value: Any) -> bool:
    """Return whether a value is a list of turns: mappings, some of which name who speaks."""
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        return False
    return any(turn.get(key) for turn in value for key in ("role", "from"))


def as_text(value: Any, field: str = "text") -> str:
    """Return the value of a field as text.

    It may be a text, a number, None (empty), or a list of parts `{"type": "text", "text": ...}`.

    Raises:
        InputError: It is another list or a mapping.
    """
    if isinstance(value, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value
    ):
        return "".join(part["text"] for part in value)
    if isinstance(value, list | Mapping):
        raise InputError(field, value, "give a text, or a list of parts that have one")
    return "" if value is None else str(value)
