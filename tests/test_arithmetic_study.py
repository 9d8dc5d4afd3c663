"""The small study: its problems are right, what it calls right is what greedy generation gives, its arms share all but one thing."""

import json

import jax
import numpy as np
import pytest
from scipy.stats import ttest_1samp

from experiments.arithmetic_study import LENGTH, LETTERS, _order, _right, a_decoder, main, paired, problems
from icl_theory.errors import InputError
from icl_theory.llm.generate import generate
from icl_theory.llm.step import start


def test_problems_are_right_and_of_all_kinds():
    tokens, learned, kind = problems(400, np.random.default_rng(0))
    assert set(kind) == {0, 1, 2, 3}
    for row, counted in zip(tokens, learned, strict=True):
        text = "".join(LETTERS[token] for token in row).rstrip()
        asked, answer = text.split("=")
        sign = "*" if "*" in asked else "+"
        a, b = map(int, asked.split(sign))
        assert int(answer[:-1][::-1]) == (a * b if sign == "*" else a + b)
        assert answer.endswith("$")
        assert counted.sum() == len(answer)
        assert counted[len(asked) + 1]


def test_right_is_what_greedy_generation_gets_right():
    """For answers that a random decoder gives itself, and for others."""
    model = a_decoder(0, 16)
    graph, learner = start(model, "adamw")
    given = problems(20, np.random.default_rng(1))
    tokens, learned = given.tokens.copy(), given.learned
    prompts = [row[: counted.argmax()].tolist() for row, counted in zip(tokens, learned, strict=True)]
    made = generate(model, prompts, max_new=LENGTH)
    for row in range(10):
        tokens[row, learned[row]] = made[row][: learned[row].sum()]
    right = np.asarray(jax.jit(lambda params: _right(graph, params, tokens, learned))(learner.params))
    assert right[:10].all()
    expected = [made[row][: learned[row].sum()] == tokens[row, learned[row]].tolist() for row in range(20)]
    assert right.tolist() == expected


def test_an_order_is_of_whole_epochs():
    order = _order(np.array([3, 3, 5]), 8, seed=0)
    assert sorted(order[:3]) == sorted(order[3:6]) == [3, 3, 5]
    assert len(order) == 8
    np.testing.assert_array_equal(order, _order(np.array([3, 3, 5]), 8, seed=0))


def test_differences_are_paired_by_seed():
    mean, half = paired(np.array([0.1, 0.3, 0.2]))
    found = ttest_1samp([0.1, 0.3, 0.2], 0).confidence_interval(0.95)
    np.testing.assert_allclose([mean - half, mean + half], found)


def test_the_study_runs_all_its_arms(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.arithmetic_study.TRAIN", 60)
    monkeypatch.setattr("experiments.arithmetic_study.TEST", 40)
    monkeypatch.setattr("experiments.arithmetic_study.RHOS", (0.05,))
    monkeypatch.setattr("experiments.arithmetic_study.LEARNING_RATE", {"adamw": 2e-3})
    out = tmp_path / "study.json"
    words = ["--seeds", "2", "--num-steps", "100", "--batch-size", "8", "--width", "8", "--out", str(out)]
    main(words, standalone_mode=False)
    made, before = capsys.readouterr().out, out.read_bytes()
    main(words, standalone_mode=False)  # shows what is there
    assert capsys.readouterr().out.splitlines()[1:] == made.splitlines()[-10:-1]
    assert out.read_bytes() == before
    out.write_text("{}")
    with pytest.raises(InputError, match="no finished study"):
        main(words, standalone_mode=False)
    arms = json.loads(before)["arms"]
    assert len(arms) == 8
    for arm in arms.values():
        assert len(arm["accuracy"]) == 2
        assert len(arm["early"][0]) == len(arm["steps"])
        assert arm["early"][0][0] == 1
