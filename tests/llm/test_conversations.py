"""Rows of every shape are read as conversations, and chat templates say all of them or refuse by name."""

import numpy as np
import pytest
from chat_rows import ANSWER, TOOLS, USER, knowing_tokenizer, read
from tiny_model import tiny_tokenizer

from icl_theory.errors import InputError
from icl_theory.llm.data.examples import Examples
from icl_theory.llm.data.prompting import Prompting
from icl_theory.upsampling.conversations import answer_of, conversation_of, texts_of, unused_fields
from icl_theory.upsampling.row_fields import Fields


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER]},
        {"conversations": [USER, ANSWER]},
        {"conversations": [{"role": "User", "content": "a"}, {"role": "Assistant", "content": "b"}]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": [USER], "completion": [ANSWER]},
        {"prompt": "a", "completion": "b"},
        {"question": "a", "response": "b"},
        {"problem": "a", "answer": "b"},
        {"instruction": "a", "context": "", "response": "b"},
        {"instruction": "a", "input": None, "output": "b", "history": []},
        {"messages": [USER, {**ANSWER, "tool_calls": None}]},  # as tables fill fields that other rows have
    ],
)
def test_all_shapes_say_the_same(row):
    assert read(row, tokenizer=tiny_tokenizer(chat=True)) == "<user>a<model>⟦b<stop>⟧"
    assert read(row, tokenizer=tiny_tokenizer()) == "a\n⟦b<end>⟧"


def test_context_system_prompt_and_history_are_told():
    assert texts_of({"instruction": "a", "context": "c", "response": "b"})[:2] == ("a\nc", "b")
    row = {"instruction": "a", "input": "", "output": "b", "system": "s", "history": [["x", "y"]]}
    assert read(row) == "<system>s<stop><user>x<stop><model>y<stop><user>a<stop><model><think></think>⟦b<stop>⟧"
    assert read({"system_prompt": "s", "question": "a", "response": "b"}).startswith("<system>s<stop><user>a")
    assert read({"system": "s", "messages": [USER, ANSWER]}, tokenizer=tiny_tokenizer()) == "s\na\n⟦b<end>⟧"
    with pytest.raises(InputError, match="no system here"):
        read({"system": "s", "messages": [USER, ANSWER]}, tokenizer=tiny_tokenizer(chat=True))
    with pytest.raises(InputError, match="begin with a system prompt already"):
        read({"system": "s", "messages": [{"role": "system", "content": "t"}, USER, ANSWER]})


def test_tools_and_calls_in_three_dialects_are_the_same():
    call = {"name": "c", "arguments": {"e": "6"}}
    tools = [{"type": "function", "function": {"name": "c"}}]
    told = "<tools>c <stop><user>a<stop><model><call>c 6<stop><tool>7<stop><model><think></think>⟦b<stop>⟧"
    calling = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]}
    assert read({"tools": tools, "messages": [USER, calling, {"role": "tool", "content": "7"}, ANSWER]}) == told
    older = {"role": "assistant", "content": "", "function_call": {"name": "c", "arguments": '{"e": "6"}'}}
    result = {"role": "function", "name": "c", "content": "7"}
    assert read({"functions": [{"name": "c"}], "messages": [USER, older, result, ANSWER]}) == told
    shared = [
        {"from": "human", "value": "a"},
        {"from": "function_call", "value": '{"name": "c", "arguments": {"e": "6"}}'},
        {"from": "observation", "value": "7"},
        {"from": "gpt", "value": "b"},
    ]
    assert read({"tools": '[{"name": "c"}]', "conversations": shared}) == told
    learned = read({"tools": tools, "messages": [USER, calling]}, thinking=True)
    assert learned == "<tools>c <stop><user>a<stop><model>⟦<think></think><call>c 6<stop>⟧"


