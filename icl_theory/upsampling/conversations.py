"""A row of a fine-tuning set as a conversation, in the form that chat templates read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from icl_theory.errors import InputError
from icl_theory.upsampling.row_fields import SYSTEMS, USUAL, Fields, as_text, is_turns, pair_of, required, whole_of

ASSISTANT = "assistant"
LEARN = ("last", "all")  # which turns of the model are learned
ROLES = {  # in data, and in chat templates
    "human": "user",
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "model": ASSISTANT,
    "bot": ASSISTANT,
    "function_call": ASSISTANT,
    "observation": "tool",
    "function": "tool",
}
THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # keys of a message
READ = {"role", "from", "content", "value", "tool_calls", "function_call", "tool_call_id", "name", "weight", "train"}
END_OF_THOUGHT = "</think>"
TOOLS = ("tools", "functions")


class Conversation(NamedTuple):
    """A row as a conversation.

    Attributes:
        messages: The turns, with the keys `role` and `content` and those that their row gives besides.
        tools: The functions that the model may call.
        marked: For each turn, whether the row says that it is learned (`weight`, `train`); None if it says nothing.
        prefill: The beginning of the last answer that belongs to what is asked.
        used: The fields of the row that were read.
        unused: Keys of its turns that were not.
    """

    messages: list[dict[str, Any]]
    tools: list[Any]
    marked: list[bool | None]
    prefill: str
    used: tuple[str, ...]
    unused: tuple[str, ...] = ()

    @property
    def answers(self) -> bool:
        """True if the last turn is a text that the model speaks."""
        return self.messages[-1]["role"] == ASSISTANT and bool(self.messages[-1]["content"])

    def learned(self, learn: str) -> list[int]:
        """Return the turns that are learned: those marked so, and of the others the last or all that the model speaks.

        Args:
            learn: `last` for the last turn of the conversation, if the model speaks it; `all` for all of the model.
        """
        last = len(self.messages) - 1
        return [
            place
            for place, (message, mark) in enumerate(zip(self.messages, self.marked, strict=True))
            if message["role"] == ASSISTANT
            and (message["content"] or "tool_calls" in message)
            and ((learn == "all" or place == last) if mark is None else mark)
        ]


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


def texts_of(row: Mapping[str, Any], fields: Fields = USUAL) -> Texts | None:
    """Return prompt and completion of a row, or None if its fields match no known format.

    Known are the pairs of `PAIRS` (an `instruction` may have an `input` or a `context`), turns in `messages` or
    `conversations` with the keys `role` and `content` or `from` and `value`, and a single `text`. A text may be a list
    of parts `{"type": "text", "text": ...}`.

    Examples:
        >>> texts_of({"question": "1 + 1?", "answer": "2"})
        Texts(prompt='1 + 1?', completion='2', whole=False)
        >>> texts_of({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})
        Texts(prompt='Hi', completion='Hello', whole=False)

    Raises:
        InputError: A field of `fields` is missing, or a field or turn has not the form that it should.
    """
    conversation = conversation_of(row, fields)
    if conversation is None:
        whole = whole_of(row, fields)
        return None if whole is None else Texts(whole[1], "", whole=True)
    *asked, last = conversation.messages
    answers = conversation.answers
    before = [message["content"] for message in (asked if answers else conversation.messages)]
    prompt = "\n".join(text for text in [*before, conversation.prefill] if text)
    return Texts(prompt, last["content"].removeprefix(conversation.prefill) if answers else "")


def answer_of(row: Mapping[str, Any], fields: Fields = USUAL) -> str:
    """Return the answer that replies to a row are judged by: its field `answer` if there is one, else its completion.

    Examples:
        >>> answer_of({"problem": "2x = 14. Find x.", "solution": "x = 14/2 = 7, not 12.", "answer": 7})
        '7'

    Raises:
        InputError: As in `texts_of`.
    """
    if fields.answer is not None:
        return as_text(required(row, fields.answer), fields.answer)
    texts = texts_of(row, fields)
    return as_text(row.get("answer"), "answer") or ("" if texts is None else texts.completion)


def conversation_of(row: Mapping[str, Any], fields: Fields = USUAL) -> Conversation | None:
    """Return a row as a conversation, or None if it asks nothing (a single text, or fields of no known format).

    Roles are written as chat templates do (`human` becomes `user`). A system prompt beside the turns becomes the first
    of them, and pairs of a `history` come before the question. A prompt that ends in a turn of the model is continued
    by the completion.

    Raises:
        InputError: A field of `fields` is missing, or a field or turn has not the form that it should.
    """
    pair = pair_of(row, fields)
    if pair is None:
        return None
    asked, used, prefill = pair.asked, list(pair.used), ""
    turns = (
        list(asked) if is_turns(asked) else [*_history(row), {"role": "user", "content": as_text(asked, pair.used[0])}]
    )
    if not is_turns(asked) and row.get("history"):
        used.append("history")
    messages = [_message(place, turn, pair.used[0]) for place, turn in enumerate(turns)]
    marked = [_mark(place, turn) for place, turn in enumerate(turns)]
    if pair.answered is not None:
        answers = pair.answered
        if not is_turns(answers):
            answers = [{"role": ASSISTANT, "content": as_text(answers, pair.used[-1])}]
        spoken = [_message(place, turn, pair.used[-1]) for place, turn in enumerate(answers)]
        marked += [_mark(place, turn) for place, turn in enumerate(answers)]
        if messages[-1]["role"] == ASSISTANT and spoken[0]["role"] == ASSISTANT:
            prefill = messages.pop()["content"]
            marked.pop(-1 - len(answers))
            spoken[0]["content"] = prefill + spoken[0]["content"]
        turns, messages = [*turns, *answers], [*messages, *spoken]
    name = fields.system or next((name for name in SYSTEMS if row.get(name)), None)
    system = "" if name is None else as_text(required(row, name), name)
    if name is not None and system:
        used.append(name)
        if messages[0]["role"] == "system":
            raise InputError(name, system, "the turns begin with a system prompt already; leave one of them out")
        messages, marked = [{"role": "system", "content": system}, *messages], [None, *marked]
    unused = {f"{pair.used[0]}.{key}" for turn in turns for key in turn if key not in READ and key not in THOUGHTS}
    tools = _tools(row)
    used += [name for name in TOOLS if row.get(name)]
    return Conversation(messages, tools, marked, prefill, tuple(used), tuple(sorted(unused)))


def unused_fields(row: Mapping[str, Any], fields: Fields = USUAL) -> set[str]:
    """Return the fields of a row that say something, and keys of its turns, that take no part in training on it."""
    said = {str(name) for name, value in row.items() if value is not None and value not in ("", [], {})}
    conversation = conversation_of(row, fields)
    if conversation is not None:
        return (said | set(conversation.unused)) - set(conversation.used)
    whole = whole_of(row, fields)
    return said - ({whole[0]} if whole else set())


def body(message: Mapping[str, Any]) -> str:
    """Return what a message says after its thoughts, without space around it."""
    text: str = message["content"]
    return (text.rpartition(END_OF_THOUGHT)[2] if message["role"] == ASSISTANT else text).strip()


def thoughts(message: Mapping[str, Any]) -> str:
    """Return the thoughts of a message, from their own field or between `<think>` and `</think>`; empty without any."""
    for key in THOUGHTS:
        if message.get(key):
            return as_text(message[key]).strip()
    text = message["content"].lstrip()
    if text.startswith("<think>") and END_OF_THOUGHT in text:
        return text.removeprefix("<think>").partition(END_OF_THOUGHT)[0].strip()
    return ""


def _message(place: int, turn: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Return a turn with its role in lower case, and with a call of a function in the form of `tool_calls`."""
    said = turn.get("role") or turn.get("from")
    if not isinstance(said, str):
        raise InputError(f"{field}[{place}]", ", ".join(map(str, turn)), "every turn needs a role (or from)")
    more = {key: value for key, value in turn.items() if value is not None and key not in ("role", "from", "value")}
    text = as_text(turn["content"] if turn.get("content") is not None else turn.get("value"), f"{field}[{place}]")
    call = more.pop("function_call", None)
    if said.lower() == "function_call":
        call, text = text, ""
    calls = more.get("tool_calls") or ([] if call is None else [{"function": call}])
    more.pop("tool_calls", None)
    if calls:
        more["tool_calls"] = [_call(f"{field}[{place}]", one) for one in _list(f"{field}[{place}].tool_calls", calls)]
    return {**more, "role": ROLES.get(said.lower(), said.lower()), "content": text}


