"""The fields of a row of a fine-tuning set that hold what is asked and what is answered, in the usual formats."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from icl_theory.errors import InputError

PAIRS = (  # fields asked, fields answered; of several that a row has, the first with an answer counts
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
    ("prompt", "answer"),
    ("query", "answer"),
)
TURNS = ("messages", "conversations", "conversation")
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


def as_fields(given: Any) -> Fields:
    """Return `Fields`, or those that a mapping such as `{"prompt": "ask", "completion": "say"}` names.

    Raises:
        InputError: It is anything else, or it names others than the attributes of `Fields`.
    """
    if isinstance(given, Fields):
        return given
    known = [field.name for field in dataclasses.fields(Fields)]
    if isinstance(given, Mapping) and all(name in known and isinstance(given[name], str) for name in given):
        return Fields(**given)
    raise InputError("fields", given, f"give a mapping from some of {', '.join(known)} to names of fields of your rows")


class NothingToLearn(InputError):
    """A row has nothing to learn."""

    def __init__(self, field: str):
        super().__init__(field, "empty", "there is nothing to learn; leave the row out")


class Pair(NamedTuple):
    """Question and answer of a row, as its fields hold them.

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
        InputError: A field of `fields` is missing, or a field has not the form that it should.
    """
    if fields.prompt is not None:
        asked = parsed_turns(required(row, fields.prompt))
        if fields.completion is not None:
            return Pair(asked, required(row, fields.completion), (fields.prompt, fields.completion))
        if is_turns(asked):
            return Pair(asked, None, (fields.prompt,))
        raise no_turns(fields.prompt, asked, "or name the field of its answer too (--completion-field)")
    if fields.completion is not None:
        return None
    turns = {name: parsed_turns(row[name]) for name in TURNS if has(row, name)}
    for name, value in turns.items():
        if is_turns(value):
            return Pair(value, None, (name,))
    pairs = [pair for pair in PAIRS if pair[0] in row and pair[1] in row]
    answered = [pair for pair in pairs if has(row, pair[1])]
    if pairs and (answered or not has(row, "text")):
        return _pair(row, *(answered or pairs)[0])
    if has(row, "text"):
        return None
    if turns:
        raise no_turns(*next(iter(turns.items())))
    for name in TURNS:
        if row.get(name) == []:
            raise NothingToLearn(name)
    return None


def whole_of(row: Mapping[str, Any], fields: Fields = USUAL) -> tuple[str, str] | None:
    """Return the name and the text of the field of a row that is a single text; None if the row is none.

    Raises:
        InputError: The field of `fields` is missing, or it holds no text.
    """
    if fields.prompt is None and fields.completion is not None:
        return fields.completion, as_text(required(row, fields.completion), fields.completion)
    if "text" in row and pair_of(row, fields) is None:
        return "text", as_text(row["text"], "text")
    return None


def has(row: Mapping[str, Any], name: str) -> bool:
    """Return whether a field of a row says something: it is there, and neither None, NaN nor empty."""
    value = row.get(name)
    if isinstance(value, str | list | Mapping):
        return bool(value.strip() if isinstance(value, str) else value)
    return value is not None and value == value  # NaN stands for a missing value in tables


def required(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field.

    Raises:
        InputError: The row does not have the field.
    """
    if name not in row:
        raise InputError(name, "missing", f"the row has {names_in(row)}; name one of these")
    return row[name]


def names_in(row: Iterable[Any]) -> str:
    """Return the names of fields as text; those that are empty or have space around them stand in quotes."""
    return ", ".join(name if name and name == name.strip() else repr(name) for name in map(str, row))


def is_turns(value: Any) -> bool:
    """Return whether a value is a list of turns: mappings, some of which name who speaks."""
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        return False
    return any(turn.get(key) for turn in value for key in ("role", "from"))


def parsed_turns(value: Any) -> Any:
    """Return the list that a text holds as JSON, as tables of text have it; anything else unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith("[{"):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        return value
    return found if is_turns(found) else value


def no_turns(name: str, value: Any, more: str = "") -> InputError:
    """Return the error for a field that should hold turns and does not."""
    remedy = "give a list of turns, each with role and content"
    return InputError(name, value, f"{remedy}, {more}" if more else remedy)


def as_text(value: Any, field: str = "text") -> str:
    """Return the value of a field as text.

    It may be a text, a number, None or NaN (empty), or a list of parts `{"type": "text", "text": ...}`.

    Raises:
        InputError: It is another list or a mapping.
    """
    if isinstance(value, list) and all(_is_text_part(part) for part in value):
        return "".join(part["text"] for part in value)
    if isinstance(value, list | Mapping):
        raise InputError(field, value, "give a text, or a list of parts that have one")
    return "" if value is None or value != value else str(value)


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)


def _pair(row: Mapping[str, Any], asks: str, answers: str) -> Pair:
    """Return the pair of two fields; an instruction is followed by what it is about."""
    asked = parsed_turns(row[asks])
    about = next((name for name in CONTEXTS if asks == "instruction" and has(row, name)), None)
    if about is None or is_turns(asked):
        return Pair(asked, row[answers], (asks, answers))
    texts = [text for text in (as_text(asked, asks), as_text(row[about], about)) if text]
    return Pair("\n".join(texts), row[answers], (asks, about, answers))