def test_thoughts_are_learned_once():
    told = "<user>a<stop><model>⟦<think>why</think>b<stop>⟧"
    for answer in ({**ANSWER, "reasoning_content": "why"}, {**ANSWER, "content": "<think>why</think>b"}):
        assert read({"messages": [USER, answer]}, thinking=True) == told
        with pytest.raises(InputError, match="the answer has thoughts; give --thinking"):
            read({"messages": [USER, answer]})
    assert answer_of({"question": "a", "answer": "<think>7</think>b"}) == "<think>7</think>b"
    opens = knowing_tokenizer()  # as DeepSeek-R1: it opens thoughts, and leaves them out of what was said
    opens.chat_template = TOOLS.replace("<think>{{ thought.strip() }}</think>", "").replace(
        "<think></think>", "<think>\n"
    )
    opens.chat_template = opens.chat_template.replace("not enable_thinking", "true")
    row = {"question": "a", "answer": "<think>why</think>b"}
    assert read(row, tokenizer=opens) == "<user>a<stop><model><think>\n⟦why\n</think>\n\nb<stop>⟧"
    with pytest.raises(InputError, match="has the model think first; give thoughts"):
        read({"question": "a", "answer": "b"}, tokenizer=opens)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"messages": [USER, {**ANSWER, "tool_calls": [{"function": {"name": "c"}}]}]}, "turn 1, tool_calls = 'c'"),
        ({"messages": [USER, {**ANSWER, "reasoning_content": "why"}]}, "turn 1, thoughts = 'why'"),
        ({"messages": [USER, ANSWER], "tools": [{"name": "c"}]}, "tools = 'c'"),
        ({"messages": [USER, {"role": "critic", "content": "no"}, ANSWER]}, "turn 1, content = 'no'"),
    ],
)
def test_what_a_template_or_plain_text_leaves_out_is_named(row, named):
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ raise_exception('no ' + m.role + ' here') }}", "")
    with pytest.raises(InputError, match=f"{named}: the chat template leaves it out"):
        read(row, tokenizer=tokenizer)
    if "critic" not in str(row):
        with pytest.raises(InputError, match="plain text has no form for it"):
            read(row, tokenizer=tiny_tokenizer())


TWO = [USER, ANSWER, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]


def test_all_turns_are_learned_on_request_and_marked_ones_always():
    chat = tiny_tokenizer(chat=True)
    told = "<user>a<model>⟦b<stop>⟧<user>c<model>⟦d<stop>⟧"
    assert read({"messages": TWO}, tokenizer=chat, learn="all") == told
    assert read({"messages": TWO}, tokenizer=chat) == told.replace("⟦b<stop>⟧", "b<stop>")
    marked = [{**turn, **({"weight": 1} if turn is ANSWER else {})} for turn in TWO]
    assert read({"messages": marked}, tokenizer=chat) == told
    off = [*TWO[:3], {**TWO[3], "train": False}]
    assert read({"messages": off}, tokenizer=chat, learn="all") == "<user>a<model>⟦b<stop>⟧"
    with pytest.raises(InputError, match="nothing to learn"):
        read({"messages": off}, tokenizer=chat)
    open_end = {"messages": TWO[:3]}  # a question without an answer after it
    assert read(open_end, tokenizer=chat, learn="all") == "<user>a<model>⟦b<stop>⟧"
    with pytest.raises(InputError, match=r"weight = 0\.5: a turn is learned"):
        read({"messages": [USER, {**ANSWER, "weight": 0.5}]}, tokenizer=chat)
    with pytest.raises(InputError, match="plain text does not part turns"):
        read({"messages": TWO}, tokenizer=tiny_tokenizer(), learn="all")
    with pytest.raises(InputError, match="learn = 'first'"):
        Prompting(chat, learn="first")


def test_an_earlier_turn_is_learned_without_the_empty_thought_of_the_last():
    told = "<user>a<stop><model>⟦b<stop>⟧<user>c<stop><model><think></think>⟦d<stop>⟧"
    assert read({"messages": TWO}, learn="all") == told
    last = tiny_tokenizer(chat=True)  # earlier answers end in another token
    last.chat_template = last.chat_template.replace("<stop>", "{{ '<stop>' if loop.last else '<end>' }}")
    with pytest.raises(InputError, match="only the last ends in <stop>"):
        read({"messages": TWO}, tokenizer=last, learn="all")


