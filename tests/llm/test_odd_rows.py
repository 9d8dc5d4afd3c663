"""Rows at the edges: nothing is dropped in silence, nothing given is learned, and errors name the turn."""

import pytest
from chat_rows import ANSWER, TOOLS, USER, knowing_tokenizer, read
from tiny_model import tiny_tokenizer

from icl_theory.errors import InputError
from icl_theory.llm.data.examples import Examples
from icl_theory.llm.data.prompting import Prompting
from icl_theory.upsampling.conversations import answer_of, conversation_of, texts_of
from icl_theory.upsampling.row_fields import NothingToLearn


def silent_tokenizer():
    """A template that skips all roles but two, and calls."""
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ raise_exception('no ' + m.role + ' here') }}", "")
    return tokenizer


def call(arguments, **more):
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "b", "arguments": arguments}}],
        **more,
    }


@pytest.mark.parametrize(
    ("row", "named"),
    [  # the words stand elsewhere in the conversation too
        ({"messages": [USER, {"role": "critic", "content": "b"}, ANSWER]}, "turn 1, content = 'b'"),
        (
            {"messages": [USER, call({"x": "a"}), {"role": "tool", "content": "b"}, ANSWER]},
            "turn 1, tool_calls, x = 'a'",
        ),
        ({"messages": [USER, ANSWER], "tools": [{"name": "a"}]}, "tools = 'a'"),
        ({"messages": [USER, call({})]}, "turn 1, tool_calls = 'b'"),
    ],
)
def test_what_is_left_out_is_found_though_its_words_stand_elsewhere(row, named):
    with pytest.raises(InputError, match=f"{named}: the chat template leaves it out"):
        read(row, tokenizer=silent_tokenizer())


def test_thoughts_without_an_opening_and_thoughts_twice():
    row = {"question": "a", "answer": "why</think>b"}
    assert read(row, thinking=True) == "<user>a<stop><model>⟦<think>why</think>b<stop>⟧"
    with pytest.raises(InputError, match="the answer has thoughts"):
        read(row)
    twice = {**ANSWER, "content": "<think>why</think>b", "reasoning_content": "why"}
    assert read({"messages": [USER, twice]}, thinking=True) == "<user>a<stop><model>⟦<think>why</think>b<stop>⟧"
    with pytest.raises(InputError, match="the content has other thoughts"):
        read({"messages": [USER, {**twice, "reasoning_content": "how"}]}, thinking=True)


def test_keys_of_none_are_those_of_a_table():
    talk = conversation_of({"tools": [{"name": "b", "unit": None}], "messages": [USER, call({"x": 1, "y": None})]})
    assert talk.tools == [{"type": "function", "function": {"name": "b"}}]
    assert talk.messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}
    told = conversation_of({"messages": [USER, call('{"x": 1, "y": null}')]})  # JSON says what it says
    assert told.messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1, "y": None}


