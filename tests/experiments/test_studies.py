"""The studies of language models: right problems, what is called right is what greedy generation gives, arms share all
but one thing, seeds together are seeds apart, and what was done is not done again."""

import json

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import ttest_1samp
from tiny_model import write_tiny_model

from experiments.language_models import arithmetic_study, checkpoint_study
from experiments.language_models.__main__ import main as show_study
from experiments.language_models.arithmetic_study import (
    LENGTH,
    LETTERS,
    Settings,
    a_decoder,
    problems,
    seeds_apart,
    seeds_together,
)
from experiments.language_models.problems import Problems, order, unseen
from experiments.language_models.trainer import Plan, Trainer, all_arms, answered
from figures.language_models import draw
from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Batch
from icl_theory.llm.evaluation import study
from icl_theory.llm.evaluation.study import bias_of, learning_step, load_study, merged, paired
from icl_theory.llm.model.generate import generate
from icl_theory.llm.model.pretrained import load_model
from icl_theory.llm.training.step import make_example_losses, start
from icl_theory.plotting import LATE

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
    found, losses = map(np.asarray, jax.jit(lambda params: answered(graph, params, tokens, learned))(learner.params))
    whole = make_example_losses(graph)(learner.params, Batch(tokens, learned, np.ones(20)))
    np.testing.assert_allclose(losses, whole, rtol=1e-5)
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


def test_seeds_together_are_seeds_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(arithmetic_study, "OPTIMIZERS", ("adamw",))
    together = seeds_together(SMALL, lambda *_: None)
    apart = seeds_apart(SMALL, tmp_path, lambda *_: None)
    assert len(together) == 8
    assert set(together) == set(apart)
    for name, arm in together.items():
        assert arm["steps"] == apart[name]["steps"] == list(range(0, (22 if "half" in name else 42), 2))
        assert len(arm["accuracy"]) == len(arm["by_kind"]["a+b"]) == len(arm["early"]) == 2
    whole = [np.arange(60)] * 2
    for optimizer in ("adamw", "muon"):
        both = SMALL.trainer(optimizer, (0, 1)).run("fsam", 0.05, whole, 20)["losses"]
        for seed in range(2):
            alone = SMALL.trainer(optimizer, (seed,)).run("fsam", 0.05, whole[:1], 20)["losses"]
            np.testing.assert_allclose(both[seed, 0], alone[0, 0], rtol=1e-5)
            np.testing.assert_allclose(
                both[seed, 1], alone[0, 1], rtol=1e-3
            )  # after two steps; roundings grow with them
        assert np.abs(both[0] - both[1]).max() > 0.1
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    said = []
    assert seeds_apart(SMALL, tmp_path, lambda *words: said.append(words)) == apart
    assert said == [("training", 2, 2)]  # nothing was done again
    (tmp_path / "adamw-1.json").unlink()
    assert seeds_apart(SMALL, tmp_path, lambda *_: None) == apart
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert together["adamw late"]["late"] != together["adamw plain"]["late"]
    for arm in apart.values():
        assert len(arm["learned"]["early"]) == len(arm["agreement"]) == len(arm["unseen"]) == len(arm["factors"]) == 2
    gains = draw({"a decoder": {"arms": apart}}).axes[0]
    rows = [label.get_text() for label in gains.get_yticklabels()]
    assert rows == ["late × κ", "random × κ", "early × κ", "SAM 0.05", "f-SAM 0.05"]
    (seeds,) = (line for line in gains.lines if line.get_color() == LATE and line.get_label() == "_seeds")
    expected = np.array(apart["adamw late"]["accuracy"]) - apart["adamw plain"]["accuracy"]
    np.testing.assert_allclose(seeds.get_xdata()[::3], expected)


class Recorded:
    """A trainer that notes how long each arm is trained, and on what."""

    def __init__(self, plan):
        self.plan, self.runs = plan, []
        self.train = Problems(np.zeros((2, 8, 3)), np.zeros((2, 8, 3)), np.zeros((2, 8)))

    def run(self, sharpness, rho, indices, num_steps, followed=None, draw=0):
        self.runs.append((num_steps, [np.bincount(rows, minlength=8).tolist() for rows in indices]))
        losses = np.exp(-np.arange(9)[:, None] / np.where(np.arange(8) < 4, 1.0, 3.0))
        return {"steps": list(range(9)), "losses": np.stack([losses] * 2)}

    def summary(self, found, picked):
        return {}


