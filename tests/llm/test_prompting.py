"""Rows as prompts and what is to be learned: by the template of chats and as plain text."""

import pytest
from tiny_model import tiny_tokenizer

from icl_theory.errors import InputError
from icl_theory.llm.data.prompting import Prompting
from icl_theory.upsampling.conversations import texts_of


def test_prompts_by_template_and_as_plain_text():
    tokenizer = tiny_tokenizer(chat=True)
    row = {"question": "ab", "answer": "c"}
    chat, plain = Prompting(tokenizer), Prompting(tokenizer, chat=False)
    assert tokenizer.decode(chat.tokenized(row).tokens) == "<user>ab<model>c<stop>"
    assert tokenizer.decode(chat.asked(row)) == "<user>ab<model>"
    assert tokenizer.decode(plain.tokenized(row).tokens) == "ab\nc<end>"
    assert tokenizer.decode(plain.asked(row)) == "ab\n"
    assert [tokenizer.decode(token) for token in chat.stop] == ["<end>", "<stop>"]
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}]
    spoken = {"conversations": [*turns, {"from": "gpt", "value": "d"}]}
    assert tokenizer.decode(chat.asked(spoken)) == "<user>a<model>b<stop><user>c<model>"
    assert tokenizer.decode(chat.tokenized(spoken).tokens[-2:]) == "d<stop>"
    assert tokenizer.decode(chat.tokenized({"text": "abc"}).tokens) == "abc<stop>"
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    for answer in ([{"role": "assistant", "content": "d"}], "d"):
        assert tokenizer.decode(chat.tokenized({"prompt": asked, "completion": answer}).tokens[-2:]) == "d<stop>"
        assert (
            tokenizer.decode(chat.asked({"prompt": asked, "completion": answer}))
            == "<user>a<model>b<stop><user>c<model>"
        )
    for empty in ({"question": "ab", "answer": ""}, {"messages": asked}):
        with pytest.raises(InputError, match="nothing to learn"):
            chat.tokenized(empty)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ m.content }}<stop>", "{{ m.content }} <stop>")
    assert tokenizer.decode(Prompting(tokenizer).end) == "<stop>"
    tokenizer.chat_template = tokenizer.chat_template.replace(" <stop>", " =\n")
    assert tokenizer.decode(Prompting(tokenizer).end) == "="
    with pytest.raises(InputError, match="no chat template"):
        Prompting(tiny_tokenizer(), chat=True)
    with pytest.raises(InputError, match="no such switch"):
        Prompting(tiny_tokenizer(chat=True), thinking=True)


def test_the_first_and_the_last_token_are_not_doubled():
    tokenizer = tiny_tokenizer()
    prompting = Prompting(tokenizer)
    tokenizer.bos_token, prompting.begin = "<end>", prompting.end  # a tokenizer that begins texts too
    once = prompting.tokenized({"text": "abc"}).tokens.tolist()
    assert once[0] == once[-1] == prompting.end
    assert prompting.tokenized({"text": "<end>abc<end>"}).tokens.tolist() == once
    for row in ({"question": "<end>ab", "answer": "c<end>"}, {"question": "ab", "answer": "c"}):
        assert tokenizer.decode(prompting.tokenized(row).tokens) == "<end>ab\nc<end>"
    chat = Prompting(tiny_tokenizer(chat=True))
    assert (
        chat.tokenizer.decode(chat.tokenized({"question": "a", "answer": "c<stop>"}).tokens) == "<user>a<model>c<stop>"
    )


def test_a_template_that_says_today_does_not_change_overnight():
    """As that of Llama 3.2 does; and it is asked without thinking, as it writes answers itself."""
    tokenizer = tiny_tokenizer(chat=True)
    dated = "{% if strftime_now is defined %}{{ strftime_now('%d%m') }}{% endif %}" + tokenizer.chat_template
    tokenizer.chat_template = dated
    assert tokenizer.decode(Prompting(tokenizer).asked({"question": "a", "answer": "b"})) == "2607<user>a<model>"
    switch = "{% if enable_thinking is defined and not enable_thinking %}?{% endif %}"
    tokenizer.chat_template = dated.replace("<model>{% endif %}", f"<model>{switch}{{% endif %}}")
    for thinking, said in ((False, "2607<user>a<model>?"), (True, "2607<user>a<model>")):
        prompting = Prompting(tokenizer, thinking=thinking)
        assert tokenizer.decode(prompting.asked({"question": "a", "answer": "b"})) == said


def test_texts_in_parts_and_what_is_none():
    part = {"type": "text", "text": "a"}
    row = {"messages": [{"role": "user", "content": [part, part]}, {"role": "assistant", "content": [part]}]}
    assert texts_of(row)[:2] == ("aa", "a")
    for value in ({"a": 1}, [1, 2], [{"type": "image"}]):
        with pytest.raises(InputError, match="give a text"):
            texts_of({"question": "a", "answer": value})
