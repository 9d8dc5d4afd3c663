"""The README's code runs when pasted, and what it names exists."""

import importlib
import re
from pathlib import Path

from conftest import run_command

from figures import FIGURES
from icl_theory import Sweep

README = (Path(__file__).parents[1] / "README.md").read_text()


FIRST, SECOND, THIRD, FINE_TUNING, SWEEP = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_compressed_training_runs_when_pasted(capsys):
    exec(compile(SECOND, "README.md", "exec"), {})
    assert "50% late" in capsys.readouterr().out


def test_upsampling_runs_when_pasted(capsys):
    exec(compile(THIRD, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "on late examples: learning-time ratios" in printed
    assert "on random examples" in printed


def test_python_runs_when_pasted(capsys):
    assert len(FIRST.strip().splitlines()) <= 15
    exec(compile(FIRST, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "gd" in printed
    assert "sam" in printed
    assert "plateaus [1.    0.641 0.377 0.21  0.136]" in printed


def test_a_fine_tuning_set_is_upsampled_when_pasted(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(FINE_TUNING, "README.md", "exec"), {})
    assert "435 late, factor 4.00" in capsys.readouterr().out
    assert run_command("upsample", "train.jsonl", "losses.zarr", "--max-factor", 4) == 0
    assert (tmp_path / "train-upsampled.jsonl").exists()


def test_a_sweep_runs_when_pasted(capsys, tmp_path, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    exec(compile(SWEEP, "README.md", "exec"), {})
    ratios = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()[1:4]]
    assert ratios[0] > ratios[2] > 1.0


def test_the_sweep_file_is_a_sweep(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "sweep.toml").write_text(text)
    assert Sweep.from_toml(tmp_path / "sweep.toml").shape == (6, 3, 64)


def test_functions_tests_and_figures_exist():
    rows = [line.split("|")[1:-1] for line in README.splitlines() if line.count("|") == 7 and "§" in line]
    assert len(rows) >= 8
    for row in rows:
        module = "theory"
        for name in re.findall(r"`([\w.]+)`", row[2]):
            if "." in name:
                module, _, attribute = name.rpartition(".")
                if module == "theory":
                    importlib.import_module(f"icl_theory.{name}")
                    continue
            else:
                attribute = name
            assert hasattr(importlib.import_module(f"icl_theory.{module}"), attribute), name
        for name in re.findall(r"`([\w.]+)`", row[4]):
            assert (Path(__file__).parent / name).is_file()
        for name in re.findall(r"`(\w+)`", row[5]):
            assert name in FIGURES