def test_arms_at_equal_epochs_take_the_late_twice_and_train_longer():
    trainer = Recorded(Plan("adamw", (0, 1), 80, 1e-3, 4, (0.02,), equal_epochs=True))
    arms = all_arms(trainer)
    assert len(arms) == trainer.plan.num_arms == 10
    found = dict(zip(arms, trainer.runs[1:], strict=True))  # after the pilot run
    assert found["adamw late × 2, equal epochs"] == (120, [[1, 1, 1, 1, 2, 2, 2, 2]] * 2)
    assert found["adamw plain, 1½ × the steps"] == (120, [[1] * 8] * 2)
    assert found["adamw late"][0] == found["adamw plain"][0] == 80


def made_up(settings, parts, report):
    """Arms as they are saved, in the place of training."""
    names = [
        "plain",
        "late",
        "random",
        "early",
        *(f"{kind} {rho:g}" for kind in ("sam", "fsam") for rho in settings.rhos),
    ]
    arm = {"steps": [0, 1, 2], "early": [[1, 0.4, 0.1]] * 2, "late": [[1, 0.8, 0.3]] * 2, "by_kind": {}}
    return {
        f"{optimizer} {name}": arm | {"accuracy": [0.5, place / 20]}
        for optimizer in ("adamw", "muon")
        for place, name in enumerate(names)
    }


def test_a_saved_study_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(arithmetic_study, "seeds_apart", made_up)
    out = tmp_path / "study.json"
    words = ["--seeds", "2", "--rhos", "0.02,0.1", "--out", str(out)]
    made = CliRunner().invoke(arithmetic_study.main, words)
    assert made.exit_code == 0, made.output
    lines = made.output.splitlines()
    lines = lines[next(place for place, line in enumerate(lines) if "rhos [0.02, 0.1]" in line) :]
    last = lines[lines.index("") - 1]
    assert last.split()[:3] == ["muon", "fsam", "0.1"]
    assert "+0.175 ± 2.224" in last  # 0 and 7 / 20 more than plain; t of one degree of freedom is 12.706
    before = out.read_bytes()
    monkeypatch.setattr(arithmetic_study, "seeds_apart", None)
    assert CliRunner().invoke(arithmetic_study.main, words).output.splitlines() == lines
    other = CliRunner().invoke(arithmetic_study.main, [*words, "--seeds", "3"])
    assert "holds a study of other settings (seeds was 2, now 3)" in str(other.exception)
    assert CliRunner().invoke(show_study, [str(out)]).output.splitlines() == lines
    assert out.read_bytes() == before
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


def test_accuracies_of_kinds_are_shown():
    arm = {"accuracy": [0.5, 0.25], "by_kind": {"a": [1.0, 0.5], "b": [0.0, 0.0]}}
    known = {"accuracy": [0.0, 0.0], "by_kind": {"a": [0.0, 0.0], "b": [0.0, 0.0]}, "by_template": {"all": [0.1, 0.3]}}
    known["by_template"] |= {"a": [0.2, 0.6], "b": [0.0, 0.0]}
    lines = [line.split() for line in study.kinds({"arms": {"adamw plain": arm}, "before": known})]
    assert lines[0] == ["accuracy", "all", "a", "b"]
    assert lines[1] == ["before", "0.000", "0.000", "0.000"]
    assert lines[2][-3:] == ["0.200", "0.400", "0.000"]
    assert lines[3] == ["adamw", "plain", "0.375", "0.750", "0.000"]
    assert len(study.kinds({"arms": {"adamw plain": arm}})) == 2


def test_rates_and_sizes_of_a_plan():
    with pytest.raises(InputError, match="multiple of 40"):
        Plan("adamw", (0,), 50, 1e-3, 8, (0.1,))


