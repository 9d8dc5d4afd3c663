"""Code in README and guides runs when pasted and prints what stands below it; links and verdicts are true."""

import math
import re
import shutil
from pathlib import Path

import jax
import matplotlib
import pytest
import tokenizers
import transformers
from helpers import run_command

import icl_theory as icl
from icl_theory import Sweep
from icl_theory.verification import all_claims

ROOT = Path(__file__).parents[1]
PAGES = {
    "readme": ROOT / "README.md",
    "contributing": ROOT / "CONTRIBUTING.md",
    "upsampling": ROOT / "icl_theory/upsampling/GUIDE.md",
    "language models": ROOT / "icl_theory/llm/GUIDE.md",
    "sweeps": ROOT / "icl_theory/sweeps/GUIDE.md",
    "moments": ROOT / "icl_theory/moments/GUIDE.md",
    "zsls25": ROOT / "icl_theory/simulation/ZSLS25.md",
    "verification": ROOT / "icl_theory/verification/RESULTS.md",
    "studies": ROOT / "experiments/language_models/RESULTS.md",
    "formulas": ROOT / "icl_theory/theory/FORMULAS.md",
    "notes": ROOT / "icl_theory/theory/NOTES.md",
}
TEXT = {name: path.read_text() for name, path in PAGES.items()}
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n(?:It prints\n\n)?```text\n(.*?)```)?", re.DOTALL)
BLOCKS = [(name, *found) for name, text in TEXT.items() for found in BLOCK.findall(text)]


def plain(text):
    """A text without the spaces that numpy puts into arrays."""
    return re.sub(r"[\s\[\]]+", " ", text).strip()


@pytest.mark.parametrize(("page", "code", "printed"), BLOCKS, ids=[page for page, *_ in BLOCKS])
def test_code_runs_when_pasted(page, code, printed, capsys, tmp_path, monkeypatch, optimised):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    with jax.enable_x64(False):  # as a user's session has it
        exec(compile(code, str(PAGES[page]), "exec"), {})
    if printed:
        assert plain(capsys.readouterr().out) == plain(printed)


def test_there_are_such_blocks():
    printed = [page for page, _, printed in BLOCKS if printed]
    assert printed == ["readme", "upsampling", "upsampling", "moments", "notes"]
    assert "sweeps" in {page for page, *_ in BLOCKS}


def test_the_command_upsamples_what_the_guide_wrote(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = next(code for page, code, _ in BLOCKS if page == "upsampling")
    exec(compile(first, "GUIDE.md", "exec"), {})
    assert run_command("upsample", "train.jsonl", "losses.zarr", "--max-factor", 4) == 0
    assert (tmp_path / "train-upsampled.jsonl").exists()


@pytest.fixture
def tiny_qwen(tmp_path, monkeypatch):
    """A tiny model in the place of the named one, in the working folder."""
    folder = tmp_path / "Qwen3-0.6B-Base"
    shutil.copytree(Path(__file__).parent / "goldens" / "llm" / "qwen3", folder)
    words = {word: place for place, word in enumerate(["<end>", *"0123456789+=? \n"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>").save_pretrained(folder)
    monkeypatch.chdir(tmp_path)


def block_of(page):
    """The one block of a page that fine-tunes."""
    (block,) = [text for text in re.findall(r"```py\n(.*?)```", TEXT[page], re.DOTALL) if "finetune(" in text]
    return block


def test_fine_tuning_runs_when_pasted(tmp_path, tiny_qwen):
    """In two steps."""
    rows = [{"id": f"{a}+1", "question": f"{a} + 1 = ", "answer": str(a + 1)} for a in range(4)]
    block = block_of("language models")
    assert block.count("num_steps=500") == 1
    found = {"rows": rows}
    exec(compile(block.replace("num_steps=500", "num_steps=2, length=16"), "GUIDE.md", "exec"), found)
    assert len(found["right"]) == 4
    assert icl.llm.load("results/tuned")[0].config == found["model"].config
    assert icl.load_loss_record("losses.zarr").steps.tolist() == [0, 2]
    assert (tmp_path / "results" / "upsampled" / "checkpoints" / "2").is_dir()


def test_the_readme_fine_tunes_when_pasted(tiny_qwen, capsys):
    block = block_of("readme")
    assert block.count("Qwen/Qwen3-0.6B-Base") == 1
    exec(compile(block.replace("Qwen/", ""), "README.md", "exec"), {})
    assert capsys.readouterr().out == "True\n"


def test_the_sweep_file_is_a_sweep(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", TEXT["sweeps"], re.DOTALL)
    (tmp_path / "sweep.toml").write_text(text)
    assert Sweep.from_toml(tmp_path / "sweep.toml").shape == (6, 3, 64)


def test_the_readme_is_read_in_two_minutes():
    assert len(TEXT["readme"].splitlines()) <= 130
    assert TEXT["readme"].count("```python") == 1


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", TEXT[page]):
        if not target.startswith("http"):
            assert (PAGES[page].parent / target).exists(), target


def test_results_name_every_statement():
    named = re.findall(r"^\| `(\w+)`<br>", TEXT["verification"], re.MULTILINE)
    assert named == [entry.name for claim in all_claims() for entry in claim.statements]


@pytest.mark.parametrize(
    ("group", "statement", "verdict"),
    [
        ("sam_simplicity_bias", "sam_lowers_learning_time_ratios", "t₂/t₁ × 0.82 (0.78 to 0.86) at ρ = 0.05"),
        ("sam_simplicity_bias", "merged_bias_does_not_fall", "merged: progress × 0.987"),
        ("generalisation", "sam_is_ahead_half_way", "held-out loss × 0.998 (0.997 to 0.999) half-way"),
        ("generalisation", "sam_is_behind_at_equal_steps", "× 1.04 (1.03 to 1.07) at equal steps"),
        ("generalisation", "upsampling_late_hurts_at_the_end", "× 1.011 (1.009 to 1.013) at the end"),
        ("upsampling", "late_minority_lowers_ratios", "t₃/t₁ × 0.80 (0.76 to 0.82) at κ = 2"),
        ("generalisation", "upsampling_late_is_ahead_half_way", "held-out loss × 0.990 (0.985 to 0.994) half-way"),
    ],
)
def test_verdicts_in_the_readme_are_measured(group, statement, verdict):
    """They are factors; the page of results has their logarithms, with intervals."""
    assert verdict in TEXT["readme"]
    section = TEXT["verification"].partition(f"## {group}: ")[2].partition("\n## ")[0]
    (cell,) = re.findall(rf"^\| `{statement}`<br>.*?\| [^|]* \| ([^|]*) \|", section, re.MULTILINE)
    logs = [float(number) for number in re.findall(r"-?\d[\d.]*(?:e-?\d+)?", cell.replace("−", "-"))]
    shown = re.findall(r"[01]\.\d+", verdict.partition("×")[2].partition(" at ")[0])
    assert len(shown) in (1, 3)
    for number, log in zip(shown, logs, strict=False):
        assert abs(math.exp(log) - float(number)) <= 0.5 * 10.0 ** (2 - len(number))
