"""The study of checkpoints: problems are new to their test, and a study that was stopped goes on."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_model import write_tiny_model

from experiments.language_models import checkpoint_study
from experiments.language_models.trainer import Trainer, all_arms
from icl_theory.errors import InputError
from icl_theory.llm.evaluation.study import load_study
from icl_theory.llm.model.pretrained import load_model


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