def test_problems_of_a_test_are_new_to_it(tmp_path, monkeypatch, capsys):
    """Whatever a generator repeats; and seeds draw differently; one that is too long is left out, counted and said."""

    def sums(source):
        size = int(source.split("size=")[1].split(",")[0])
        long = {"question": "1+1" + "+0" * 40, "answer": "2"}
        return [long, *({"question": f"{n % 90}+1", "answer": str(n % 90 + 1)} for n in range(size))]

    monkeypatch.setattr(checkpoint_study, "load_rows", sums)
    prompting = checkpoint_study.plainly(load_model(write_tiny_model(tmp_path / "model")))
    settings = checkpoint_study.Settings(seeds=2, train=400, test=50)
    rows = checkpoint_study.generated(settings, prompting)
    assert "1 of 91 problems of kind 1 digit are longer than 32 tokens and are left out" in capsys.readouterr().err
    assert not any("+0" in row["question"] for row in rows)
    first = [row["kind"] for row in rows if (row["seed"], row["part"]) == (0, "train")][:100]
    shares = [first.count(kind) / 100 for kind in settings.kinds]
    np.testing.assert_allclose(shares, [0.4, 0.35, 0.25], atol=0.15)
    chosen = {
        (seed, part): [row["question"] for row in rows if (row["seed"], row["part"]) == (seed, part)]
        for seed in range(2)
        for part in ("train", "test")
    }
    for seed in range(2):
        assert len(chosen[seed, "train"]) == 400
        by_kind = [row for row in rows if row["seed"] == seed and row["part"] == "test"]
        assert len(by_kind) == len({(row["kind"], row["question"]) for row in by_kind}) >= 45
        for kind in settings.kinds:
            one = {
                part: {row["question"] for row in rows if (row["seed"], row["part"], row["kind"]) == (seed, part, kind)}
                for part in ("train", "test")
            }
            assert not one["train"] & one["test"]
    assert chosen[0, "test"] != chosen[1, "test"]


def test_problems_of_a_test_are_not_trained_with_other_names(tmp_path, monkeypatch):
    names = [f"N{one}" for one in range(40)]
    monkeypatch.setattr(
        checkpoint_study,
        "load_rows",
        lambda source: [{"question": f"{one} has {n}", "answer": str(n)} for one in names for n in range(30)],
    )
    prompting = checkpoint_study.plainly(load_model(write_tiny_model(tmp_path / "model")))
    settings = checkpoint_study.Settings(seeds=2, train=200, test=40)
    rows = checkpoint_study.generated(settings, prompting)
    for seed in range(2):
        for kind in settings.kinds:
            forms = {
                part: {
                    row["question"].split()[-1]
                    for row in rows
                    if (row["seed"], row["part"], row["kind"]) == (seed, part, kind)
                }
                for part in ("train", "test")
            }
            assert all(forms.values())
            assert not forms["train"] & forms["test"]
    monkeypatch.setattr(
        checkpoint_study, "load_rows", lambda source: [{"question": f"{one} has 1", "answer": "1"} for one in names]
    )
    with pytest.raises(InputError, match="too few other problems of kind 1 digit"):
        checkpoint_study.generated(settings, prompting)


def test_unseen_rows_are_those_that_training_lacks():
    known = np.array([[1, 2], [3, 4]])
    assert unseen(np.array([[3, 4], [4, 3], [1, 2]]), known).tolist() == [False, True, False]


