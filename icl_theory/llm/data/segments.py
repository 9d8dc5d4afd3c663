"""Text in segments that are given or learned, tokenized as one example; and rows written without a chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Tokenized
from icl_theory.upsampling.conversations import THOUGHTS, Conversation, conversation_of
from icl_theory.upsampling.row_fields import KNOWN, USUAL, Fields, whole_of

Encode = Callable[[str], Sequence[int]]


class Segment(NamedTuple):
    """A part of an example.

    Attributes:
        text: its text.
        learned: whether its tokens are learned.
    """

    text: str
    learned: bool


def tokenize(
    row: Mapping[str, Any],
    encode: Encode,
    *,
    end: int,
    begin: int | None = None,
    between: str = "\n",
    fields: Fields = USUAL,
) -> Tokenized:
    """Tokenize the prompt and the completion of a row separately, and append the end-of-text token.

    In a row that is a single text, every token but the first is learned. A begin or end token that a text already
    contains is not added twice.

    Args:
        row: a row with the fields of one of the formats of `texts_of`.
        encode: function from text to tokens that adds no special tokens.
        end: token after the completion; it is learned too.
        begin: token before the prompt; None for no such token.
        between: separator of turns, and of prompt and completion; it belongs to the prompt.
        fields: fields to read in place of the usual ones.

    Raises:
        InputError: fields of no known format, a question without an answer, or something that only a chat template
            can write: tools, thoughts, or several learned turns.
    """
    conversation = conversation_of(row, fields)
    if conversation is None:
        return joined(whole_text(row, fields), encode, begin=begin, end=end)
    return joined(plain_text(conversation, conversation.learned("last"), between), encode, begin=begin, end=end)


def whole_text(row: Mapping[str, Any], fields: Fields = USUAL) -> list[Segment]:
    """Return the segment of a row that is a single text.

    Raises:
        InputError: fields of no known format, or an empty text.
    """
    whole = whole_of(row, fields)
    if whole is None:
        remedy = f"give {KNOWN}; or say which to read (--prompt-field, --completion-field)"
        raise InputError("fields", ", ".join(map(str, row)), remedy)
    if not whole[1]:
        raise NothingToLearn(whole[0])
    return [Segment(whole[1], True)]


def plain_text(conversation: Conversation, turns: Sequence[int], between: str = "\n") -> list[Segment]:
    """Return the segments of a conversation without a chat template: its turns, separated by line breaks.

    Args:
        conversation: the conversation.
        turns: the turns that are learned.
        between: separator of turns; it belongs to the prompt.

    Raises:
        InputError: nothing to learn, or something that only a chat template can write.
    """
    messages = conversation.messages
    if not turns:
        raise NothingToLearn("completion")
    if list(turns) != [len(messages) - 1]:
        remedy = "plain text does not part turns; learn the last alone, or use a model with a chat template"
        raise InputError("learned turns", ", ".join(map(str, turns)), remedy)
    keys = [key for message in messages for key in ("tool_calls", *THOUGHTS) if message.get(key)]
    keys += ["tools"] if conversation.tools else []
    if keys:
        raise InputError(keys[0], "given", "plain text has no form for it; use a model with a chat template")
    before = between.join(message["content"] for message in messages[:-1] if message["content"])
    answer = messages[-1]["content"].removeprefix(conversation.prefill)
    return [Segment(before + between + conversation.prefill, False), Segment(answer, True)]


def joined(segments: Sequence[Segment], encode: Encode, *, begin: int | None, end: int) -> Tokenized:
    """Tokenize segments one by one and join them, with the begin and end tokens that they do not have already."""
    parts = [list(encode(segment.text)) for segment in segments]
    if begin is not None and parts[0][:1] != [begin]:
        parts[0].insert(0, begin)
    if segments[-1].learned and parts[-1][-1:] != [end]:
        parts[-1].append(end)
    learned = np.repeat([segment.learned for segment in segments], [len(part) for part in parts])
    learned[:1] = False
    return Tokenized(np.array([token for part in parts for token in part], np.int32), learned)


class NothingToLearn(InputError):
    """A row has nothing to learn."""

    def __init__(self, field: str):
        super().__init__(field, "empty", "there is nothing to learn; leave the row out")
