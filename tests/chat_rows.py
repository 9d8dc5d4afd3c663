"""A tokenizer whose chat template knows tools and thoughts, and what it makes of a row."""

from tiny_model import SPECIAL, tiny_tokenizer

from icl_theory.llm.data.examples import rendered
from icl_theory.llm.data.prompting import Prompting

TOOLS = (  # knows system prompts, tools, calls and thoughts; writes the thoughts of the last turn only
    "{% if tools %}<tools>{% for t in tools %}{{ t.function.name }} {% endfor %}<stop>{% endif %}"
    "{% for m in messages %}<{{ m.role if m.role != 'assistant' else 'model' }}>"
    "{% if m.role == 'assistant' %}{% set said = m.content.split('</think>') %}"
    "{% set thought = m.reasoning_content or (said[0].replace('<think>', '') if said | length > 1 else '') %}"
    "{% if loop.last %}<think>{{ thought.strip() }}</think>{% endif %}{{ said[-1].strip() }}"
    "{% for c in m.tool_calls %}<call>{{ c.function.name }} {{ c.function.arguments.e }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}<stop>{% endfor %}"
    "{% if add_generation_prompt %}<model>{% if not enable_thinking %}<think></think>{% endif %}{% endif %}"
)
MORE = ["<system>", "<tool>", "<tools>", "<call>", "<think>", "</think>"]


def knowing_tokenizer():
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL + MORE})
    tokenizer.chat_template = TOOLS
    return tokenizer


def read(row, *, tokenizer=None, **settings):
    """Return what the model reads of a row, with what it learns in brackets."""
    tokenizer = knowing_tokenizer() if tokenizer is None else tokenizer
    return rendered(Prompting(tokenizer, **settings).tokenized(row), tokenizer)


USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
