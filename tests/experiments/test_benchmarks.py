"""The benchmark: rows printed and saved as they come, gone on with, beside their bounds and the last release."""

import json
import sys

import jax.numpy as jnp
import pytest
from click.testing import CliRunner

from experiments.benchmarks import __main__ as bench
from experiments.benchmarks.row import Row
from icl_theory.cli.one_line import run
from icl_theory.errors import InputError

SPEED = Row("1 run", "GD", 2.0, "10⁶ run-steps/s", reach=4.0)
SECONDS = Row("a sweep", "the whole process", 8.0, "s", reach=10.0, less=True)


class Fakes:
    """Two parts that take no time: their rows, what was asked of them, and after how many rows they are stopped."""

    def __init__(self):
        self.asked, self.stop = [], None
        self.rows = {"steps": [SPEED, SECONDS], "upsampling": [Row("all", "memory", jnp.float32(1.5), "GiB")]}

    def part(self, name, precisions):
        def measure(dtype, quick):
            self.asked.append((name, dtype, quick, jnp.zeros(()).dtype.name))
            for number, row in enumerate(self.rows[name]):
                if self.stop == number:
                    raise KeyboardInterrupt
                yield row

        return bench.Part(f"the fake {name}", measure, precisions)

    @property
    def places(self):
        return [one[:2] for one in self.asked]


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    made = Fakes()
    parts = {"steps": made.part("steps", bench.DTYPES), "upsampling": made.part("upsampling", ("float32",))}
    monkeypatch.setattr(bench, "PARTS", parts)
    monkeypatch.setattr(bench, "RELEASE", tmp_path / "release.json")
    return made


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results" / "bench.json"


def printed(out, *words):
    made = CliRunner().invoke(bench.main, [*words, "--out", str(out)])
    if made.exception:
        raise made.exception
    return made.output.splitlines()


def lines_with(lines, text):
    return [line for line in lines if text in line]


def saved(out):
    return json.loads(out.read_text())


ALL = [("steps", "float32"), ("steps", "float64"), ("upsampling", "float32")]


def test_every_part_is_measured_in_its_precisions(fakes, out):
    lines = printed(out)
    assert fakes.places == ALL
    assert all(precision == used for _, precision, _, used in fakes.asked)
    assert lines_with(lines, "steps, float64: the fake steps")
    (speed,) = lines_with(lines[: lines.index("steps, float64: the fake steps")], "GD")
    assert "1 run" in speed
    assert speed.endswith("2 10⁶ run-steps/s ≥ 4 missed: 50 % of it")
    assert len(lines_with(lines, "≤ 10 met")) == 2
    assert "2 of 4 bounds met" in lines
    assert not lines_with(lines, "release")
    assert [(row["part"], row["precision"], row["what"]) for row in saved(out)["rows"]] == [
        ("steps", "float32", "GD"),
        ("steps", "float32", "the whole process"),
        ("steps", "float64", "GD"),
        ("steps", "float64", "the whole process"),
        ("upsampling", "float32", "memory"),
    ]
    assert saved(out)["rows"][0] | SPEED._asdict() == saved(out)["rows"][0]
    assert saved(out)["rows"][0]["verdict"] == "missed: 50 % of it"


def test_a_row_is_printed_and_saved_before_the_next_is_measured(fakes, out, monkeypatch):
    said, seen = [], []
    monkeypatch.setattr(bench.click, "echo", said.append)

    def measure(dtype, quick):
        yield SPEED
        seen.append(([row["what"] for row in saved(out)["rows"]], said[-1], saved(out)["complete"]))
        yield SECONDS

    monkeypatch.setitem(bench.PARTS, "steps", bench.Part("steps", measure, ("float32",)))
    printed(out, "steps")
    ((rows, last, complete),) = seen
    assert rows == ["GD"]
    assert "GD" in last
    assert complete == []
    assert saved(out)["complete"] == [["steps", "float32"]]
    assert [path.name for path in out.parent.iterdir()] == ["bench.json"]


def test_a_stopped_run_goes_on(fakes, out, monkeypatch, capsys):
    """Complete parts are shown; the one that was stopped is measured from its start."""
    printed(out, "steps", "--dtype", "float32")
    fakes.stop = 1
    monkeypatch.setattr(sys, "argv", ["bench", "--out", str(out)])
    with pytest.raises(SystemExit, match="130"):
        run(bench.main, "bench", cache=False)
    out_text, error = capsys.readouterr()
    assert error.strip().startswith("bench: error: interrupted")
    assert len(lines_with(out_text.splitlines(), "GD")) == 2
    assert len(saved(out)["rows"]) == 3
    fakes.stop, fakes.asked = None, []
    lines = printed(out)
    assert fakes.places == ALL[1:]
    assert lines_with(lines, "measured before") == ["steps, float32: the fake steps (measured before)"]
    assert len(lines_with(lines, "GD")) == 2
    assert len(saved(out)["rows"]) == 5
    fakes.asked = []
    assert len(lines_with(printed(out), "measured before")) == 3
    assert fakes.asked == []


