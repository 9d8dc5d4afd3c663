"""`icl-theory finetune`: which fields and turns are read, and what the model sees of them."""

import json

import pyarrow as pa
import pyarrow.parquet
from helpers import refused, run_command
from tiny_model import write_rows, write_tiny_model

from icl_theory.llm.job.folder import check_folder
from icl_theory.llm.job.settings import Job

QUICK = ["--length", 16, "--batch-size", 4, "--quiet"]


def test_fields_turns_and_examples_are_chosen_and_shown(tmp_path, capsys):
    model = write_tiny_model(tmp_path / "model", chat=True)
    rows = [{"ask": f"{n}+1", "say": f"it is {n + 1}", "sum": str(n + 1), "source": "s"} for n in range(4)]
    data = write_rows(tmp_path / "own.jsonl", rows)
    options = ["--prompt-field", "ask", "--completion-field", "say", "--answer-field", "sum", "--max-new", 4, *QUICK]
    arguments = ["finetune", model, data, "--eval", data, "--out", tmp_path / "out", *options]
    assert run_command(*arguments, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "fields source, sum" in said
    assert said.count("\nexample ") == 2
    assert "row 1: 13 tokens, 8 of them learned" in said
    assert "  | <user>1+1<model>⟦it is 2<stop>⟧" in said
    assert run_command(*arguments, "--steps", 1, "--show", 1) == 0
    assert capsys.readouterr().out.count("\nexample ") == 1
    asked = [json.loads(line) for line in (tmp_path / "out" / "after.jsonl").read_text().splitlines()]
    assert [line["answer"] for line in asked] == ["1", "2", "3", "4"]
    assert run_command(*arguments, "--steps", 1, "--show", 1) == 0  # the same job: nothing to do
    changed = [*arguments, "--steps", 1]
    changed[changed.index("sum")] = "say"
    assert "answer was sum, now say" in refused(capsys, *changed)
    without = [*arguments[:-1], "--dry-run", "--quiet"]
    without[without.index("--answer-field") + 1] = "total"
    assert "problem 0, total = 'missing': the row has ask, say, sum, source" in refused(capsys, *without)
    bare = ["finetune", model, data, *options[:6], "--dry-run"]
    assert "--answer-field = 'sum': it belongs to --eval" in refused(capsys, *bare)
    assert "--out = 'not given'" in refused(capsys, "finetune", model, data, *QUICK)
    long = [*arguments, "--steps", 4, "--warmup", 5]
    assert "warmup = 5: the run has 4 steps" in refused(capsys, *long, "--dry-run")
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant") * 2]
    talk = write_rows(tmp_path / "talk.jsonl", [{"messages": turns}])
    for learn, told in (("last", "<user>a<model>a<stop>"), ("all", "<user>a<model>⟦a<stop>⟧")):
        assert run_command("finetune", model, talk, "--learn", learn, "--dry-run", *QUICK) == 0
        assert f"{told}<user>a<model>⟦a<stop>⟧" in capsys.readouterr().out


def test_a_job_is_not_put_among_its_data(tmp_path, capsys):
    model, data = write_tiny_model(tmp_path / "model", chat=True), tmp_path / "data"
    data.mkdir()
    pa.parquet.write_table(pa.table({"question": ["a"], "answer": ["b"]}), data / "part-0.parquet")
    said = refused(capsys, "finetune", model, data, "--out", data / "out", *QUICK)
    assert "it is in the folder of the data" in said
    assert not (data / "out").exists()


def test_sources_that_are_no_files_may_be_longer_than_names_of_files(tmp_path):
    generators = "+".join(f"reasoning-gym:gcd,size=100,seed={seed}" for seed in range(9))
    on_hub = "hf://someone/questions,revision=" + "a" * 300
    settings = Job("model", generators, evaluation=on_hub).described()
    assert settings["files"] == {}
    check_folder(tmp_path / "new", settings)
