"""Experiments and figures as commands, on a small experiment."""

import json
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import xarray as xr
from click.testing import CliRunner

from experiments import reproduce as parallel
from experiments.benchmarks import compilations
from figures import FIGURES
from figures.figure import draw
from icl_theory import IclTheoryError, InputError
from icl_theory.verification import NAMES, all_claims, load_claim
from icl_theory.verification.saved import load, make

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_module(monkeypatch, capsys):
    """Run `python -m MODULE …` in this process: its exit code and what it printed, standard output and error."""
    before = signal.getsignal(signal.SIGTERM)

    def call(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    yield call
    signal.signal(signal.SIGTERM, before)


def test_lists_name_everything(run_module):
    _, listed, _ = run_module("experiments", "list")
    assert all(f"\n  {name}: " in listed for name in (*NAMES, *FIGURES))
    assert all(claim.question in listed for claim in all_claims())
    assert listed.count("takes: ") == listed.count("shows: ") == len(NAMES) + len(FIGURES)
    _, drawn, _ = run_module("figures")
    assert all(name in drawn for name in FIGURES)


def test_data_are_made_once_and_damage_is_refused(tmp_path):
    claim = load_claim("fixed_points")
    seen = []
    assert make(claim, tmp_path, lambda *report: seen.append(report))
    assert {title for title, *_ in seen} == {"fixed_points (float64)", "fixed_points (float32)"}
    assert not make(claim, tmp_path, lambda *report: None)
    data = load(claim, tmp_path)
    assert data.loss.dims == ("task", "subset")
    assert json.loads(data.attrs["settings"])["dim"] == 4
    about = json.loads((tmp_path / "fixed_points" / "manifest.json").read_text())
    assert about["machine"]["jax"]
    manifest = tmp_path / "fixed_points" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace(about["code"], "0.0.1+deadbeef"))
    with pytest.raises(InputError, match=r"written by icl_theory 0\.0\.1"):
        load(claim, tmp_path)
    manifest.write_text(text)
    next((tmp_path / "fixed_points" / "data_float64.zarr" / "loss").glob("0*")).write_bytes(b"")
    with pytest.raises(InputError, match="make fresh"):
        make(claim, tmp_path, lambda *report: None)


def test_the_usage_line_of_figures_can_be_typed(run_module):
    code, out, _ = run_module("figures", "--help")
    assert (code, out.splitlines()[0]) == (0, "Usage: python -m figures [OPTIONS] [NAME]...")


def test_a_figure_without_data_names_the_command(run_module, tmp_path):
    code, _, error = run_module("figures", "phase_diagram", "--results", tmp_path)
    assert code == 2
    assert f"python -m experiments run phase_diagram --results {tmp_path}" in error


@pytest.mark.parametrize("width", ["page", "column"])
def test_a_figure_of_closed_forms_needs_no_data(width, tmp_path):
    figure = FIGURES["schematic"]
    assert (figure.reads, figure.sources) == ((), "closed forms alone")
    (path,) = draw(figure, tmp_path, ("svg",), width)
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize(
    "arguments", [("figures", "nothing"), ("experiments", "run", "nothing"), ("experiments", "--x")]
)
def test_unknown_names_are_one_line(run_module, arguments):
    code, _, error = run_module(*arguments)
    assert code == 2
    assert len(error.strip().splitlines()) == 1


def test_both_are_commands_of_their_own():
    """As processes, which is how `make reproduce` calls them."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "run", "no\nsuch"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_saved_data_open_without_this_package(tmp_path):
    claim = load_claim("fixed_points")
    make(claim, tmp_path, lambda *report: None)
    data = xr.open_zarr(tmp_path / "fixed_points" / "data_float32.zarr")
    assert data.attrs["precision"] == "float32"
    for name, values in data.variables.items():
        assert values.attrs["units"], name
    for name, values in data.data_vars.items():
        assert values.attrs["long_name"], name


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setenv("NPROC", "2")


def test_on_one_core_there_is_no_other_process(monkeypatch, tmp_path):
    monkeypatch.setenv("NPROC", "1")
    with parallel.Workers(tmp_path, 2) as workers:
        assert not workers._workers


def test_the_data_of_an_experiment_do_not_depend_on_who_makes_them(two_cores, tmp_path):
    """A worker process of one thread, and this process."""
    said, shares = [], []
    task = parallel.Task("data", "fixed_points")
    with parallel.Workers(tmp_path / "apart", 2) as workers:
        workers.do([task], lambda task, share, reused=False: shares.append(share), said.append)
    assert said[0].startswith(f"{tmp_path / 'apart' / 'fixed_points'}: made in ")
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    parallel.perform(task, tmp_path / "here", lambda share: None)
    apart, here = (load(load_claim("fixed_points"), tmp_path / name) for name in ("apart", "here"))
    xr.testing.assert_allclose(apart, here, rtol=1e-12, atol=1e-14)
    line, made = parallel.perform(task, tmp_path / "here", lambda share: None)
    assert line.endswith("complete, reused")
    assert not made


def test_what_a_worker_cannot_do_is_one_line_and_a_lost_worker_too(two_cores, tmp_path):
    with (
        pytest.raises(IclTheoryError, match="python -m experiments run phase_diagram"),
        parallel.Workers(tmp_path, 2) as workers,
    ):
        workers.do([parallel.Task("figure", "phase_diagram")], lambda *report: None, lambda line: None)

    with parallel.Workers(tmp_path, 2) as workers:
        for process in workers._workers.values():
            process.kill()
            process.join()
        with pytest.raises(IclTheoryError, match="fixed_points: its process ended"):
            workers.do([parallel.Task("data", "fixed_points")], lambda *report: None, lambda line: None)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_one_bar_says_how_much_is_done_and_left(monkeypatch):
    now, lines = iter([0.0, 11.0, 31.0]), []
    monkeypatch.setattr(parallel.time, "monotonic", lambda: next(now))
    seconds = {"there": 60.0, "first": 10.0, "second": 30.0}
    monkeypatch.setattr(parallel.Task, "seconds", property(lambda task: seconds[task.name]))
    progress = parallel._Progress(lambda *report: lines.append(report), 3, 100.0)
    progress(parallel.Task("data", "there"), 1.0, True)
    progress(parallel.Task("data", "first"), 1.0)
    progress(parallel.Task("data", "second"), 1.0)
    assert lines == [
        ("claims", 600, 1000, "1 of 3 claims"),  # what was there says nothing about the pace
        ("claims", 700, 1000, "2 of 3 claims, about 33 s left"),
        ("claims", 1000, 1000, "3 of 3 claims"),
    ]


def test_an_experiment_named_twice_is_made_once(tmp_path):
    said = []
    parallel.reproduce(["fixed_points", "fixed_points"], [], tmp_path, say=said.append)
    assert len(said) == 1


def test_the_programs_of_an_experiment_are_counted(monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "1")  # what the command sets is put back
    made = CliRunner().invoke(compilations.main, ["fixed_points", "--top", "3"])
    jax.config.update("jax_enable_compilation_cache", True)
    assert made.exit_code == 0, made.output
    (row,) = [line for line in made.output.splitlines() if line.startswith("│ fixed_points")]
    programs, compiled, *seconds = [cell.strip() for cell in row.strip("│").split("│")][1:]
    assert int(compiled) >= int(programs) > 3
    assert float(seconds[2]) > 0