def _call(field: str, call: Any) -> dict[str, Any]:
    """Return a call of a function, with its arguments as a mapping if they are one in JSON."""
    function = call.get("function", call) if isinstance(call, Mapping) else call
    function = _parsed(function)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(f"{field}, a call", function, "give the name of a function and its arguments")
    known = {key: value for key, value in call.items() if key != "name"} if isinstance(call, Mapping) else {}
    known = {key: value for key, value in known.items() if key in ("id", "type") and value is not None}
    arguments = _parsed(function.get("arguments", {}))
    return {"type": "function", **known, "function": {"name": function["name"], "arguments": arguments}}


def _tools(row: Mapping[str, Any]) -> list[Any]:
    """Return the functions that a row offers, each in the form of `tools`."""
    for name in TOOLS:
        if row.get(name):
            found = _list(name, row[name])
            return [
                one if "function" in one or "name" not in one else {"type": "function", "function": one}
                for one in found
            ]
    return []


def _list(field: str, value: Any) -> list[Any]:
    found = _parsed(value)
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise InputError(field, value, "give a list, one mapping for each")
    return found


def _parsed(value: Any) -> Any:
    """Return what a text says in JSON; anything else unchanged."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _history(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the turns of a `history` of pairs of question and answer."""
    pairs = row.get("history") or []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise InputError("history", pairs, "give a list of pairs [question, answer]")
    roles = ("user", ASSISTANT)
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(roles, pair, strict=True)]


def _mark(place: int, turn: Mapping[str, Any]) -> bool | None:
    """Return whether a turn says that it is learned, by `weight` (0 or 1) or `train`; None if it says nothing."""
    for key in ("weight", "train"):
        value = turn.get(key)
        if value is not None:
            if value not in (0, 1):
                raise InputError(f"turn {place}, {key}", value, "a turn is learned (1) or not (0); weigh rows instead")
            return bool(value)
    return None
