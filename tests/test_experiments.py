"""Experiments and figures as commands, on a small experiment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import EXPERIMENTS
from experiments.experiment import load, run
from figures import FIGURES
from icl_theory import InputError

ROOT = Path(__file__).parents[1]


def python(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def test_lists_name_everything():
    listed = python("-m", "experiments", "list").stdout
    assert all(f"\n  {name}: " in listed for name in (*EXPERIMENTS, *FIGURES))
    assert all(experiment.question in listed for experiment in EXPERIMENTS.values())
    assert listed.count("takes: ") == listed.count("shows: ") == len(EXPERIMENTS) + len(FIGURES)
    drawn = python("-m", "figures").stdout
    assert all(name in drawn for name in FIGURES)


def test_data_are_made_once_and_damage_is_refused(tmp_path):
    experiment = EXPERIMENTS["fixed_points"]
    seen = []
    assert run(experiment, tmp_path, lambda *report: seen.append(report))
    assert {title for title, *_ in seen} == {"fixed_points (float64)", "fixed_points (float32)"}
    assert not run(experiment, tmp_path, lambda *report: None)
    assert len(load(experiment, tmp_path)["plain_loss"]) == 16
    about = json.loads((tmp_path / "fixed_points" / "manifest.json").read_text())
    assert about["machine"]["jax"]
    manifest = tmp_path / "fixed_points" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace(about["code"], "0.0.1+deadbeef"))
    with pytest.raises(InputError, match=r"written by icl_theory 0\.0\.1"):
        load(experiment, tmp_path)
    manifest.write_text(text)
    (tmp_path / "fixed_points" / "data_float64.npz").write_bytes(b"")
    with pytest.raises(InputError, match="make fresh"):
        run(experiment, tmp_path, lambda *report: None)


def test_a_figure_without_data_names_the_command(tmp_path):
    done = python("-m", "figures", "phase_diagram", "--results", tmp_path)
    assert done.returncode == 2
    assert f"python -m experiments run phase_diagram --results {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("-m", "figures", "nothing"), ("-m", "experiments", "run", "nothing"), ("-m", "experiments", "--x")]
)
def test_unknown_names_are_one_line(arguments):
    done = python(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
