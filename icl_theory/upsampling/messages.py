"""One turn of a conversation in the form that chat templates read: role, content, thoughts and calls of tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from icl_theory.errors import InputError
from icl_theory.upsampling.row_fields import as_text, has, names_in

ASSISTANT = "assistant"
ROLES = {  # in data, and in chat templates
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "model", "bot", "ai", "llm", "bing", "bard", "function_call"), ASSISTANT),
    "observation": "tool",
    "function": "tool",
}
SPEAKERS = ("system", "developer", "user", ASSISTANT, "tool")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # keys of a message
READ = ("role", "from", "content", "value", "tool_calls", "function_call", "tool_call_id", "weight", "train", *THOUGHTS)
MARKS = ("weight", "train")
OPEN, CLOSE = "<think>", "</think>"
TOOLS = ("tools", "functions")


def message_of(field: str, turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return a turn with its role in lower case, and with a call of a function in the form of `tool_calls`.

    Raises:
        InputError: It has no role, no text or thoughts of two kinds, or its calls have not the form that they should.
    """
    said = turn.get("role") or turn.get("from")
    if not isinstance(said, str):
        raise InputError(field, names_in(turn), "every turn needs a role (or from)")
    said = said.strip().lower()
    text = as_text(turn["content"] if has(turn, "content") else turn.get("value"), field)
    more = {key: value for key, value in turn.items() if value is not None and key not in ("from", "value", *MARKS)}
    call, calls = more.pop("function_call", None), more.pop("tool_calls", None)
    if said == "function_call":
        call, text = text, ""
    if call and calls:
        raise InputError(field, "tool_calls and function_call", "give the calls in one of them")
    if call or calls:
        listed = [{"function": call}] if call else _list(f"{field}.tool_calls", calls)
        more["tool_calls"] = [_call(field, one) for one in listed]
    message = {**more, "role": ROLES.get(said, said), "content": text}
    _check_thoughts(field, message)
    return message


def mark_of(field: str, turn: Mapping[str, Any]) -> bool | None:
    """Return whether a turn says that it is learned, by `weight` (0 or 1) or `train`; None if it says nothing.

    Raises:
        InputError: It says something else.
    """
    marks = {key: turn[key] for key in MARKS if turn.get(key) is not None}
    for key, value in marks.items():
        if value not in (0, 1):
            raise InputError(f"{field}.{key}", value, "a turn is learned (1) or not (0); weigh rows instead")
    if len(set(map(bool, marks.values()))) > 1:
        raise InputError(f"{field}.weight", marks["weight"], "train says the opposite; keep one of them")
    return bool(next(iter(marks.values()))) if marks else None


def tools_of(row: Mapping[str, Any], used: list[str]) -> list[Any]:
    """Return the functions that a row offers, each in the form of `tools`; the field is added to `used`.

    Raises:
        InputError: They have not the form that they should, or stand in two fields.
    """
    names = [name for name in TOOLS if has(row, name)]
    if not names:
        return []
    if len(names) > 1:
        raise InputError("functions", row["functions"], "the row has tools too; give one of them")
    used += names
    found = _list(names[0], row[names[0]])
    return [one if "function" in one or "name" not in one else {"type": "function", "function": one} for one in found]


def unread_keys(turn: Mapping[str, Any]) -> list[str]:
    """Return the keys of a turn that say something and that are not read; names of those who speak are among them."""
    named = ("name",) if str(turn.get("role", "")).lower() in ("tool", "function") else ()
    return [key for key in turn if key not in (*READ, *named) and has(turn, key)]


def thoughts(message: Mapping[str, Any]) -> str:
    """Return the thoughts of the model in a message: those of their own field, or what precedes `</think>`."""
    for key in THOUGHTS:
        if message.get(key):
            return as_text(message[key]).strip()
    if message["role"] != ASSISTANT or CLOSE not in message["content"]:
        return ""
    before: str = message["content"].rpartition(CLOSE)[0]
    return before.lstrip().removeprefix(OPEN).strip()


def body(message: Mapping[str, Any]) -> str:
    """Return what a message says after its thoughts, without space around it."""
    text: str = message["content"]
    return (text.rpartition(CLOSE)[2] if message["role"] == ASSISTANT else text).strip()


def _check_thoughts(field: str, message: dict[str, Any]) -> None:
    """Take thoughts out of the content that have a field of their own too; raise `InputError` if they differ."""
    key = next((key for key in THOUGHTS if message.get(key)), None)
    if key is None or message["role"] != ASSISTANT or CLOSE not in message["content"]:
        return
    inside = {**message, key: None}
    if thoughts(inside) not in ("", thoughts(message)):
        raise InputError(f"{field}.{key}", message[key], f"the content has other thoughts before {CLOSE}; keep one")
    message["content"] = body(message)


def _call(field: str, call: Any) -> dict[str, Any]:
    """Return a call of a function, with its arguments as a mapping if they are one in JSON."""
    outer = call if isinstance(call, Mapping) else {}
    function = _parsed(outer.get("function", call))
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(f"{field}, a call", function, "give the name of a function and its arguments")
    arguments = function.get("arguments", {})
    made = {"name": function["name"], "arguments": _parsed(arguments) if arguments is not None else {}}
    known = {key: outer[key] for key in ("id", "type") if outer.get(key) is not None}
    return {"type": "function", **known, "function": made}


def _list(field: str, value: Any) -> list[Any]:
    found = _parsed(value)
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise InputError(field, value, "give a list, one mapping for each")
    return found


def _parsed(value: Any) -> Any:
    """Return what a text says in JSON; anything else without the keys of None that tables give to every row."""
    if not isinstance(value, str):
        return _without_none(value)
    try:
        return json.loads(value)
    except ValueError:
        return value


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value
