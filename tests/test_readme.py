"""The README's code runs when pasted, and what it names exists."""

import re
import shutil
from pathlib import Path

import tokenizers
import transformers
from helpers import run_command

import icl_theory as icl
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


def test_fine_tuning_runs_when_pasted(tmp_path, monkeypatch):
    """With a tiny model in the place of the named one, and two steps."""
    (block,) = [text for text in re.findall(r"```py\n(.*?)```", README, flags=re.DOTALL) if "finetune(" in text]
    folder = tmp_path / "Qwen3-0.6B-Base"
    shutil.copytree(Path(__file__).parent / "goldens" / "llm" / "qwen3", folder)
    words = {word: place for place, word in enumerate(["<end>", *"0123456789+=? \n"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>").save_pretrained(folder)
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"{a}+1", "question": f"{a} + 1 = ", "answer": str(a + 1)} for a in range(4)]
    assert block.count("num_steps=500") == 2
    exec(
        compile(block.replace("num_steps=500", "num_steps=2, length=16"), "README.md", "exec"),
        {"rows": rows, "icl": icl},
    )
    assert icl.load_loss_record("losses.zarr").steps.tolist() == [0, 2]
    assert (tmp_path / "results" / "upsampled" / "checkpoints" / "2").is_dir()


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
