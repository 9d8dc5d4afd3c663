"""`icl-theory compare-losses`: what it prints and draws; bad input is one line and no file."""

import numpy as np
import pytest
from helpers import refused, run_command

import icl_theory as icl

COUNT = 500
LEVELS = np.random.default_rng(0).lognormal(-0.5, 0.7, COUNT)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fall = np.array([1.0, 0.5, 0.2])[:, None]
    flat = np.array([LEVELS, LEVELS**0.8, LEVELS**0.8]) * fall
    for name, losses in (("gd", LEVELS * fall), ("sam", flat)):
        icl.save_loss_record(icl.LossRecord([0, 10, 20], losses), tmp_path / f"{name}.npz")
    return tmp_path


def printed_by(capsys):
    return "".join(" ".join(line.split()) + "\n" for line in capsys.readouterr().out.splitlines())


def test_what_is_said_and_drawn(folder, capsys):
    assert run_command("compare-losses", "gd.npz", "sam.npz") == 0
    printed = printed_by(capsys)
    easiest = np.sort(LEVELS)[: COUNT // 10]
    assert f"tenths: A easiest {100 * (np.mean(easiest**0.8) / np.mean(easiest) - 1):+.1f} %" in printed
    assert "the losses are identical at step 0; B has less simplicity bias than A at steps 10 and 20" in printed
    assert "ratio R A" in printed
    assert "can be selection" in printed
    assert sorted(path.name for path in folder.glob("gd-sam*")) == ["gd-sam-compared.png", "gd-sam-compared.svg"]
    assert run_command("compare-losses", "gd.npz", "sam.npz", "--out", "again.svg") == 0
    assert (folder / "again.svg").read_bytes() == (folder / "gd-sam-compared.svg").read_bytes()


def test_a_third_record_and_no_picture(folder, capsys):
    np.savez(folder / "third.npz", steps=[4], losses=LEVELS[None] ** 1.1)
    assert run_command("compare-losses", "sam.npz", "gd.npz", "--ranking", "third.npz", "--no-picture") == 0
    printed = printed_by(capsys)
    assert "tenths: third easiest" in printed
    assert "B has more simplicity bias than A at steps 10 and 20" in printed
    assert not list(folder.glob("*.png"))


def test_gaps_on_request(folder, capsys):
    losses = np.where(np.arange(COUNT) < 7, np.nan, LEVELS**0.8)
    np.savez(folder / "gaps.npz", steps=[0], losses=losses[None])
    assert "accept gaps" in refused(capsys, "compare-losses", "gd.npz", "gaps.npz")
    assert run_command("compare-losses", "gd.npz", "gaps.npz", "--gaps", "--no-picture") == 0
    assert "examples 493; 7 with gaps left out" in printed_by(capsys)


def test_many_steps_are_thinned_out(folder, capsys):
    steps = np.arange(1, 21)
    for name, power in (("a", 1.0), ("b", 0.9)):
        losses = LEVELS**power / steps[:, None]
        icl.save_loss_record(icl.LossRecord(steps, losses), folder / f"{name}.npz")
    assert run_command("compare-losses", "a.npz", "b.npz", "--no-picture") == 0
    printed = printed_by(capsys)
    assert "steps 20 in both records, 6 shown" in printed
    assert printed.count("spread") == 6
    assert "(seen from step 1 on)" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gd.npz", "gd.npz"), "identical at every common step"),
        (("gd.npz", "none.npz"), "there is no such file"),
        (("gd.npz", "sam.txt"), "ends in .npz"),
        (("gd.npz", "short.npz"), "499 examples"),
        (("gd.npz", "late.npz"), "'0, 10 and 20 against 5': none is in both records"),
        (("gd.npz", "sam.npz", "--ranking", "short.npz"), "ranking = '499 examples'"),
        (("gd.npz", "sam.npz", "--seed", "-1"), "at least 0"),
        (("gd.npz", "sam.npz", "--out", "taken.png"), "it exists"),
        (("gd.npz", "sam.npz", "--out", "/proc/x/out.png"), "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_no_file(folder, capsys, arguments, said):
    np.savez(folder / "short.npz", steps=[10], losses=LEVELS[None, 1:])
    np.savez(folder / "late.npz", steps=[5], losses=LEVELS[None])
    (folder / "taken.svg").touch()
    before = sorted(path.name for path in folder.iterdir())
    assert said in refused(capsys, "compare-losses", *arguments)
    assert sorted(path.name for path in folder.iterdir()) == before