def test_parts_go_by_name(fakes, out, monkeypatch, capsys):
    printed(out, "upsampling")
    printed(out, "upsampling", "steps", "--dtype", "float64", "--quick", "--fresh")
    assert fakes.asked == [("upsampling", "float32", False, "float32"), ("steps", "float64", True, "float64")]
    with pytest.raises(InputError, match="--dtype = 'float64': upsampling: measured in float32 alone"):
        printed(out, "upsampling", "--dtype", "float64")
    monkeypatch.setattr(sys, "argv", ["bench", "stteps"])
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        run(bench.main, "bench", cache=False)
    (line,) = capsys.readouterr().err.splitlines()
    for name in ("stteps", "steps", "runs", "folding", "sweeps", "upsampling", "fine-tuning"):
        assert f"'{name}'" in line


def test_figures_of_another_version_or_machine_are_set_aside(fakes, out):
    printed(out, "steps")
    for number, change in enumerate(({"code": "0.0.1+12345678"}, {"machine": {"cpus": 1}}, {"quick": True}), start=1):
        out.write_text(json.dumps(saved(out) | change))
        fakes.asked = []
        (said,) = lines_with(printed(out, "steps"), "set aside")
        assert f"{out} is set aside as {out}.old-{number} (" in said
        assert len(fakes.asked) == 2
    fakes.asked = []
    assert f"{out}.old-4 (--fresh)" in lines_with(printed(out, "steps", "--fresh"), "set aside")[0]
    assert len(fakes.asked) == 2
    assert json.loads(out.with_name("bench.json.old-1").read_text())["code"] == "0.0.1+12345678"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine": {}, "float32": {}}', "half"])
def test_a_damaged_or_foreign_file_is_refused_in_one_line(fakes, out, text):
    printed(out, "steps")
    text = out.read_text()[:-200] if text == "half" else text
    out.write_text(text)
    for words in ((), ("--fresh",)):
        with pytest.raises(InputError, match="damaged; remove it or give another") as refused:
            printed(out, *words)
        assert str(refused.value).startswith(f"--out = '{out}': ")
        assert "\n" not in str(refused.value)
        assert out.read_text() == text


def test_figures_that_were_changed_or_lost_are_refused(fakes, out):
    printed(out, "steps")
    whole = out.read_text()
    for text in (whole.replace('"value": 2.0', '"value": 3.0'), json.dumps(json.loads(whole) | {"rows": []})):
        out.write_text(text)
        with pytest.raises(InputError, match="damaged"):
            printed(out, "steps")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(fakes, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "bench.json"):
        with pytest.raises(InputError, match=f"'{out}'"):
            printed(out, "steps")
    assert fakes.asked == []


def test_a_fall_against_the_release_is_seen(fakes, out):
    lines = printed(out, "--release")
    assert lines[-1] == f"wrote {bench.RELEASE}"
    kept = json.loads(bench.RELEASE.read_text())
    assert kept["rows"] == saved(out)["rows"]
    assert "platform" not in kept["machine"]
    assert saved(out)["machine"] == kept["machine"] | {"platform": saved(out)["machine"]["platform"]}

    same = printed(out)
    assert lines_with(same, "last release: icl_theory ") == [
        f"last release: icl_theory {kept['code']}, " + machine(kept)
    ]
    assert "0 of 5 figures worse than the last release by more than a tenth" in same
    assert len(lines_with(same, "release 2: × 1.00")) == 2

    fakes.rows["steps"] = [
        SPEED._replace(value=1.0),
        SECONDS._replace(value=9.6),
        Row("4 runs", "GD", 1.0, "10⁶ run-steps/s"),
    ]
    fakes.rows["upsampling"] = [Row("all", "memory", 1.45, "GiB")]
    lines = printed(out, "--fresh")
    speeds = lines_with(lines, "GD")
    assert [line.endswith("release 2: × 0.50 worse") for line in speeds] == [True, False, True, False]
    assert all(line.endswith("release 8: × 1.20 worse") for line in lines_with(lines, "the whole process"))
    assert lines_with(lines, "memory")[0].endswith("release 1.5: × 0.97")
    assert "4 of 5 figures worse than the last release by more than a tenth" in lines


def machine(about):
    return ", ".join(f"{name} {value}" for name, value in about["machine"].items())


def test_a_release_takes_everything(fakes, out, monkeypatch, capsys):
    for words in (("steps",), ("--dtype", "float32"), ("--quick",)):
        monkeypatch.setattr(sys, "argv", ["bench", "--release", *words, "--out", str(out)])
        with pytest.raises(SystemExit, match="2"):
            run(bench.main, "bench", cache=False)
        assert "bench: error: --release takes every part in both precisions" in capsys.readouterr().err
    assert fakes.asked == []
    assert not out.exists()
    assert not bench.RELEASE.exists()


def test_gain_is_above_one_where_a_figure_is_better():
    assert SPEED.gain_over(1.0) == 2
    assert SECONDS.gain_over(16.0) == 2
    assert SECONDS._replace(value=0.0).gain_over(1.0) == float("inf")
    assert SECONDS._replace(value=0.0).gain_over(0.0) == 1
    assert SECONDS._replace(value=20.0).verdict == "missed: 50 % of it"
