"""Conversations of marked words, by which one sees what a chat template leaves out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from icl_theory.upsampling.conversations import Conversation
from icl_theory.upsampling.messages import CLOSE, OPEN, THOUGHTS, body, thoughts


class Part(NamedTuple):
    """A part of a conversation that a template has to write.

    Attributes:
        turn: its turn; None for a part of no turn.
        what: what it is.
        word: the word that stands for it.
        said: what it says in the conversation.
    """

    turn: int | None
    what: str
    word: str
    said: str


class Probe(NamedTuple):
    """A conversation with a word of its own in the place of each part.

    Attributes:
        conversation: the conversation of words.
        parts: the parts that have to be written.
        shape: what two conversations share if a template that writes the one in full writes the other so too.
    """

    conversation: Conversation
    parts: list[Part]
    shape: Any


def probe(conversation: Conversation, turns: Sequence[int]) -> Probe:
    """Return the probe of a conversation: its texts, thoughts, calls and tools are replaced by words.

    Args:
        conversation: the conversation.
        turns: the turns that are learned; thoughts of others need not be written.
    """
    parts: list[Part] = []
    shape: list[Any] = [tuple(turns)]

    def word(turn: int | None, what: str, said: Any, *, needed: bool = True) -> str:
        made = f"qz{len(shape)}zq"
        shape.append((turn, what, needed))
        if needed:
            parts.append(Part(turn, what, made, str(said)))
        return made

    messages = []
    for turn, message in enumerate(conversation.messages):
        shape.append((message["role"], tuple(key for key in message if message[key])))
        made, thought = dict(message), thoughts(message)
        key = next((key for key in THOUGHTS if message.get(key)), None)
        said = word(turn, "content", body(message)) if body(message) else ""
        if thought:
            idea = word(turn, "thoughts", thought, needed=turn in turns)
            if key is not None:
                made[key] = idea
            else:
                opened = message["content"].lstrip().startswith(OPEN)
                shape.append(opened)
                said = f"{OPEN * opened}\n{idea}\n{CLOSE}\n\n{said}"
        made["content"] = said
        if "tool_calls" in message:
            made["tool_calls"] = [_call(turn, call, word) for call in message["tool_calls"]]
        messages.append(made)
    tools = [_tool(tool, word) for tool in conversation.tools]
    shape.append(json.dumps(tools, default=str))
    return Probe(conversation._replace(messages=messages, tools=tools, prefill=None), parts, tuple(shape))


def _call(turn: int, call: dict[str, Any], word: Any) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    if isinstance(arguments, dict):
        made: Any = {key: word(turn, f"tool_calls, {key}", value) for key, value in arguments.items()}
    else:
        made = word(turn, "tool_calls, arguments", arguments)
    return {**call, "function": {"name": word(turn, "tool_calls", function["name"]), "arguments": made}}


def _tool(tool: Any, word: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or "name" not in function:
        return tool
    return {**tool, "function": {**function, "name": word(None, "tools", function["name"])}}