def test_an_evaluation_asks_for_the_last_turn_whatever_is_learned():
    tokenizer = tiny_tokenizer(chat=True)
    for row in ({"messages": TWO}, {"messages": [*TWO[:3], {**TWO[3], "weight": 0}]}):
        asked = Prompting(tokenizer, learn="all").asked(row)
        assert tokenizer.decode(asked) == "<user>a<model>b<stop><user>c<model>"


def test_a_prompt_that_ends_in_an_answer_is_continued():
    row = {"prompt": [USER, {"role": "assistant", "content": "it is"}], "completion": " b"}
    for completion in (" b", [{"role": "assistant", "content": " b"}]):
        row["completion"] = completion
        assert read(row, tokenizer=tiny_tokenizer(chat=True)) == "<user>a<model>it is⟦ b<stop>⟧"
        assert read(row, tokenizer=tiny_tokenizer()) == "a\nit is⟦ b<end>⟧"
    tokenizer = tiny_tokenizer(chat=True)
    assert tokenizer.decode(Prompting(tokenizer).asked(row)) == "<user>a<model>it is"
    assert answer_of(row) == " b"


def test_fields_of_ones_own():
    row = {"ask": "a", "say": "b", "sum": 7, "rule": "s", "id": 3, "source": "x", "empty": ""}
    fields = Fields("ask", "say", "sum", "rule")
    assert read(row, fields=fields) == "<system>s<stop><user>a<stop><model><think></think>⟦b<stop>⟧"
    assert answer_of(row, fields) == "7"
    assert unused_fields(row, fields) == {"id", "source", "sum"}
    assert read(row, tokenizer=tiny_tokenizer(), fields=Fields(completion="say")) == "b⟦<end>⟧"
    dialog = {"dialog": [USER, ANSWER]}
    assert read(dialog, tokenizer=tiny_tokenizer(), fields=Fields(prompt="dialog")) == "a\n⟦b<end>⟧"
    for wrong, named in (
        (Fields(prompt="asks", completion="say"), "asks = 'missing': the row has ask, say"),
        (Fields(prompt="ask"), "ask = 'a': give a list of turns, .* or name the field of its answer too"),
        (Fields("ask", "say", system="rules"), "rules = 'missing'"),
    ):
        with pytest.raises(InputError, match=named):
            read(row, fields=wrong)
    with pytest.raises(InputError, match="total = 'missing'"):
        answer_of(row, Fields("ask", "say", "total"))


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"messages": [USER, {"content": "b"}]}, r"messages\[1\] = 'content': every turn needs a role"),
        ({"messages": [USER, {**ANSWER, "content": {"a": 1}}]}, r"messages\[1\] = .*give a text"),
        ({"messages": [USER, {**ANSWER, "tool_calls": "c"}]}, r"tool_calls = 'c': give a list"),
        ({"messages": [USER, {**ANSWER, "tool_calls": [{"function": 3}]}]}, "a call = 3: give the name"),
        ({"instruction": "a", "output": "b", "history": ["x"]}, "history = .*give a list of pairs"),
        ({"tools": "c", "messages": [USER, ANSWER]}, "tools = 'c': give a list"),
    ],
)
def test_turns_of_another_form_are_named(row, named):
    with pytest.raises(InputError, match=named):
        conversation_of(row)


def test_fields_that_are_not_read_are_listed_once_and_examples_are_shown():
    tokenizer = tiny_tokenizer(chat=True)
    rows = [{"id": place, "question": "a", "answer": "b", "source": "s", "level": None} for place in range(3)]
    rows.append({"id": 3, "messages": [{**USER, "time": 1}, ANSWER]})
    examples = Examples(rows, Prompting(tokenizer), 16)
    assert examples.lines()[1:] == ["not read        fields messages.time, source"]
    assert examples.shown(1) == [
        "example         row 0: 5 tokens, 2 of them learned, between ⟦ and ⟧",
        "  | <user>a<model>⟦b<stop>⟧",
    ]
    assert len(examples.shown(9)) == 8
    np.testing.assert_array_equal(examples.tokens[0].learned, [False, False, False, True, True])
