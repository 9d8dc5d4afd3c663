"""Text in segments that are given or learned, tokenized as one example; and rows written without a chat template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Tokenized
from icl_theory.upsampling.conversations import Conversation
from icl_theory.upsampling.messages import THOUGHTS
from icl_theory.upsampling.row_fields import KNOWN, USUAL, Fields, NothingToLearn, names_in, whole_of


class Segment(NamedTuple):
    """A part of an example.

    Attributes:
        text: its text.
        learned: whether its tokens are learned.
    """

    text: str
    learned: bool


def whole_text(row: Mapping[str, Any], fields: Fields = USUAL) -> list[Segment]:
    """Return the segment of a row that is a single text.

    Raises:
        InputError: fields of no known format, or an empty text.
    """
    whole = whole_of(row, fields)
    if whole is None:
        remedy = f"give {KNOWN}; or say which to read (--prompt-field, --completion-field)"
        raise InputError("fields", names_in(row), remedy)
    if not whole[1].strip():
        raise NothingToLearn(whole[0])
    return [Segment(whole[1], True)]


def plain_text(conversation: Conversation, turns: Sequence[int], between: str = "\n") -> list[Segment]:
    """Return the segments of a conversation without a chat template: its turns, separated by line breaks.

    Args:
        conversation: the conversation.
        turns: the turns that are learned.
        between: separator of turns; it belongs to the prompt.

    Raises:
        InputError: nothing to learn, several learned turns, or something that only a chat template can write.
    """
    if not turns:
        raise NothingToLearn("completion")
    last = len(conversation.messages) - 1
    if list(turns) != [last]:
        remedy = "plain text does not part turns; learn the last alone, or use a model with a chat template"
        raise InputError("learned turns", ", ".join(map(str, turns)), remedy)
    answer = conversation.messages[last]["content"].removeprefix(conversation.given(last))
    return [Segment(plain_prompt(conversation, last, between), False), Segment(answer, True)]


def plain_prompt(conversation: Conversation, turn: int, between: str = "\n") -> str:
    """Return the prompt for a turn without a chat template: all turns before it, and its own beginning if it is given.

    Raises:
        InputError: a turn holds something that only a chat template can write.
    """
    keys = [key for message in conversation.messages for key in ("tool_calls", *THOUGHTS) if message.get(key)]
    keys += ["tools"] if conversation.tools else []
    if keys:
        raise InputError(keys[0], "given", "plain text has no form for it; use a model with a chat template")
    before = [message["content"] for message in conversation.messages[:turn] if message["content"]]
    return between.join(before) + between + conversation.given(turn)


def joined(segments: Sequence[Segment], ids: Sequence[list[int]], *, begin: int | None, end: int) -> Tokenized:
    """Join the token ids of segments, with the begin and end tokens that they do not have already."""
    parts = [list(part) for part in ids]
    if begin is not None and parts[0][:1] != [begin]:
        parts[0].insert(0, begin)
    if segments[-1].learned and parts[-1][-1:] != [end]:
        parts[-1].append(end)
    learned = np.repeat([segment.learned for segment in segments], [len(part) for part in parts])
    learned[:1] = False
    return Tokenized(np.array([token for part in parts for token in part], np.int32), learned)


def without_end(text: str, ends: Iterable[str | None]) -> str:
    """Return a text without the end-of-text token that it brings, and without space after that."""
    for end in ends:
        if end and text.rstrip().endswith(end):
            return text.rstrip().removesuffix(end)
    return text
