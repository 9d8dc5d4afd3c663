"""The study of arithmetic: right problems, right as greedy generation has it, seeds together are seeds apart."""

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from experiments.language_models import arithmetic_study
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
from experiments.language_models.problems import order
from experiments.language_models.trainer import Trainer, all_arms, answered
from figures.language_models import draw
from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Batch
from icl_theory.llm.evaluation.study import load_study
from icl_theory.llm.model.generate import generate
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
