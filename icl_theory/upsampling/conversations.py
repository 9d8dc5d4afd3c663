"""A row of a fine-tuning set as a conversation, in the form that chat templates read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from icl_theory.errors import InputError
from icl_theory.upsampling.messages import ASSISTANT, SPEAKERS, mark_of, message_of, tools_of, unread_keys
from icl_theory.upsampling.row_fields import (
    SYSTEMS,
    USUAL,
    Fields,
    NothingToLearn,
    as_text,
    has,
    is_turns,
    pair_of,
    parsed_turns,
    required,
    whole_of,
)

LEARN = ("last", "all")  # which turns of the model are learned


class Conversation(NamedTuple):
    """A row as a conversation.

    Attributes:
        messages: The turns, with the keys `role` and `content` and those that their row gives besides.
        tools: The functions that the model may call.
        marked: For each turn, whether the row says that it is learned (`weight`, `train`); None if it says nothing.
        prefill: For a turn of the model that the prompt begins, its number and that beginning.
        used: The fields of the row that were read.
        unused: Keys of its turns that were not.
    """

    messages: list[dict[str, Any]]
    tools: list[Any]
    marked: list[bool | None]
    prefill: tuple[int, str] | None
    used: tuple[str, ...]
    unused: tuple[str, ...] = ()

    @property
    def answers(self) -> bool:
        """True if the last turn is a text that the model speaks."""
        return self.messages[-1]["role"] == ASSISTANT and bool(self.messages[-1]["content"].strip())

    def learned(self, learn: str) -> list[int]:
        """Return the turns that are learned: those marked so, and of the others the last or all that the model speaks.

        Args:
            learn: `last` for the last turn of the conversation, if the model speaks it; `all` for all of the model
                but one that opens the conversation, as nothing asks for it.
        """
        last = len(self.messages) - 1
        return [
            place
            for place, (message, mark) in enumerate(zip(self.messages, self.marked, strict=True))
            if message["role"] == ASSISTANT
            and (message["content"].strip() or "tool_calls" in message)
            and (((learn == "all" and place > 0) or place == last) if mark is None else mark)
        ]

    def given(self, turn: int) -> str:
        """Return the beginning of a turn that belongs to the prompt."""
        return self.prefill[1] if self.prefill is not None and self.prefill[0] == turn else ""


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
    given = conversation.given(len(asked))
    before = [message["content"] for message in (asked if conversation.answers else conversation.messages)]
    prompt = "\n".join(text for text in [*before, given] if text)
    return Texts(prompt, last["content"].removeprefix(given) if conversation.answers else "")


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
    answer = as_text(row.get("answer"), "answer")
    return answer if answer.strip() else "" if texts is None else texts.completion


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
    used, name = list(pair.used), pair.used[0]
    turns = [*_system(row, fields, pair.asked, used), *_asked(row, pair, used)]
    messages = [message_of(f"{name}[{place}]", turn) for place, turn in enumerate(turns)]
    marked = [mark_of(f"{name}[{place}]", turn) for place, turn in enumerate(turns)]
    prefill = None
    if pair.answered is not None:
        answers, name = parsed_turns(pair.answered), pair.used[-1]
        if not is_turns(answers):
            answers = [{"role": ASSISTANT, "content": as_text(answers, name)}]
        spoken = [message_of(f"{name}[{place}]", turn) for place, turn in enumerate(answers)]
        if messages[-1]["role"] == ASSISTANT and spoken[0]["role"] == ASSISTANT:
            begun = messages.pop()["content"]
            marked.pop()
            prefill = (len(messages), begun)
            spoken[0]["content"] = begun + spoken[0]["content"]
        messages += spoken
        marked += [mark_of(f"{name}[{place}]", turn) for place, turn in enumerate(answers)]
        turns = [*turns, *answers]
    if messages[-1]["role"] not in SPEAKERS:
        where = f"{pair.used[-1]}, last turn"
        raise InputError(where, messages[-1]["role"], f"nobody known speaks it; roles are {', '.join(SPEAKERS)}")
    unused = sorted({f"{pair.used[0]}.{key}" for turn in turns for key in unread_keys(turn)})
    return Conversation(messages, tools_of(row, used), marked, prefill, tuple(used), tuple(unused))


def unused_fields(row: Mapping[str, Any], fields: Fields = USUAL) -> set[str]:
    """Return the fields of a row that say something, and keys of its turns, that take no part in training on it."""
    said = {str(name) for name in row if has(row, name)}
    try:
        conversation = conversation_of(row, fields)
    except NothingToLearn:
        return said
    if conversation is not None:
        return (said | set(conversation.unused)) - set(conversation.used)
    whole = whole_of(row, fields)
    return said - ({whole[0]} if whole else set())


def _asked(row: Mapping[str, Any], pair: Any, used: list[str]) -> list[Mapping[str, Any]]:
    """Return the turns of what is asked; before a text, those of a `history` of pairs of question and answer."""
    if is_turns(pair.asked):
        return list(pair.asked)
    question = {"role": "user", "content": as_text(pair.asked, pair.used[0])}
    if not has(row, "history"):
        return [question]
    pairs = row["history"]
    if not isinstance(pairs, list) or not all(isinstance(one, list) and len(one) == 2 for one in pairs):
        raise InputError("history", pairs, "give a list of pairs [question, answer]")
    used.append("history")
    roles = ("user", ASSISTANT)
    before = [{"role": role, "content": text} for one in pairs for role, text in zip(roles, one, strict=True)]
    return [*before, question]


def _system(row: Mapping[str, Any], fields: Fields, asked: Any, used: list[str]) -> list[Mapping[str, Any]]:
    """Return the turn of a system prompt that stands beside the others, if there is one."""
    name = fields.system or next((name for name in SYSTEMS if has(row, name)), None)
    text = "" if name is None else as_text(required(row, name), name)
    if name is None or not text:
        return []
    if is_turns(asked) and str(asked[0].get("role", asked[0].get("from"))).lower() == "system":
        raise InputError(name, text, "the turns begin with a system prompt already; leave one of them out")
    used.append(name)
    return [{"role": "system", "content": text}]
