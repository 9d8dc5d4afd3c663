"""Tokenization of rows for a model, with its chat template or as plain text."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from icl_theory.errors import InputError, error_text
from icl_theory.llm.data.batches import Tokenized, ended, tokenize
from icl_theory.upsampling.row_fields import ANSWERING, texts_of, turns_of

ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}  # roles in data and in templates
TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")  # today's date
DAY = datetime.date(2024, 7, 26)  # replaces it, since the prompts of a run must not change overnight
MARK = "\u2402answer\u2403"  # placeholder that occurs in no template


class Prompting:
    """Tokenization of rows, the same in training and evaluation.

    With a chat template, the prompt is the conversation up to the model's turn, and the completion is followed by the
    token that the template puts after an answer. Without a template, prompt and completion are separated by a line
    break and followed by the end-of-text token. The begin-of-text token comes first if the tokenizer adds one; a
    template writes its own.

    Args:
        tokenizer: a tokenizer of `transformers`.
        chat: whether to use the chat template; None to use it if there is one.
        thinking: whether the model thinks before it answers, for templates with that switch (Qwen3). Otherwise
            prompts end where the template starts an answer.

    Raises:
        InputError: a template or its thinking switch is asked for but does not exist, or the template cannot be
            rendered.
    """

    def __init__(self, tokenizer: Any, chat: bool | None = None, thinking: bool = False):
        self.tokenizer, self.thinking = tokenizer, thinking
        has = bool(getattr(tokenizer, "chat_template", None))
        if chat and not has:
            raise InputError("chat", True, "the tokenizer has no chat template; leave it out")
        self.chat = has if chat is None else chat
        self.template = dated(tokenizer.get_chat_template()) if self.chat else None
        if thinking and "enable_thinking" not in (self.template or ""):
            raise InputError("thinking", True, "the chat template has no such switch; leave it out")
        self.begin = tokenizer.bos_token_id if tokenizer.bos_token_id in tokenizer("").input_ids else None
        self.end = self._answer_end() if self.chat else tokenizer.eos_token_id

    @property
    def stop(self) -> list[int]:
        """Tokens that end an answer."""
        return sorted({self.end, self.tokenizer.eos_token_id})

    def tokenized(self, row: Mapping[str, Any]) -> Tokenized:
        """Tokenize a row for training: prompt and completion, or a single text.

        Raises:
            InputError: fields of no known format, a question without an answer, or text that cannot be encoded.
        """
        texts = texts_of(row)
        if not self.chat or texts is None or not texts.completion:
            return tokenize(row, self._encode, end=self.end, begin=self.begin)
        prompt = self._asked_by_template(row, texts.prompt)
        tokens = np.array([*prompt, *ended(self._encode(texts.completion), self.end)], np.int32)
        return Tokenized(tokens, len(prompt))

    def asked(self, row: Mapping[str, Any]) -> list[int]:
        """Return the prompt tokens of a row for evaluation: those before the completion in `tokenized`.

        Raises:
            InputError: a row without a reference completion.
        """
        texts = texts_of(row)
        if texts is None or not texts.completion:
            raise InputError("fields", ", ".join(map(str, row)), "an evaluation needs questions with answers")
        example = self.tokenized(row)
        return example.tokens[: example.prompt].tolist()

    def question(self, row: Mapping[str, Any]) -> str | None:
        """Return the question of a row as text for comparison; None if it has no question."""
        texts = texts_of(row)
        return None if texts is None or texts.whole else texts.prompt.strip()

    def _encode(self, text: str) -> list[int]:
        try:
            return self.tokenizer.encode(text, add_special_tokens=False)
        except (TypeError, UnicodeError):
            raise InputError("text", ascii(text), "it holds half a character (a lone surrogate); mend it") from None

    def _asked_by_template(self, row: Mapping[str, Any], prompt: str) -> list[int]:
        turns = turns_of(row) or [("user", prompt)]
        if turns[-1][0] in ANSWERING:
            turns = turns[:-1]
        return self._encode(self._rendered(turns, add_generation_prompt=True))

    def _rendered(self, turns: list[tuple[str, str]], **settings: Any) -> str:
        messages = [{"role": ROLES.get(role, role), "content": text} for role, text in turns]
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, chat_template=self.template, enable_thinking=self.thinking, **settings
            )
        except Exception as error:  # many types
            raise InputError(
                "chat template", error_text(error), "it refuses the conversation; use none, or mend the row"
            ) from None

    def _answer_end(self) -> int:
        """Return the first special token after an answer in the template, else the first token after whitespace."""
        behind = self._rendered([("user", "x"), ("assistant", MARK)]).rpartition(MARK)[2]
        special = set(self.tokenizer.all_special_ids)
        tokens = [token for token in self._encode(behind) if token in special] or self._encode(behind.lstrip())
        return tokens[0] if tokens else self.tokenizer.eos_token_id


def dated(template: str) -> str:
    """Return the template with the current date replaced by a fixed one."""
    return TODAY.sub(lambda found: repr(DAY.strftime(found[2])), template)
