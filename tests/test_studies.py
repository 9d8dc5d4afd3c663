"""The studies of language models: right problems, what is called right is what greedy generation gives, arms share all but one
thing, seeds together are seeds apart, and what was done is not done again."""

import json

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import ttest_1samp
from tiny_model import write_tiny_model

from experiments import arithmetic_study, checkpoint_study
from experiments.arithmetic_study import LENGTH, LETTERS, Settings, a_decoder, problems, seeds_apart, seeds_together
from experiments.arms import Plan, order, right
from experiments.study import load_study, merged, paired
from figures.language_models import bias_of, draw, learning_step
from icl_theory.errors import InputError
from icl_theory.llm.generate import generate
from icl_theory.llm.step import start

SMALL = Settings(
    seeds=2,
    adamw_steps=40,
    muon_steps=40,
    adamw_rate=2e-2,
    muon_rate=2e-2,
    batch_size=8,
    width=16,
    layers=1,
    train=60,
    test=40,
    rhos=(0.05,),
)


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
    model = a_decoder(0, 16, 2)
    graph, learner = start(model, "adamw")
    given = problems(20, np.random.default_rng(1))
    tokens, learned = given.tokens.copy(), given.learned
    prompts = [row[: counted.argmax()].tolist() for row, counted in zip(tokens, learned, strict=True)]
    made = generate(model, prompts, max_new=LENGTH)
    for row in range(10):
        tokens[row, learned[row]] = made[row][: learned[row].sum()]
    found = np.asarray(jax.jit(lambda params: right(graph, params, tokens, learned))(learner.params))
    assert found[:10].all()
    expected = [made[row][: learned[row].sum()] == tokens[row, learned[row]].tolist() for row in range(20)]
    assert found.tolist() == expected


def test_an_order_is_of_whole_epochs():
    found = order(np.array([3, 3, 5]), 8, seed=0)
    assert sorted(found[:3]) == sorted(found[3:6]) == [3, 3, 5]
    assert len(found) == 8
    np.testing.assert_array_equal(found, order(np.array([3, 3, 5]), 8, seed=0))


def test_differences_are_paired_by_seed():
    mean, half = paired(np.array([0.1, 0.3, 0.2]))
    found = ttest_1samp([0.1, 0.3, 0.2], 0).confidence_interval(0.95)
    np.testing.assert_allclose([mean - half, mean + half], found)


def test_seeds_together_are_seeds_apart(tmp_path):
    together = seeds_together(SMALL, lambda *_: None)
    apart = seeds_apart(SMALL, tmp_path, lambda *_: None)
    assert len(together) == 16
    assert set(together) == set(apart)
    for name, arm in together.items():
        assert arm["steps"] == apart[name]["steps"] == list(range(0, (22 if "half" in name else 42), 2))
        for group in ("early", "late"):
            for one, other in zip(arm[group], apart[name][group], strict=True):
                assert (one is None) == (other is None)
                np.testing.assert_allclose(one or 0, other or 0, atol=2e-3)
        assert len(arm["accuracy"]) == len(arm["by_kind"]["a+b"]) == 2
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    said = []
    assert seeds_apart(SMALL, tmp_path, lambda *words: said.append(words)) == apart
    assert said == [("training", 4, 4)]  # nothing was done again
    (tmp_path / "muon-1.json").unlink()
    assert seeds_apart(SMALL, tmp_path, lambda *_: None) == apart
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert together["adamw late"]["late"] != together["adamw plain"]["late"]
    assert draw({"arms": apart}).axes


def test_a_saved_study_is_shown(tmp_path, monkeypatch):
    out = tmp_path / "study.json"
    words = [
        "--seeds",
        "2",
        "--adamw-steps",
        "40",
        "--muon-steps",
        "40",
        "--batch-size",
        "4",
        "--width",
        "8",
        "--layers",
        "1",
    ]
    words += ["--train", "30", "--test", "20", "--rhos", "0.02,0.1", "--out", str(out)]
    made = CliRunner().invoke(arithmetic_study.main, words)
    assert made.exit_code == 0, made.output
    assert "adamw fsam 0.1, half the steps" in made.output
    before = out.read_bytes()
    monkeypatch.setattr(arithmetic_study, "seeds_apart", None)
    again = CliRunner().invoke(arithmetic_study.main, words)
    assert again.output.splitlines()[-26:] == made.output.splitlines()[-26:]
    assert out.read_bytes() == before
    assert load_study(out)["settings"]["rhos"] == [0.02, 0.1]
    out.write_text("{}")
    with pytest.raises(InputError, match="no finished study"):
        load_study(out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--muon-steps", "30"], "give a multiple of 40"),
        (["--rhos", "-1"], "give numbers from 0"),
        (["--width", "12"], "give a multiple of 8"),
    ],
)
def test_sizes_that_do_not_fit(tmp_path, words, said):
    with pytest.raises(InputError, match=said):
        arithmetic_study.main([*words, "--out", str(tmp_path / "study.json")], standalone_mode=False)


def test_bias_is_read_between_records():
    assert learning_step([0, 10, 20], [1.0, 0.6, 0.2]) == pytest.approx(12.5)
    assert learning_step([0, 10], [1.0, 0.6]) == np.inf
    arm = {"steps": [0, 10, 20], "early": [[1, 0.5, 0.1]] * 2, "late": [[1, 0.9, 0.4], [1, 1, 0.8]]}
    ratios, bounds, progress = bias_of(arm)
    np.testing.assert_allclose(ratios, [1.8, 2.0])
    assert bounds.tolist() == [0, 1]
    np.testing.assert_allclose(progress, [0.1, 0.0], atol=1e-12)


def test_parts_are_put_together():
    parts = [{"a": {"steps": [0, 1], "accuracy": [seed], "by_kind": {"k": [seed]}}} for seed in range(3)]
    assert merged(parts) == {"a": {"steps": [0, 1], "accuracy": [0, 1, 2], "by_kind": {"k": [0, 1, 2]}}}


def test_a_checkpoint_is_studied(tmp_path):
    """With a tiny model in the place of a pretrained one, and rows in the place of the generator's."""
    model = write_tiny_model(tmp_path / "model")
    rows = [
        {"question": f"{a}+{b}=", "answer": str(a + b), "kind": kind, "seed": seed, "part": part}
        for seed in range(2)
        for part in ("train", "test")
        for kind, top in (("1 digit", 4), ("2 digits", 5), ("3 digits", 3))
        for a in range(top)
        for b in range(2)
    ]
    source, out = tmp_path / "rows.jsonl", tmp_path / "study.json"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [str(model), "--seeds", "2", "--steps", "16", "--batch-size", "4", "--length", "12"]
    words += ["--problems", str(source), "--out", str(out)]
    made = CliRunner().invoke(checkpoint_study.main, words)
    assert made.exit_code == 0, (made.output, made.exception)
    found = load_study(out)
    assert len(found["arms"]) == 16
    assert len(found["before"]["accuracy"]) == 2
    assert set(found["before"]["by_kind"]) == {"1 digit", "2 digits", "3 digits"}
    assert not out.with_suffix(".jsonl").exists()
    short = CliRunner().invoke(
        checkpoint_study.main, [*words[:-3], str(source), "--length", "6", "--out", str(tmp_path / "b")]
    )
    assert isinstance(short.exception, InputError)


def test_rates_and_sizes_of_a_plan():
    with pytest.raises(InputError, match="multiple of 40"):
        Plan("adamw", (0,), 50, 1e-3, 8, (0.1,))
