"""`icl-theory sweep` and `compare` end to end; bad input is one line, whatever is thrown at them."""

import shutil

import numpy as np
import pytest
from helpers import refused, run_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icl_theory import open_sweep

SHORT = ["--quiet", "--num-steps", "600", "--num-snapshots", "30", "--learning-rate", "0.05"]
ALIGNED = ["--init", "aligned", "--dim", "2", "--init-scale", "0.2", "--optimizer", "sam"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_dry_run_says_what_it_takes_and_writes_nothing(capsys, tmp_path):
    grid = ("seed=0:50", "optimizer=gd,sam", "rho=0:0.1:3")
    assert run_command("sweep", *grid, *SHORT, "--out", "s", "--dry-run") == 0
    shown = capsys.readouterr().out
    for words in (
        "runs      300 (seed 50 × optimizer 2 × rho 3)",
        "programs  2 to compile",
        "GiB",
        "time      about",
        "0 complete",
    ):
        assert words in shown
    assert not list(tmp_path.iterdir())


def test_a_sweep_is_named_by_its_settings_and_compared(capsys, tmp_path, monkeypatch):
    assert run_command("sweep", "rho=0:0.1:3", "eigenvalue_ratio=1.2:2:3", *SHORT, *ALIGNED) == 0
    shown = capsys.readouterr().out
    assert "ran 9 of 9 runs" in shown
    (folder,) = (tmp_path / "results" / "sweeps").iterdir()
    assert run_command("compare", folder) == 0
    shown = capsys.readouterr().out
    assert "agree to rounding" in shown
    assert folder.with_name(f"{folder.name}-compare.png").stat().st_size > 10_000
    assert (
        run_command("compare", folder, "--variable", "learning_time", "--select", "rho=0.05", "--out", "curve.png") == 0
    )
    assert (tmp_path / "curve.svg").exists()
    assert "exists" in refused(capsys, "compare", folder, "--out", "curve.png")
    for options, words in (
        (["--select", "rho=0.07"], "not on that axis, which has 0, 0.05, 0.1"),
        (["--select", "seed=1"], "it is not swept; give one of"),
        (["--select", "rho"], "FIELD=VALUE"),
        (["--feature", "9"], "give 1 to 2"),
        (["--variable", "final_loss", "--feature", "2"], "final_loss has no features"),
        (["--x", "seed"], "give one of"),
        (["--out", "/proc/none/picture"], "cannot be written"),
    ):
        assert words in refused(capsys, "compare", folder, *options)
    assert "holds no sweep" in refused(capsys, "compare", "nowhere")
    monkeypatch.chdir(folder)
    assert run_command("compare", ".") == 0
    (chunk,) = (folder / "learning_time_ratio").glob("[0-9]*")
    chunk.write_bytes(b"abc")
    assert "run the same sweep again" in refused(capsys, "compare", folder)


def test_compare_takes_medians_over_seeds_and_says_when_there_is_nothing_to_compare(capsys):
    merged = ["--model", "merged", "--init-scale", "0.05", *SHORT, "--num-steps", "2000"]
    assert run_command("sweep", "seed=0:7", "num_context=8,31", *merged, "--out", "merged") == 0
    assert run_command("compare", "merged", "--variable", "final_loss") == 0
    assert run_command("compare", "merged", "--select", "num_context=8", "--out", "points") == 0
    assert run_command("sweep", "seed=0:3", *SHORT, "--blocks", "full", "--out", "rank") == 0
    assert run_command("sweep", "seed=0:3", *SHORT, "--out", "short") == 0
    capsys.readouterr()
    error = refused(capsys, "compare", "rank")
    assert "no measurement beside a prediction" in error
    assert "separate heads of rank 1" in error
    assert "none learned" in refused(capsys, "compare", "short")  # in theory neither, so the errors are 0


def test_the_reduced_system_alone(capsys):
    assert run_command("sweep", "rho=0:0.1:3", *SHORT, *ALIGNED, "--system", "reduced", "--out", "s") == 0
    found = open_sweep("s")
    assert "learning_time" not in found
    assert np.isfinite(found.predicted_final_loss).all()
    assert "no measurement" in refused(capsys, "compare", "s")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "at least one axis"),
        (["rho"], "FIELD=VALUES"),
        (["rhoo=1,2"], "did you mean rho"),
        (["rho=1:2"], "FIRST:LAST:COUNT"),
        (["rho=0:1:0"], "COUNT"),
        (["rho=0:1:1e12"], "COUNT"),
        (["rho=-1:1:3:log"], "positive ends"),
        (["seed=5:5"], "END"),
        (["seed=0:1e12"], "END"),
        (["rho=a,b"], "not a number"),
        (["rho=0,nan", "--optimizer", "sam"], "finite"),
        (["seed=0:2", "seed=3:5"], "one axis only"),
        (["seed=0:2", "--memory", "0"], "--memory"),
        (["seed=0:2", "--memory", "0.001"], "memory"),
        (["seed=0:2", "--config", "none.toml"], "cannot be read"),
        (["seed=0:2", "--process-id", "1"], "together"),
        (["seed=0:2", "--coordinator", "x:1", "--num-processes", "2", "--process-id", "2"], "--process-id"),
        (["seed=0:2", "--distributed"], "--distributed"),
        (["seed=0:2", "--coordinator", "foo", "--num-processes", "2", "--process-id", "1"], "HOST:PORT"),
        (["seed=0:2", "--coordinator", "foo:x", "--num-processes", "2", "--process-id", "1"], "HOST:PORT"),
        (["seed=0:2", "--seed", "3"], "it is on an axis too"),
        (["seed=0:1000", "--dim", "100000"], "GiB"),
        (["groups=1"], "unknown field"),
        (["seed=0:2", "--out", "x" * 300], "cannot be used"),
        (["seed=0:2", "--out", "x" * 300, "--dry-run"], "cannot be used"),
    ],
)
def test_bad_sweeps_are_one_line(arguments, words, capsys, tmp_path):
    assert words in refused(capsys, "sweep", *arguments)
    assert not list(tmp_path.iterdir())


VALUES = st.one_of(
    st.sampled_from(
        ["0:3", "0:1:3", "1e-3:1:2:log", "gd,sam", "nan", "", ":", "1;2", "2,1;3,1", "=", "separate,merged"]
    ),
    st.lists(st.one_of(st.floats(), st.integers(-2, 5)), min_size=1, max_size=3).map(lambda v: ",".join(map(str, v))),
)
NAMES = st.sampled_from(
    [
        "rho",
        "seed",
        "dim",
        "rank",
        "num-heads",
        "optimizer",
        "model",
        "num_context",
        "noise_std",
        "eigenvalues",
        "init_scale",
        "num_steps",
        "threshold",
        "eigenvalue_ratio",
        "fixed_task_share",
        "learning_rate",
        "dtype",
        "blocks",
        "x",
        "data_seed",
    ]
)


@given(axes=st.dictionaries(NAMES, VALUES, min_size=1, max_size=2), optimizer=st.sampled_from(["gd", "sam"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_random_sweeps_never_end_in_a_traceback(axes, optimizer, tmp_path):
    shutil.rmtree(tmp_path / "s", ignore_errors=True)
    base = ["--quiet", "--num-snapshots", "5", "--optimizer", optimizer, "--out", "s", "--memory", "8"]
    base += [] if "num_steps" in axes else ["--num-steps", "20"]
    code = run_command("sweep", *(f"{name}={values}" for name, values in axes.items()), *base)
    assert code in (0, 2)
    assert (tmp_path / "s").exists() == (code == 0)