def test_a_checkpoint_is_studied_and_a_stopped_study_goes_on(tmp_path, monkeypatch):
    """With a tiny model in the place of a pretrained one, and rows in the place of the generator's."""
    model = write_tiny_model(tmp_path / "model")
    rows = [
        {"question": f"{a}+1=", "answer": str(a + 1), "kind": kind, "seed": seed, "part": part}
        for seed in range(2)
        for part in ("train", "test")
        for kind in checkpoint_study.MIXTURES["words"]
        for a in range(4)
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        str(model),
        "--mixture",
        "words",
        "--seeds",
        "2",
        "--adamw-steps",
        "16",
        "--batch-size",
        "4",
        "--length",
        "12",
        "--optimizer",
        "adamw",
    ]
    words += ["--problems", str(source), "--out"]
    made = CliRunner().invoke(checkpoint_study.main, [*words, str(tmp_path / "whole.json")])
    assert made.exit_code == 0, made.exception
    ran = []
    monkeypatch.setattr(
        checkpoint_study, "all_arms", lambda trainer, known, said: stop_after(trainer, known, said, ran)
    )
    stopped = CliRunner().invoke(checkpoint_study.main, [*words, str(tmp_path / "parts.json")])
    assert isinstance(stopped.exception, KeyboardInterrupt | SystemExit)
    monkeypatch.undo()
    (kept,) = tmp_path.glob("parts-*.jsonl")
    with kept.open("a") as file:
        file.write('{"seeds": [0], "name": "adamw late", "arm"')  # cut off as it was written
    pilots, run = [], Trainer.run

    def counted(self, *arguments, draw=0, **more):
        pilots.append(draw)
        return run(self, *arguments, draw=draw, **more)

    monkeypatch.setattr(Trainer, "run", counted)
    again = CliRunner().invoke(checkpoint_study.main, [*words, str(tmp_path / "parts.json")])
    monkeypatch.undo()
    assert sum(map(bool, pilots)) == 1  # of the second seed: that of the first is kept too
    assert again.exit_code == 0, again.exception
    assert len(ran) == 3
    assert load_study(tmp_path / "whole.json")["arms"] == load_study(tmp_path / "parts.json")["arms"]
    short = CliRunner().invoke(
        checkpoint_study.main, [*words[:-1], "--length", "6", "--out", str(tmp_path / "short.json")]
    )
    assert isinstance(short.exception, InputError)
    muon = CliRunner().invoke(
        checkpoint_study.main, [*words[:-1], "--optimizer", "muon", "--out", str(tmp_path / "whole.json")]
    )
    assert "was made without it" in str(muon.exception)
    assert not list(tmp_path.glob("*-*.jsonl"))
    lacking = [{key: value for key, value in row.items() if key != "seed"} for row in rows]
    source.write_text("".join(json.dumps(row) + "\n" for row in lacking))
    refused = CliRunner().invoke(checkpoint_study.main, [*words, str(tmp_path / "other.json")])
    assert isinstance(refused.exception, InputError)


def test_a_model_with_a_template_is_asked_by_it_before(tmp_path, monkeypatch):
    """The first seed's first kind rightly, and nothing else."""
    model = load_model(write_tiny_model(tmp_path / "model", chat=True))
    settings = checkpoint_study.Settings(mixture="words", seeds=2)
    rows = [
        {"question": f"{kind}?", "answer": "7", "kind": kind, "seed": seed, "part": part}
        for seed in range(2)
        for part in ("train", "test")
        for kind in settings.kinds
    ]
    said = model.tokenizer.encode("7", add_special_tokens=False)
    replies = iter([[said, [], []], [[], [], []]])
    monkeypatch.setattr("icl_theory.llm.evaluation.evaluation.generate", lambda *_, **__: next(replies))
    found = checkpoint_study.by_template(model, rows, settings, (0, 1))["by_template"]
    first, *others = settings.kinds
    assert found == {"all": [1 / 3, 0], first: [1, 0], **{kind: [0, 0] for kind in others}}
    assert checkpoint_study.by_template(load_model(write_tiny_model(tmp_path / "plain")), rows, settings, (0, 1)) == {}


def stop_after(trainer, known, said, ran):
    def saying(name, arm):
        said(name, arm)
        ran.append(name)
        if len(ran) == 3:
            raise KeyboardInterrupt

    return all_arms(trainer, known, saying)


def test_who_is_late_is_picked_by_a_run_of_its_own(monkeypatch):
    """Only the pilot run has another order, and it alone is followed whole."""
    trainer, runs, run = SMALL.trainer("adamw", (0,)), [], Trainer.run

    def seen(self, sharpness, rho, indices, num_steps, followed=None, draw=0):
        runs.append((followed, order(np.arange(9), 9, 0, draw).tolist()))
        return run(self, sharpness, rho, indices, num_steps, followed=followed, draw=draw)

    monkeypatch.setattr(Trainer, "run", seen)
    all_arms(trainer, known={f"adamw {name}": {"accuracy": [0]} for name in ("sam 0.05", "fsam 0.05")})
    (followed, pilot), *others = runs
    assert followed == 60
    assert len(others) == 6
    assert all(part is None and other == others[0][1] != pilot for part, other in others)