def test_the_beginning_of_an_answer_is_that_of_its_own_turn():
    begun = {"role": "assistant", "content": "it is"}
    more = [{"role": "assistant", "content": " 4"}, USER, {"role": "assistant", "content": "so it is b"}]
    row = {"prompt": [USER, begun], "completion": more}
    chat = tiny_tokenizer(chat=True)
    assert read(row, tokenizer=tiny_tokenizer()) == "a\nit is 4\na\n⟦so it is b<end>⟧"
    told = "<user>a<model>it is⟦ 4<stop>⟧<user>a<model>⟦so it is b<stop>⟧"
    assert read(row, tokenizer=chat, learn="all") == told
    assert read(row, tokenizer=chat) == told.replace("⟦ 4<stop>⟧", " 4<stop>")
    thinking = Prompting(knowing_tokenizer(), thinking=True)
    asked = thinking.tokenizer.decode(thinking.asked({"prompt": [USER, begun], "completion": " b"}))
    assert asked == "<user>a<stop><model><think></think>it is"


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"problem": "p", "solution": None, "answer": "7"}, "p", "7"),
        ({"instruction": None, "output": "", "question": "q", "answer": "r"}, "q", "r"),
        ({"question": "q", "answer": "7", "response": None}, "q", "7"),
        ({"instruction": "double", "input": 0, "output": "0"}, "double\n0", "0"),
        ({"messages": [{"role": "user", "content": "", "value": "q"}, {"from": "ai ", "value": "r"}]}, "q", "r"),
        ({"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]'}, "q", "r"),
        ({"messages": [], "question": "q", "answer": "r"}, "q", "r"),
    ],
)
def test_what_is_empty_does_not_hide_what_is_there(row, prompt, completion):
    assert texts_of(row)[:2] == (prompt, completion)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"conversations": [USER, {"from": "oracle", "value": "r"}]}, "last turn = 'oracle': nobody known speaks it"),
        ({"tools": [{"name": "a"}], "functions": [{"name": "b"}], "messages": [USER, ANSWER]}, "the row has tools too"),
        ({"messages": [USER, call({}, function_call={"name": "b"})]}, "give the calls in one of them"),
        ({"question": "q", "answer": [{"type": "image", "image": "x", "text": ""}]}, "answer = .*give a text"),
        ({"messages": "hello"}, "messages = 'hello': give a list of turns, each with role and content"),
    ],
)
def test_what_cannot_be_read_is_named(row, named):
    with pytest.raises(InputError, match=named):
        conversation_of(row)


def test_empty_turns_are_counted_and_names_are_listed():
    rows = [{"messages": []}, {"messages": [{**USER, "name": "c"}, ANSWER]}, {"question": "a", "answer": None}]
    said = Examples(rows, Prompting(tiny_tokenizer(chat=True)), 16).lines()
    assert said[1:] == ["left out        2 without an answer to learn", "not read        fields messages.name"]
    with pytest.raises(NothingToLearn):
        conversation_of(rows[0])


def test_first_and_last_tokens_that_a_text_brings_are_not_doubled():
    plain, chat = tiny_tokenizer(), tiny_tokenizer(chat=True)
    assert read({"text": "a<end>\n"}, tokenizer=plain) == "a⟦<end>⟧"
    assert read({"question": "a", "answer": "b<end> \n"}, tokenizer=plain) == "a\n⟦b<end>⟧"
    for brought in ("<end>", "<stop>", "<stop>\n"):
        assert read({"question": "a", "answer": f"b{brought}"}, tokenizer=chat) == "<user>a<model>⟦b<stop>⟧"
    chat.bos_token, chat.chat_template = "<unknown>", "<unknown>" + chat.chat_template
    assert read({"question": "<unknown>a", "answer": "b"}, tokenizer=chat) == "<unknown><user>a<model>⟦b<stop>⟧"


def test_an_evaluation_needs_a_prompt_and_an_answer_only():
    chat = Prompting(tiny_tokenizer(chat=True))
    for row in ({"messages": [USER], "answer": "7"}, {"prompt": [USER], "answer": "7"}, {"prompt": "a", "answer": 7}):
        assert chat.tokenizer.decode(chat.asked(row)) == "<user>a<model>"
        assert chat.reference(row) == answer_of(row) == "7"
    with pytest.raises(InputError, match="questions with answers"):
        chat.reference({"messages": [USER]})
    opens = knowing_tokenizer()  # the model thinks first, whatever the reference says
    opens.chat_template = TOOLS.replace("<think></think>", "<think>\n").replace("not enable_", "not ")
    asked = Prompting(opens).asked({"question": "a", "answer": "b"})
    assert opens.decode(asked) == "<user>a<stop><model><think>\n"


def test_a_model_that_speaks_first():
    talk = {"messages": [{"role": "assistant", "content": "hi"}, USER, ANSWER]}
    chat = tiny_tokenizer(chat=True)
    for learn in ("last", "all"):  # nothing asks for the first turn
        assert read(talk, tokenizer=chat, learn=learn) == "<model>hi<stop><user>a<model>⟦b<stop>⟧"
    with pytest.raises(InputError, match="turn = 0: the model speaks first, and nothing asks for it"):
        read({"messages": [ANSWER]}, tokenizer=chat)


