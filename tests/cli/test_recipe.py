"""`icl-theory upsample` with sources, gaps and the published recipe, beside the rule."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from helpers import refused, run_command

import icl_theory as icl

STEPS = [0, 10, 20, 30]
SOURCES = np.repeat(["algebra", "words", "rare"], [12, 9, 3])
SLOW = np.arange(24) % 3 == 0
PACE = np.where(SLOW, 40.0, 8.0) * np.where(SOURCES == "words", 10.0, 1.0)
LOSSES = np.exp(-np.array(STEPS)[:, None] / PACE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "train.jsonl")
    icl.save_loss_record(icl.LossRecord(STEPS, LOSSES, np.arange(24)), tmp_path / "losses.npz")
    return tmp_path


def write(path, **change):
    rows = [{"id": place, "source": str(name), "text": "x"} for place, name in enumerate(SOURCES)]
    for place, value in change.items():
        rows[int(place[1:])] |= value
    rows = [{name: value for name, value in row.items() if value != "absent"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def upsample(*options, data="train.jsonl", losses="losses.npz"):
    return run_command("upsample", data, losses, "--quiet", "--no-picture", *options)


def printed_by(capsys):
    return "".join(" ".join(line.split()) + "\n" for line in capsys.readouterr().out.splitlines())


def times_written(path):
    return np.bincount([json.loads(line)["id"] for line in path.read_text().splitlines()])


def test_the_recipe_doubles_what_is_late_within_its_source(folder, capsys):
    assert upsample("--recipe", "vattheuer2025") == 0
    late = SLOW | (SOURCES == "rare")
    np.testing.assert_array_equal(times_written(folder / "train-upsampled.jsonl"), 1 + late)
    printed = printed_by(capsys)
    assert "late 10 (41.7%): the higher of two clusters of loss ratios, within each of 3 sources" in printed
    assert "algebra: 4 (33.3%) of 12\n" in printed
    assert "rare: 3 (100.0%) of 3, small: late as a whole" in printed
    assert "factor 2: as given" in printed


def test_the_rule_stands_beside_it(folder, capsys):
    """The rule looks at all sources together; of paces 8, 40, 80 and 400, the cut above 8 is the nearest to half."""
    assert upsample("--recipe", "vattheuer2025", "--dry-run") == 0
    ours = PACE > 8
    both = int(np.sum(ours & (SLOW | (SOURCES == "rare"))))
    printed = printed_by(capsys)
    assert f"beside the rule late {ours.sum()} ({ours.mean():.1%}): learned after step" in printed
    assert f"late by both {both}: {both / 10:.1%} of the late here, {both / ours.sum():.1%} of the rule's" in printed
    assert f"by chance {10 * ours.mean():.0f}" in printed
    epoch = float(printed.split("epoch ")[2].split(" times")[0])
    factor = float(printed.split("factor ")[2].split(":")[0])
    assert epoch == pytest.approx(1 + (factor - 1) * ours.mean(), abs=0.01)
    assert "times as long, here 1.42\n" in printed


def test_where_the_rule_finds_no_factor(folder, capsys):
    flat = np.exp(-np.array(STEPS)[:, None] / (100 * PACE))
    icl.save_loss_record(icl.LossRecord(STEPS, flat, np.arange(24)), folder / "flat.npz")
    assert upsample("--recipe", "vattheuer2025", "--dry-run", losses="flat.npz") == 0
    printed = printed_by(capsys)
    assert "late 10 (41.7%)" in printed
    assert "no example is learned by the last checkpoint" in printed


def test_parts_of_the_recipe_may_be_set(folder, capsys):
    options = ("--factor", 3, "--small-sources", "cluster", "--first", 2, "--by", "kind", "--out", "out.jsonl")
    (folder / "train.jsonl").write_text((folder / "train.jsonl").read_text().replace('"source"', '"kind"'))
    assert upsample("--recipe", "vattheuer2025", *options) == 0
    np.testing.assert_array_equal(times_written(folder / "out.jsonl"), 1 + 2 * SLOW)
    assert "first 2 checkpoints" in printed_by(capsys)


def test_clusters_of_trajectories_within_sources_of_a_table(folder):
    table = pa.Table.from_pylist([json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()])
    pa.parquet.write_table(table, folder / "train.parquet")
    options = ("--late", "clusters", "--by", "source", "--small-sources", "cluster", "--factor", 2)
    assert upsample(*options, "--write", "copies", "--out", "out.npy", data="train.parquet") == 0
    np.testing.assert_array_equal(np.load(folder / "out.npy"), 1 + SLOW)


def test_gaps_on_request(folder, capsys):
    losses = LOSSES.copy()
    losses[1, 3], losses[:, 5] = np.nan, np.inf
    np.savez(folder / "gaps.npz", steps=STEPS, losses=losses, ids=np.arange(24))
    command = ("upsample", "train.jsonl", "gaps.npz", "--quiet", "--dry-run")
    assert "accept gaps" in refused(capsys, *command)
    for options in (("--gaps",), ("--recipe", "vattheuer2025")):
        assert run_command(*command, *options) == 0
        printed = printed_by(capsys)
        assert "gaps 5 losses, in 2 of the examples" in printed
        assert "nothing to lose 1, with no learning time" in printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--recipe", "vattheuer2025", "--late", "clusters"), "the recipe vattheuer2025 says who is late"),
        (("--recipe", "vattheuer2025", "--rule", "ratio", "--target", 2), "with it target does nothing"),
        (("--recipe", "vattheuer2025", "--by", "kind"), "no such field; theirs are id, source, text"),
        (("--recipe", "vattheuer2025", "--by", "id"), "every example is a source of its own"),
        (("--late", "ratio-clusters", "--first", 9), "the record has 4 checkpoints"),
        (("--by", "source"), "by = 'given': late = quantile does not use it"),
        (("--late", "clusters", "--small-sources", "late"), "without sources it does nothing"),
    ],
)
def test_bad_options_are_one_line_and_no_file(folder, capsys, options, said):
    assert said in refused(capsys, "upsample", "train.jsonl", "losses.npz", "--quiet", *options)
    assert sorted(path.name for path in folder.iterdir()) == ["losses.npz", "train.jsonl"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_4": {"source": "absent"}, "_9": {"source": ""}}, "row 4 (from 0) lacks it; 2 of 24 rows"),
        ({"_4": {"source": None}}, "row 4 (from 0) lacks it; 1 of 24 rows"),
        ({"_4": {"source": ["a"]}}, "in row 4 (from 0) it is no text or number"),
    ],
)
def test_rows_without_a_source(folder, capsys, change, said):
    write(folder / "train.jsonl", **change)
    said_of = refused(capsys, "upsample", "train.jsonl", "losses.npz", "--quiet", "--recipe", "vattheuer2025")
    assert said in said_of
