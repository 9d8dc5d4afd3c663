"""Problems from files and generators, and whether replies are right."""

import json
import logging
import sys
import threading
import types

import numpy as np
import pytest

from icl_theory.errors import InputError
from icl_theory.llm.data.problems import load_rows
from icl_theory.llm.evaluation.answers import Evaluation, answer_in, is_right, judge
from icl_theory.upsampling.conversations import answer_of, texts_of


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
        ("\\boxed{\\pi}", "So the area is $\\pi$.", True),
        ("\\boxed{2\\pi}", "So the area is $\\pi$.", False),
        ("\\boxed{x+y}", "The answer is $y+x$.", True),
        ("It costs \\$18", "18", True),
        ("\\$18", "18", True),
        ("\\boxed{11}", "11\\sqrt2", False),
        ("\\boxed{11\\sqrt{2}}", "11\\sqrt2", True),
        ("\\boxed{2\\sqrt{3}}", "2\\sqrt{3}", True),
        ("\\boxed{2}", "2\\sqrt{3}", False),
        ("2\\sqrt 3", "2\\sqrt{3}", True),
        ("\\boxed{(3,5)}", "(3, 5)", True),
        ("\\boxed{(5,3)}", "(3, 5)", False),
        ("5", "(3, 5)", False),
        ("(3, 5)", "(3, 5)", True),
        ("The point is $(3,5)$.", "(3, 5)", True),
        ("\\boxed{6-5i}", "6 - 5i", True),
        ("5", "6 - 5i", False),
        ("\\boxed{6}", "6 - 5i", False),
        ("-5i+6", "6 - 5i", True),
        ("\\boxed{x^2+3x-4}", "x^2 + 3x - 4", True),
        ("4", "x^2 + 3x - 4", False),
        ("$(x+4)(x-1)$", "x^2 + 3x - 4", True),
        ("\\boxed{3\\pi}", "3\\pi", True),
        ("3", "3\\pi", False),
        ("3 \\pi", "3\\pi", True),
        ("2, 3", "2, 3", True),
        ("3, 2", "2, 3", True),
        ("\\boxed{2,3}", "2, 3", True),
        ("3", "2, 3", False),
        ("\\boxed{3}", "2, 3", False),
        ("10^6", "10^{6}", True),
        ("1000000", "10^{6}", True),
        ("1,000,000", "10^{6}", True),
        ("10", "10^{6}", False),
        ("1e6", "10^{6}", True),
        ("[0,1)", "[0, 1)", True),
        ("\\boxed{[0,1)}", "[0, 1)", True),
        ("(0,1)", "[0, 1)", False),
        ("1", "[0, 1)", False),
        ("B", "B", True),
        ("The answer is B.", "B", True),
        ("\\boxed{B}", "B", True),
        ("\\boxed{\\text{B}}", "B", True),
        ("(B)", "B", True),
        ("A", "B", False),
        ("The answer is (B).", "B", True),
        ("**B**", "B", True),
        ("Answer: B", "B", True),
        ("B. Paris", "B", True),
        ("(B) Paris", "B", True),
        ("A. Berlin", "B", False),
        ("A bit of B. And so on", "A", False),
        ("So A\n</think>\n\nB", "B", True),
        ("<think>B</think>A", "B", False),
        ("b", "B", True),
        ("Tuesday", "\\text{Tuesday}", True),
        ("\\boxed{\\text{Tuesday}}", "\\text{Tuesday}", True),
        ("Monday", "\\text{Tuesday}", False),
        ("The answer is Tuesday.", "\\text{Tuesday}", True),
        ("First it is Tuesday, then it is Monday.", "Monday", True),
        ("It is not Monday.", "Monday", False),
        ("The clock says 6:09.", "06:09", True),
        ("It takes 00:34:29.", "00:34:28", False),
        ("From 5:10 it takes until 6:09.", "5:10", False),
        ("−3", "-3", True),
        ("-3", "−3", True),
        ("3", "−3", False),
        ("x = 7", "7", True),
        ("7", "x = 7", True),
        ("I get \\boxed{18}.\n#### Check\nWe have 9+9=18, and 20 is not.", "18", True),
        ("\\boxed{18}\n#### Check: 20", "18", True),
        ("18", "So \\boxed{18}.\n#### Check\nfine", True),
        ("50%", "50%", True),
        ("$50", "50", True),
        ("3.5 cm", "3.5 \\text{ cm}", True),
        ("2 hours 20 minutes", "1 hour 20 minutes", False),
        ("1 hour 20 minutes", "1 hour 20 minutes", True),
        ("", "", False),
        ("1/2", "0.5", True),
        ("\\frac12", "0.5", True),
        ("\\{1,2\\}", "\\{1,2\\}", True),
        ("\\boxed{\\{2,1\\}}", "\\{1,2\\}", True),
        ("2.5e3", "2500", True),
        ("x \\in (0,1]", "(0,1]", True),
        ("42 apples", "42", True),
        ("We have 3 apples and 4 pears, so 7", "She has 3 + 4 = 7 fruits.", True),
        ("\\boxed{12}", "The total is 12.", True),
        ("90^\\circ", "90", True),
        ("\\boxed{\\frac{3}{4}}", "\\dfrac{3}{4}", True),
        ("0.75", "\\frac{3}{4}", True),
        ("Paris", "Paris", True),
        ("\\boxed{x=7}", "7", True),
    ],
)
def test_answers_are_compared_by_what_they_mean(reply, completion, right):
    assert is_right(reply, completion) is right


