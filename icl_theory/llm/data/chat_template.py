"""Conversations as a chat template writes them, cut into what is given and what is learned."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Any

from icl_theory.errors import InputError, error_text
from icl_theory.llm.data.completeness import Probe, probe
from icl_theory.llm.data.segments import Segment, without_end
from icl_theory.upsampling.conversations import Conversation
from icl_theory.upsampling.messages import ASSISTANT, CLOSE, OPEN, body, thoughts
from icl_theory.upsampling.row_fields import NothingToLearn

TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")  # today's date
DAY = datetime.date(2024, 7, 26)  # replaces it, since the prompts of a run must not change overnight
MARK = "\u2402answer\u2403"  # placeholder that occurs in no template


class ChatTemplate:
    """The chat template of a tokenizer.

    Everything that a row says must appear in what the template writes: a turn, a tool, a call with its arguments or a
    learned thought that it leaves out is an error. Thoughts of turns that are not learned are left to the template.

    Args:
        tokenizer: a tokenizer of `transformers` that has a chat template.
        thinking: whether the model thinks before it answers, for templates with that switch (Qwen3).

    Attributes:
        end: the token that the template puts after an answer.

    Raises:
        InputError: the template cannot be rendered, or has no switch for thinking.
    """

    def __init__(self, tokenizer: Any, thinking: bool = False):
        self.tokenizer, self.thinking = tokenizer, thinking
        self.template = dated(tokenizer.get_chat_template())
        self.has_switch = "enable_thinking" in self.template
        if thinking and not self.has_switch:
            raise InputError("thinking", True, "the chat template has no such switch; leave it out")
        example = self._rendered([{"role": "user", "content": "x"}, {"role": ASSISTANT, "content": MARK}])
        begin = tokenizer.bos_token
        self.begin_text = begin if begin and example.startswith(begin) else ""
        self.end = self._end(example.rpartition(MARK)[2])
        self.end_text: str = tokenizer.decode([self.end])
        self._complete: set[Any] = set()  # shapes of conversations that the template writes in full

    def segments(self, conversation: Conversation, turns: Sequence[int]) -> list[Segment]:
        """Return the segments of a conversation up to its last learned turn.

        A learned turn begins after the prompt that the template writes for it, and ends with the token after an answer.
        If the template writes the last answer differently from its own prompt, the answer follows the prompt as it is.

        Args:
            conversation: the conversation.
            turns: the turns that are learned, in order.

        Raises:
            InputError: nothing to learn, a template that refuses the conversation or leaves a part of it out, thoughts
                while `thinking` is off, or a learned turn whose beginning or end cannot be found.
        """
        if not turns:
            raise NothingToLearn("completion")
        conversation = self._bare(conversation, turns[-1] + 1)
        messages, last = conversation.messages, turns[-1]
        if self.has_switch and not self.thinking and any(thoughts(messages[turn]) for turn in turns):
            raise InputError("thinking", False, "the answer has thoughts; give --thinking")
        self._check_complete(conversation, turns)
        asked, whole = self._written(conversation, last)
        begins = [self._beginning(conversation, turn, whole) for turn in turns[:-1]] + [len(asked)]
        closes = [self._close(whole, begin, messages[turn]) for begin, turn in zip(begins, turns, strict=True)]
        if any(close > begin for close, begin in zip(closes, begins[1:], strict=False)):
            raise InputError("learned turns", list(turns), f"only the last ends in {self.end_text}; learn it alone")
        for turn, begin, close in zip(turns, begins, closes, strict=True):
            _check_kept(turn, messages[turn], whole[begin:close])
        begins = [
            begin + _length(conversation.given(turn), whole[begin:close], body(messages[turn]))
            for begin, close, turn in zip(begins, closes, turns, strict=True)
        ]
        cuts = [0, *(place for part in zip(begins, closes, strict=True) for place in part)]
        return [Segment(whole[cuts[i] : cuts[i + 1]], bool(i % 2)) for i in range(len(cuts) - 1)]

    def prompt(self, conversation: Conversation, turn: int) -> str:
        """Return the prompt for a turn, and the beginning of the turn itself if it is given.

        Raises:
            InputError: a template that refuses the conversation or leaves a part of it out.
        """
        conversation = self._bare(conversation, turn)
        self._check_complete(conversation, ())
        asked, given = self._asked(conversation, turn), conversation.given(turn)
        if not given:
            return asked
        begun = [
            *conversation.messages,
            {"role": ASSISTANT, "content": given + MARK},
        ]  # a template may cut space at ends
        whole, mark, _ = self._rendered(begun, conversation.tools).partition(MARK)
        return whole if mark and whole.startswith(asked) else asked + given

    def _bare(self, conversation: Conversation, count: int) -> Conversation:
        """Return the first turns, without the tokens before a text and after an answer, which the template writes."""
        found = []
        for place, message in enumerate(conversation.messages[:count]):
            text = message["content"] if place else message["content"].removeprefix(self.begin_text)
            ends = (self.end_text, self.tokenizer.eos_token) if message["role"] == ASSISTANT else ()
            found.append({**message, "content": without_end(text, ends)})
        return conversation._replace(messages=found)

    def _check_complete(self, conversation: Conversation, turns: Sequence[int]) -> None:
        """Raise `InputError` if the template leaves a part of such a conversation out; each shape is tried once."""
        tried: Probe = probe(conversation, turns)
        if tried.shape in self._complete:
            return
        words, count = tried.conversation, len(tried.conversation.messages)
        text = self._written(words, count - 1)[1] if turns else self._asked(words, count)
        for place, what, word, said in tried.parts:
            if word not in text:
                shown = said if len(said) <= 40 else said[:40] + " …"
                remedy = "the chat template leaves it out; use another model, or take it out of the row"
                raise InputError(what if place is None else f"turn {place}, {what}", shown, remedy)
        self._complete.add(tried.shape)

    def _written(self, conversation: Conversation, last: int) -> tuple[str, str]:
        """Return the prompt for the last turn, and prompt and turn together."""
        asked, whole = self._asked(conversation, last), self._rendered(conversation.messages, conversation.tools)
        return asked, whole if whole.startswith(asked) else asked + _behind(asked, conversation.messages[last])

    def _beginning(self, conversation: Conversation, turn: int, whole: str) -> int:
        """Return where an earlier answer begins: behind its prompt, which may lack an empty thought."""
        for thinking in (self.thinking, True):
            asked = self._asked(conversation, turn, thinking)
            if whole.startswith(asked):
                return len(asked)
        remedy = "the chat template writes earlier answers differently from their prompts; learn the last turn alone"
        raise InputError("turn", turn, remedy)

    def _close(self, whole: str, begin: int, message: dict[str, Any]) -> int:
        """Return where a learned turn ends: behind the token after its answer, if there is one."""
        said = body(message)
        place = whole.find(said, begin) + len(said) if said in whole[begin:] else begin
        end = whole.find(self.end_text, place)
        if end >= 0:
            return end + len(self.end_text)
        return len(whole) if "tool_calls" in message else place

    def _asked(self, conversation: Conversation, turn: int, thinking: bool | None = None) -> str:
        """Return what the template writes before a turn of the model."""
        if not turn:
            raise InputError("turn", 0, "the model speaks first, and nothing asks for it; put a user's turn before it")
        thinks = self.thinking if thinking is None else thinking
        messages, tools = conversation.messages[:turn], conversation.tools
        return self._rendered(messages, tools, add_generation_prompt=True, enable_thinking=thinks)

    def _rendered(self, messages: list[dict[str, Any]], tools: Sequence[Any] = (), **settings: Any) -> str:
        settings = {"enable_thinking": self.thinking, "chat_template": self.template, "tokenize": False, **settings}
        try:
            return str(self.tokenizer.apply_chat_template(messages, tools=list(tools) or None, **settings))
        except Exception as error:  # many types
            remedy = "it refuses the conversation; mend the row, or use plain text (--no-chat)"
            raise InputError("chat template", error_text(error), remedy) from None

    def _end(self, behind: str) -> int:
        """Return the first special token of what stands behind an answer, else the first token after whitespace."""
        encode = lambda text: self.tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
        special = set(self.tokenizer.all_special_ids)
        tokens = [token for token in encode(behind) if token in special] or encode(behind.lstrip())
        return int(tokens[0] if tokens else self.tokenizer.eos_token_id)


def dated(template: str) -> str:
    """Return the template with the current date replaced by a fixed one."""
    return TODAY.sub(lambda found: repr(DAY.strftime(found[2])), template)


def _behind(asked: str, answer: dict[str, Any]) -> str:
    """Return the text of an answer behind a prompt that may open the thoughts."""
    if "tool_calls" in answer:
        remedy = "the chat template does not go on from its own prompt; use a model whose template does"
        raise InputError("tool_calls", "given", remedy)
    thought, text = thoughts(answer), body(answer)
    if not asked.rstrip().endswith(OPEN):
        return f"{OPEN}\n{thought}\n{CLOSE}\n\n{text}" if thought else text
    if not thought:
        remedy = "the chat template has the model think first; give thoughts, or leave the template out (--no-chat)"
        raise InputError("completion", "no thoughts", remedy)
    return f"{thought}\n{CLOSE}\n\n{text}" if asked.endswith("\n") else f"\n{thought}\n{CLOSE}\n\n{text}"


def _length(given: str, answer: str, said: str) -> int:
    """Return how much of a written answer is given; the template may have put thoughts before it or cut space."""
    if answer.startswith(given):
        return len(given)
    if not said.startswith(given.lstrip()) or said not in answer:
        raise InputError("prompt", given, "the chat template changes this beginning of an answer; leave it out")
    return answer.index(said) + len(given.lstrip())


def _check_kept(turn: int, message: dict[str, Any], written: str) -> None:
    """Raise `InputError` if a template that parts thoughts from the rest changed what a learned turn says."""
    for text in (thoughts(message), body(message)):
        if text not in written:
            remedy = "the chat template changes where its thoughts begin or end; give it as it is written there"
            raise InputError(f"turn {turn}", text if len(text) <= 40 else text[:40] + " …", remedy)
