"""Tokenization of rows for a model, with its chat template or as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from icl_theory.errors import InputError, check_choice
from icl_theory.llm.data.batches import Tokenized
from icl_theory.llm.data.chat_template import ChatTemplate
from icl_theory.llm.data.segments import Segment, joined, plain_prompt, plain_text, whole_text, without_end
from icl_theory.upsampling.conversations import LEARN, answer_of, conversation_of, texts_of
from icl_theory.upsampling.row_fields import USUAL, NothingToLearn, as_fields, names_in
from icl_theory.upsampling.row_fields import Fields as Fields


class Written(NamedTuple):
    """A row as text.

    Attributes:
        segments: its parts, in order.
        begin: token to put before it; None if there is none.
    """

    segments: list[Segment]
    begin: int | None


class Prompting:
    """Tokenization of rows, the same in training and evaluation.

    With a chat template, a conversation is written as the template does, and an answer is learned with the token that
    the template puts after it. Without a template, turns are separated by line breaks, and the last is followed by the
    end-of-text token. The begin-of-text token comes first if the tokenizer adds one; a template writes its own.

    Args:
        tokenizer: a tokenizer of `transformers`.
        chat: whether to use the chat template; None to use it if there is one.
        thinking: whether the model thinks before it answers, for templates with that switch (Qwen3). Otherwise
            prompts end where the template starts an answer.
        learn: `last` to learn the last turn of a conversation if the model speaks it, `all` to learn all turns of the
            model. A turn with a `weight` (0 or 1) or `train` decides for itself.
        fields: fields to read in place of the usual ones, as `Fields` or a mapping from its attributes to names.

    Attributes:
        begin: token before a text; None if there is none.
        end: token after an answer.

    Raises:
        InputError: a template or its thinking switch is asked for but does not exist, the template cannot be rendered,
            or the fields are of no such form.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat: bool | None = None,
        thinking: bool = False,
        learn: str = "last",
        fields: Fields | Mapping[str, str] = USUAL,
    ):
        check_choice("learn", learn, LEARN)
        self.tokenizer, self.learn, self.fields = tokenizer, learn, as_fields(fields)
        has = bool(getattr(tokenizer, "chat_template", None))
        if chat and not has:
            raise InputError("chat", True, "the tokenizer has no chat template; leave it out")
        if thinking and not (has if chat is None else chat):
            raise InputError("thinking", True, "there is no chat template with such a switch; leave it out")
        self.template = ChatTemplate(tokenizer, thinking) if (has if chat is None else chat) else None
        self.begin = tokenizer.bos_token_id if tokenizer.bos_token_id in tokenizer("").input_ids else None
        self.end: int = tokenizer.eos_token_id if self.template is None else self.template.end

    @property
    def stop(self) -> list[int]:
        """Tokens that end an answer."""
        return sorted({self.end, self.tokenizer.eos_token_id})

    def tokenized(self, row: Mapping[str, Any]) -> Tokenized:
        """Tokenize a row for training: what is given and what is learned, or a single text.

        Raises:
            InputError: as in `written`.
        """
        return self.tokenize([self.written(row)])[0]

    def tokenize(self, rows: Sequence[Written]) -> list[Tokenized]:
        """Tokenize rows that `written` returned; many at once take half the time."""
        ids = iter(self._encode([segment.text for row in rows for segment in row.segments]))
        return [
            joined(row.segments, list(islice(ids, len(row.segments))), begin=row.begin, end=self.end) for row in rows
        ]

    def written(self, row: Mapping[str, Any]) -> Written:
        """Return a row as text.

        Raises:
            InputError: fields of no known format, nothing to learn, something that the template leaves out or plain
                text cannot say, or text that cannot be encoded.
        """
        conversation = conversation_of(row, self.fields)
        if conversation is None:
            (text,) = whole_text(row, self.fields)
            ends, begin, segments = [self.tokenizer.decode([self.end])], self.begin, [text]
        elif self.template is not None:
            ends, begin = [], None
            segments = self.template.segments(conversation, conversation.learned(self.learn))
        else:
            ends, begin = [self.tokenizer.eos_token], self.begin
            segments = plain_text(conversation, conversation.learned(self.learn))
        segments[-1] = segments[-1]._replace(text=without_end(segments[-1].text, ends))
        for segment in segments:
            _check_characters(segment.text)
        return Written(segments, begin)

    def asked(self, row: Mapping[str, Any]) -> list[int]:
        """Return the prompt tokens of a row for evaluation: those before its last turn in `tokenized`.

        A row whose last turn is not the model's is asked for the next.

        Raises:
            InputError: a row that asks nothing, or a prompt that cannot be written.
        """
        conversation = conversation_of(row, self.fields)
        if conversation is None:
            raise InputError("fields", names_in(row), "an evaluation needs questions with answers")
        turn = len(conversation.messages) - conversation.answers
        begin = None if self.template is not None else self.begin
        text = plain_prompt(conversation, turn) if self.template is None else self.template.prompt(conversation, turn)
        _check_characters(text)
        return self.tokenize([Written([Segment(text, False)], begin)])[0].tokens.tolist()

    def reference(self, row: Mapping[str, Any]) -> str:
        """Return the answer that replies to a row are judged by.

        Raises:
            InputError: a row without one.
        """
        found = answer_of(row, self.fields)
        if not found:
            raise InputError("fields", names_in(row), "an evaluation needs questions with answers")
        return found

    def question(self, row: Mapping[str, Any]) -> str | None:
        """Return the question of a row as text for comparison; None if it has no question."""
        try:
            texts = texts_of(row, self.fields)
        except NothingToLearn:
            return None
        return None if texts is None or texts.whole else texts.prompt.strip()

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False).input_ids
        return found


def _check_characters(text: str) -> None:
    """Raise `InputError` for text that has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("text", ascii(text), "it holds half a character (a lone surrogate); mend it") from None