def test_a_row_with_a_solution_is_judged_by_its_answer():
    row = {"problem": "Find x.", "solution": "Since 2x = 14, $x = 7$. (Remark: the same holds for 12.)", "answer": "7"}
    assert texts_of(row).completion == row["solution"]
    assert is_right("\\boxed{7}", answer_of(row))
    assert not is_right("12", answer_of(row))
    assert answer_of({"question": "1 + 1?", "answer": "2"}) == "2"
    assert answer_of({"prompt": "1 + 1?", "completion": "2"}) == "2"


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


def test_rows_of_the_hub(tmp_path, monkeypatch):
    """A folder stands in for a set of the hub; `datasets` loads both by the same call."""
    datasets = pytest.importorskip("datasets")
    for split in ("train", "test"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{split}.jsonl").write_text(json.dumps({"question": split, "answer": "2"}) + "\n")
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: load(*a, **k, cache_dir=str(tmp_path / "cache")))
    source = f"hf://{tmp_path / 'set'}"
    assert load_rows(source) == [{"question": "train", "answer": "2"}]
    assert load_rows(f"{source},split=test,name=default") == [{"question": "test", "answer": "2"}]
    for settings, said in (
        (",split=validation", "Unknown split"),
        (",name=other", "'other' not found"),
        (",size=3", "name, split, revision with = and a value"),
        (",split", "name, split, revision with = and a value"),
        ("/nowhere", "`datasets` cannot load it"),
        (",split=train[:0]", "corresponds to no data"),
    ):
        with pytest.raises(InputError, match=said) as found:
            load_rows(source + settings)
        assert source + settings in str(found.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'icl-theory\[hub\]'"):
        load_rows("hf://openai/gsm8k")
    with pytest.raises(InputError, match="hf://openai/gsm8k"):
        load_rows("openai/gsm8k")


def test_a_hub_that_cannot_be_reached(monkeypatch, caplog):
    datasets = pytest.importorskip("datasets")
    logger = logging.getLogger("huggingface_hub.utils._http")

    def load_dataset(*names, **settings):
        logger.warning("Retrying in 1s [Retry 1/5].")
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    with pytest.raises(InputError, match=r"Couldn't reach 'openai/gsm8k'.*to_parquet\(FILE\)`, and give FILE"):
        load_rows("hf://openai/gsm8k")
    assert not caplog.records
    logger.warning("seen again")
    assert [record.message for record in caplog.records] == ["seen again"]


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