@pytest.mark.parametrize("answer", ["so<think>x</think>b", "<think>x</think>y</think>b", "<think>x<think>y</think>b"])
def test_thoughts_that_the_template_parts_otherwise_are_refused(answer):
    parting = knowing_tokenizer()  # what stands between the last <think> and the first </think> after it is the thought
    parting.chat_template = TOOLS.replace(
        "(said[0].replace('<think>', '') if said | length > 1 else '')",
        "(said[0].split('<think>')[-1] if said | length > 1 else '')",
    )
    with pytest.raises(InputError, match=r"turn 1 = .*changes where its thoughts begin or end"):
        read({"question": "a", "answer": answer}, tokenizer=parting, thinking=True)
    assert read({"question": "a", "answer": "<think>x</think>b"}, tokenizer=parting, thinking=True).endswith(
        "⟦<think>x</think>b<stop>⟧"
    )


def test_a_call_at_the_end_is_learned_where_the_template_puts_no_token_behind_calls():
    bare = knowing_tokenizer()
    bare.chat_template = TOOLS.replace(
        "{% endif %}<stop>{% endfor %}", "{% endif %}{% if not m.tool_calls %}<stop>{% endif %}{% endfor %}"
    )
    told = read({"messages": [USER, {**call({"e": "6"}), "content": "c"}]}, tokenizer=bare, thinking=True)
    assert told == "<user>a<stop><model>⟦<think></think>c<call>b 6<stop>⟧"


@pytest.mark.parametrize("given", ["it is ", "a:\n", " it is"])
@pytest.mark.parametrize("thinking", [False, True])
def test_a_beginning_is_asked_as_it_is_trained(given, thinking):
    trimming = knowing_tokenizer()  # it cuts space around what is said
    prompting = Prompting(trimming, thinking=thinking)
    row = {"prompt": [USER, {"role": "assistant", "content": given}], "completion": "42"}
    example = prompting.tokenized(row)
    assert trimming.decode(example.tokens[example.learned]) == "42<stop>"
    assert prompting.asked(row) == example.tokens[~example.learned].tolist()


def test_what_is_blank_or_not_a_number_is_empty():
    for answer in ("  ", "\n", float("nan"), None):
        assert not conversation_of({"question": "a", "answer": answer}).learned("last")
        assert answer_of({"problem": "a", "answer": answer, "solution": "b"}) == "b"
    with pytest.raises(NothingToLearn):
        Prompting(tiny_tokenizer()).tokenized({"text": " "})


def test_marks_that_contradict_each_other_are_refused():
    with pytest.raises(InputError, match=r"messages\[1\]\.weight = 1: train says the opposite"):
        conversation_of({"messages": [USER, {**ANSWER, "weight": 1, "train": False}]})


def test_many_rows_are_tokenized_together_as_one_by_one(monkeypatch):
    rows = [
        {"question": "abcdefg"[:place], "answer": "" if place == 4 else "xyz"[: place % 3 + 1]} for place in range(1, 8)
    ]
    rows[5] = {"text": "<end>"}  # nothing is learned of a single token
    prompting, seen = Prompting(tiny_tokenizer()), []
    monkeypatch.setattr("icl_theory.llm.data.examples.TOGETHER", 3)
    made = Examples(rows, prompting, 16, progress=lambda *counts: seen.append(counts))
    assert seen == [(3, 7), (6, 7), (7, 7)]
    assert made.places.tolist() == [0, 1, 2, 4, 6]
    for row, tokens in zip(made.rows, made.tokens, strict=True):
        alone = prompting.tokenized(row)
        assert (tokens.tokens.tolist(), tokens.learned.tolist()) == (alone.tokens.tolist(), alone.learned.tolist())
    with pytest.raises(InputError, match=r"row 5, text = .*udc3d.*half a character"):
        Examples([*rows[:5], {"question": "a", "answer": "\udc3d"}], prompting, 16)
