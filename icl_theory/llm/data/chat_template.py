"""Conversations as a chat template writes them, cut into what is given and what is learned."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from typing import Any

from icl_theory.errors import InputError, error_text
from icl_theory.llm.data.segments import NothingToLearn, Segment
from icl_theory.upsampling.conversations import ASSISTANT, Conversation, body, thoughts

TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")  # today's date
DAY = datetime.date(2024, 7, 26)  # replaces it, since the prompts of a run must not change overnight
MARK = "\u2402answer\u2403"  # placeholder that occurs in no template
OPEN = "<think>"


class ChatTemplate:
    """The chat template of a tokenizer.

    Everything that a row says must appear in what the template writes: a turn, a call of a tool or a thought that it
    leaves out is an error.

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
        self.end = self._answer_end()
        self.end_text: str = tokenizer.decode([self.end])

    def segments(self, conversation: Conversation, turns: Sequence[int]) -> list[Segment]:
        """Return the segments of a conversation up to its last learned turn.

        A learned turn begins after the prompt that the template writes for it, and ends with the token after an answer.
        If the template writes the last answer differently from its own prompt, the answer follows the prompt as it is.

        Args:
            conversation: the conversation.
            turns: the turns that are learned, in order.

        Raises:
            InputError: nothing to learn, a template that refuses the conversation or leaves a part of it out, thoughts
                while `thinking` is off, or an earlier turn whose beginning cannot be found.
        """
        if not turns:
            raise NothingToLearn("completion")
        last = turns[-1]
        messages = [self._without_end(message) for message in conversation.messages[: last + 1]]
        conversation = conversation._replace(messages=messages)
        if self.has_switch and not self.thinking and any(thoughts(messages[turn]) for turn in turns):
            raise InputError("thinking", False, "the answer has thoughts; give --thinking")
        asked, whole = self._asked(conversation, last), self._rendered(messages, conversation.tools)
        if not whole.startswith(asked):
            whole = asked + _behind(asked, messages[last])
        begins = [self._beginning(conversation, turn, whole) for turn in turns[:-1]] + [len(asked)]
        closes = [self._close(whole, begin, messages[turn]) for begin, turn in zip(begins, turns, strict=True)]
        if any(close > begin for close, begin in zip(closes, begins[1:], strict=False)):
            raise InputError("learned turns", list(turns), f"only the last ends in {self.end_text}; learn it alone")
        _check_complete(conversation, turns, whole, "".join(map(whole.__getitem__, map(slice, begins, closes))))
        begins[-1] += _length(conversation.prefill, whole[begins[-1] :])
        cuts = [0, *(place for part in zip(begins, closes, strict=True) for place in part)]
        return [Segment(whole[cuts[i] : cuts[i + 1]], bool(i % 2)) for i in range(len(cuts) - 1)]

    def _without_end(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return a message without the token after an answer, which the template writes."""
        return {**message, "content": message["content"].removesuffix(self.end_text)}

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
        return place if end < 0 else end + len(self.end_text)

    def _asked(self, conversation: Conversation, turn: int, thinking: bool | None = None) -> str:
        """Return the prompt for a turn."""
        thinks = self.thinking if thinking is None else thinking
        messages, tools = conversation.messages[:turn], conversation.tools
        return self._rendered(messages, tools, add_generation_prompt=True, enable_thinking=thinks)

    def _rendered(self, messages: list[dict[str, Any]], tools: Sequence[Any] = (), **settings: Any) -> str:
        settings = {"enable_thinking": self.thinking, "chat_template": self.template, "tokenize": False, **settings}
        try:
            return str(self.tokenizer.apply_chat_template(messages, tools=list(tools) or None, **settings))
        except Exception as error:  # many types
            raise InputError(
                "chat template",
                error_text(error),
                "it refuses the conversation; mend the row, or use plain text (--no-chat)",
            ) from None

    def _answer_end(self) -> int:
        """Return the first special token after an answer in the template, else the first token after whitespace."""
        messages = [{"role": "user", "content": "x"}, {"role": ASSISTANT, "content": MARK}]
        behind = self._rendered(messages).rpartition(MARK)[2]
        encode = lambda text: self.tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
        special = set(self.tokenizer.all_special_ids)
        tokens = [token for token in encode(behind) if token in special] or encode(behind.lstrip())
        return int(tokens[0] if tokens else self.tokenizer.eos_token_id)


def _behind(asked: str, answer: dict[str, Any]) -> str:
    """Return the text of an answer behind a prompt that may open the thoughts."""
    if "tool_calls" in answer:
        remedy = "the chat template does not go on from its own prompt; use a model whose template does"
        raise InputError("tool_calls", "given", remedy)
    thought, text = thoughts(answer), body(answer)
    if not asked.rstrip().endswith(OPEN):
        return f"{OPEN}\n{thought}\n</think>\n\n{text}" if thought else text
    if not thought:
        remedy = "the chat template has the model think first; give thoughts, or leave the template out (--no-chat)"
        raise InputError("completion", "no thoughts", remedy)
    return f"{thought}\n</think>\n\n{text}" if asked.endswith("\n") else f"\n{thought}\n</think>\n\n{text}"


def _length(prefill: str, answer: str) -> int:
    """Return how many characters of an answer are its prefill; the template may have cut space around it."""
    given = prefill.strip()
    return answer.find(given) + len(given) if given in answer else 0


def _check_complete(conversation: Conversation, turns: Sequence[int], whole: str, learned: str) -> None:
    """Raise `InputError` if what a template wrote lacks a turn, a call, a tool, or a thought that is to be learned."""
    wanted = []
    for place, message in enumerate(conversation.messages):
        wanted.append((f"turn {place}, content", body(message), whole))
        wanted += [
            (f"turn {place}, tool_calls", call["function"]["name"], whole) for call in message.get("tool_calls", ())
        ]
    wanted += [("tools", _name(tool), whole) for tool in conversation.tools]
    wanted += [(f"turn {turn}, thoughts", thoughts(conversation.messages[turn]), learned) for turn in turns]
    for field, text, written in wanted:
        if text not in written and json.dumps(text, ensure_ascii=False)[1:-1] not in written:
            shown = text if len(text) <= 40 else text[:40] + " …"
            raise InputError(
                field, shown, "the chat template leaves it out; use another model, or take it out of the row"
            )


def _name(tool: Any) -> str:
    function = tool.get("function", tool)
    return str(function.get("name", "")) if isinstance(function, dict) else ""


def dated(template: str) -> str:
    """Return the template with the current date replaced by a fixed one."""
    return TODAY.sub(lambda found: repr(DAY.strftime(found[2])), template)
