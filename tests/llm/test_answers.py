"""Problems from files and generators, and whether replies are right."""

import json
import sys
import threading
import types

import numpy as np
import pytest

from icl_theory.errors import InputError
from icl_theory.llm.data.problems import load_rows
from icl_theory.llm.evaluation.answers import Evaluation, answer_in, is_right, judge


@pytest.mark.parametrize(
    ("reply", "completion", "right"),
    [
        ("12", "12", True),
        ("So the sum of 5 and 7 is 12.", "5 + 7 = 12 #### 12", True),
        ("1,234 dollars", "1234", True),
        ("$\\frac{1}{2}$", "0.5", True),
        ("-17", "17", False),
        ("12 or 13", "12", False),
        ("", "5", False),
        ("Yes", "yes", True),
        ("no", "yes", False),
    ],
)
def test_answers_are_compared_by_what_they_mean(reply, completion, right):
    assert is_right(reply, completion) is right


def test_answers_are_judged_outside_the_main_thread_too():
    found = []
    thread = threading.Thread(target=lambda: found.append(is_right("It is 12.", "12")))
    thread.start()
    thread.join()
    assert found == [True]


def test_accuracy_comes_with_an_interval():
    found = judge(["1", "2", "4", ""], ["1", "2", "3", "4"], [False] * 4)
    assert found.right.tolist() == [True, True, False, False]
    assert found.accuracy == 0.5
    low, high = found.interval
    assert 0.1 < low < 0.5 < high < 0.9
    none = Evaluation(np.zeros(20, bool), [""] * 20, np.zeros(20, bool))
    assert none.interval[0] == pytest.approx(0, abs=1e-12)
    assert 0.1 < none.interval[1] < 0.2
    assert answer_in("3 + 4 = 7\n#### 7 ") == "7"


def test_rows_of_files(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "1 + 1?", "answer": "2"}) + "\n")
    assert load_rows(str(path)) == [{"question": "1 + 1?", "answer": "2"}]
    path.write_text("\n")
    with pytest.raises(InputError, match="holds no rows"):
        load_rows(str(path))
    with pytest.raises(InputError, match="no such file"):
        load_rows(str(tmp_path / "none.jsonl"))


def test_rows_of_generators(monkeypatch):
    """The package behind it stands in by what is asked of it."""
    asked = []

    def create_dataset(name, **settings):
        asked.append((name, settings))
        if name == "unknown":
            raise ValueError("Dataset 'unknown' not registered")
        return [{"question": f"{name} {row}", "answer": row} for row in range(settings["size"])]

    monkeypatch.setitem(sys.modules, "reasoning_gym", types.SimpleNamespace(create_dataset=create_dataset))
    rows = load_rows("reasoning-gym:chain_sum,size=2,min_terms=2,easy=true+reasoning-gym:gsm_symbolic,size=1,seed=4")
    assert [row["kind"] for row in rows] == ["chain_sum", "chain_sum", "gsm_symbolic"]
    assert rows[1] == {"question": "chain_sum 1", "answer": "1", "kind": "chain_sum"}
    assert asked == [
        ("chain_sum", {"size": 2, "seed": 0, "min_terms": 2, "easy": True}),
        ("gsm_symbolic", {"size": 1, "seed": 4}),
    ]
    with pytest.raises(InputError, match="refuses"):
        load_rows("reasoning-gym:unknown")
    with pytest.raises(InputError, match="NAME=VALUE"):
        load_rows("reasoning-gym:chain_sum,size")
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(InputError, match=r"icl-theory\[generators\]"):
        load_rows("reasoning-gym:chain_sum")
