"""Fields of one's own rows are named by `Fields` or by a mapping, and anything else is refused in one line."""

import pytest
from tiny_model import tiny_tokenizer

from icl_theory.errors import InputError
from icl_theory.llm.data.prompting import Fields, Prompting
from icl_theory.llm.job.settings import Job

NAMED = {"prompt": "ask", "completion": "say", "answer": "sum"}


def test_a_mapping_names_fields_as_fields_do():
    tokenizer, row = tiny_tokenizer(), {"ask": "1+1", "say": "it is 2", "sum": "2", "question": "no", "answer": "no"}
    prompting = Prompting(tokenizer, fields=NAMED)
    assert tokenizer.decode(prompting.tokenized(row).tokens) == "1+1\nit is 2<end>"
    assert tokenizer.decode(prompting.asked(row)) == "1+1\n"
    assert prompting.reference(row) == "2"
    assert Job("model", "rows.jsonl", fields=NAMED).fields == Fields("ask", "say", "sum")


@pytest.mark.parametrize("given", ["ask", ["ask", "say"], None, {"question": "ask"}, {"prompt": 0}, {0: "ask"}])
@pytest.mark.parametrize(
    "make", [lambda fields: Prompting(tiny_tokenizer(), fields=fields), lambda fields: Job("m", "d", fields=fields)]
)
def test_anything_else_is_refused(given, make):
    with pytest.raises(
        InputError, match=r"fields = .*: give a mapping from some of prompt, completion, answer, system"
    ):
        make(given)
