"""Nothing is lost: sweeps that are killed, starved of disk, started twice, damaged, or spread over devices and
processes.
"""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import one_line, run_command

from icl_theory import InputError, sweep
from icl_theory.sweeps.folder import SweepFolder
from icl_theory.sweeps.plan import Plan
from icl_theory.sweeps.processes import ALONE, Process, hold
from icl_theory.sweeps.run_sweep import run_sweep
from icl_theory.sweeps.specification import Sweep

BASE = {"dim": 2, "num_heads": 2, "num_steps": 100_000, "num_snapshots": 40, "learning_rate": 0.05}
GRID = {"seed": "0:320"}  # at this many steps 64 runs are a unit
UNITS = 5
COMMAND = [f"--{name.replace('_', '-')}={value}" for name, value in BASE.items()] + [
    f"{name}={values}" for name, values in GRID.items()
]
ROOT = Path(__file__).parents[2]


def chunks(folder: Path) -> dict[str, bytes]:
    """Every chunk of the data set, by name."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".sweep" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if not path.name.startswith(".")}


def command(*arguments, **environment):
    """`icl-theory sweep` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "icl_theory", "sweep", "--quiet", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(*arguments):
    return run_command("sweep", "--quiet", *arguments)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, optimised):
    folder = tmp_path_factory.mktemp("sweep") / "undisturbed"
    sweep(BASE, grid=GRID, out=folder)
    assert len(list((folder / ".sweep").glob("unit-*"))) == UNITS
    return folder


KILLING = """
import os, random, signal, sys, time
from pathlib import Path
from icl_theory.sweeps.run_sweep import run_sweep
from icl_theory.sweeps.specification import Sweep

base, grid, folder, seed = eval(sys.argv[1]), eval(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
chance, killed, began = random.Random(seed), 0, None
receipts = lambda: len(list((folder / ".sweep").glob("unit-*")))
while killed < 20:
    before, child = receipts(), os.fork()
    if child == 0:  # jax has not started anything yet in the parent, so a child starts afresh
        run_sweep(Sweep.create(base, grid=grid), folder)
        os._exit(0)
    if killed % 2:  # anywhere, the start included
        time.sleep(chance.uniform(0.0, 4.0))
    else:  # while a later unit is run or written
        while receipts() == before and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.3))
    try:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
    except (ProcessLookupError, ChildProcessError):
        pass
    print(killed, receipts(), flush=True)
    if receipts() == int(sys.argv[5]) and killed < 20:  # all done: some units are taken away again
        for path in sorted((folder / ".sweep").glob("unit-*"))[: int(sys.argv[5]) - 1]:
            path.unlink()
"""


@pytest.mark.slow
def test_killed_twenty_times_and_resumed_it_is_bit_identical(undisturbed, tmp_path):
    """Half of the kills come anywhere in the first seconds, half while a unit is run or written."""
    folder = tmp_path / "killed"
    seed = int(time.time())
    arguments = [repr(BASE), repr(GRID), str(folder), str(seed), str(UNITS)]
    done = subprocess.run([sys.executable, "-c", KILLING, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, (seed, done.stderr)
    assert done.stdout.splitlines()[-1].startswith("20 ")
    sweep(BASE, grid=GRID, out=folder)
    found = {
        name: data for name, data in chunks(folder).items() if not name.endswith(".partial")
    }  # cut off, never read
    assert found == chunks(undisturbed), f"seed of the kills: {seed}"


def test_several_devices_give_the_same_bits(undisturbed, tmp_path):
    process = command("--out", tmp_path / "four", *COMMAND, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert process.wait() == 0, process.stderr.read()
    assert chunks(tmp_path / "four") == chunks(undisturbed)


def test_two_processes_share_the_work_and_neither_needs_the_other(undisturbed, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder = tmp_path / "two"
    first, second = (
        command("--out", folder, *COMMAND, "--coordinator", address, "--num-processes", 2, "--process-id", number)
        for number in range(2)
    )
    while not list((folder / ".sweep").glob("unit-*")) and first.poll() is None:
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    assert first.wait() == 0, first.stderr.read()
    receipts = {path.name for path in (folder / ".sweep").glob("unit-*")}
    assert {f"unit-{number:06d}.json" for number in (0, 2, 4)} <= receipts
    if len(receipts) < UNITS:
        assert "still missing" in first.stdout.read()
    sweep(BASE, grid=GRID, out=folder)  # what the second would have done
    assert chunks(folder) == chunks(undisturbed)


def test_a_finished_sweep_is_not_run_again_and_another_is_refused(undisturbed, capsys, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(undisturbed, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "lock" not in path.name}
    assert call("--out", folder, *COMMAND) == 0
    assert "nothing left to run" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "lock" not in path.name} == before
    for change, words in (
        (["--learning-rate", "0.06"], "learning_rate was 0.05, now 0.06"),
        (["noise_std=0,1"], "axes"),
        (["--curves"], "curves was False, now True"),
    ):
        assert call("--out", folder, *COMMAND, *change) == 2
        assert words in one_line(capsys)
    assert call("--out", folder, *COMMAND, "rho=0,1", "--optimizer=sam", "--dry-run") == 2
    assert "axes was ['seed'], now ['seed', 'rho']" in one_line(capsys)
    assert call("--out", folder, *COMMAND, "--memory=0.1") == 0  # nothing is left to run
    capsys.readouterr()
    (folder / ".sweep" / "unit-000002.json").unlink()
    assert call("--out", folder, *COMMAND, "--memory=0.1") == 2
    assert "begun in units that take" in one_line(capsys)
    about = json.loads((folder / ".sweep" / "sweep.json").read_text())
    (folder / ".sweep" / "sweep.json").write_text(json.dumps(about | {"code": "0.0.1+deadbeef"}))
    assert call("--out", folder, *COMMAND) == 2
    assert "begun with icl_theory 0.0.1" in one_line(capsys)
    assert call("--out", folder, "--force", "rho=0:0.1:3", "--optimizer=sam", "--num-steps=50") == 0
    assert "set aside" in capsys.readouterr().out
    assert chunks(tmp_path / "s.old-1") == chunks(undisturbed)


def test_a_truncated_chunk_is_detected_and_only_its_unit_run_again(undisturbed, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(undisturbed, folder)
    chunk = folder / "learning_time" / "2.0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    (folder / "final_loss" / "0").unlink()
    outcome = run_sweep(Sweep.create(BASE, grid=GRID), folder)
    assert outcome.ran == 2 * 64
    assert chunks(folder) == chunks(undisturbed)
    (folder / ".sweep" / "unit-000001.json").write_text('{"files": ')
    assert run_sweep(Sweep.create(BASE, grid=GRID), folder).ran == 64


def test_a_second_sweep_on_the_same_folder_refuses(undisturbed, capsys, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(undisturbed, folder)
    with hold(folder, ALONE):
        for extra in ([], ["--force"]):
            assert call("--out", folder, *COMMAND, *extra) == 2
            assert "another sweep is running in it" in one_line(capsys)
    assert call("--out", folder, *COMMAND) == 0


@pytest.mark.parametrize("held", ["one of several", "alone"])
def test_nobody_runs_or_starts_over_beside_another(undisturbed, capsys, tmp_path, held):
    folder = tmp_path / "s"
    shutil.copytree(undisturbed, folder)
    with hold(folder, Process(1, 2) if held == "one of several" else ALONE):
        for extra in ([], ["--force"]):
            assert call("--out", folder, *COMMAND, *extra) == 2
            assert "another sweep is running in it" in one_line(capsys)
        if held == "one of several":
            with hold(folder, Process(0, 2)):
                pass
            with pytest.raises(InputError, match="another sweep"), hold(folder, Process(1, 3)):
                pass
    assert not list(tmp_path.glob("s.old-*"))


def test_a_folder_that_was_replaced_is_not_written_into(undisturbed, tmp_path):
    folder, specified = tmp_path / "s", Sweep.create(BASE, grid=GRID)
    shutil.copytree(undisturbed, folder)
    plan = Plan.from_sweep(specified)
    ours, unit = SweepFolder(folder), next(iter(plan.units()))
    folder.rename(tmp_path / "elsewhere")
    SweepFolder.create(folder, plan, "other")
    with pytest.raises(InputError, match="another sweep has taken its place"):
        ours.write(unit, plan, {}, 1.0)
    assert not SweepFolder(folder).is_complete(unit)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / ".zattrs").write_text("{"),
        lambda folder: (folder / ".zmetadata").write_text("{"),
        lambda folder: (folder / "status" / ".zarray").unlink(),
        lambda folder: shutil.rmtree(folder / "learning_time"),
        lambda folder: (folder / ".sweep" / "sweep.json").write_text("{"),
    ],
)
def test_damaged_metadata_is_one_line_and_force_starts_over(undisturbed, capsys, tmp_path, damage):
    folder = tmp_path / "s"
    shutil.copytree(undisturbed, folder)
    damage(folder)
    assert call("--out", folder, *COMMAND) == 2
    assert "--force" in one_line(capsys)
    assert call("--out", folder, "--force", "seed=0:2", "--num-steps=20") == 0
    assert (tmp_path / "s.old-1" / ".sweep").is_dir()


def test_a_full_disk_is_one_line_and_keeps_what_is_complete(undisturbed, capsys, tmp_path, monkeypatch):
    folder, write, written = tmp_path / "s", SweepFolder.write, []

    def write_until_full(self, unit, *arguments):
        if len(written) == 2:  # no file can grow any more: what the system says of a full disk
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
            try:
                return write(self, unit, *arguments)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        written.append(unit)
        return write(self, unit, *arguments)

    monkeypatch.setattr(SweepFolder, "write", write_until_full)
    assert call("--out", folder, *COMMAND) == 2
    error = one_line(capsys)
    assert "cannot be written" in error
    assert "what is complete is kept" in error
    monkeypatch.undo()
    folder_now, plan = SweepFolder(folder), Plan.from_sweep(Sweep.create(BASE, grid=GRID))
    assert [folder_now.is_complete(unit) for unit in plan.units()] == [True, True, False, False, False]
    assert run_sweep(Sweep.create(BASE, grid=GRID), folder).ran == 320 - 128
    assert chunks(folder) == chunks(undisturbed)


def test_a_folder_that_may_not_be_written_is_one_line(undisturbed, capsys, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(undisturbed, folder)
    (folder / ".sweep" / "unit-000003.json").unlink()
    before = chunks(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in tmp_path.parents:  # another user must be able to come here
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # modes do not bind root
    try:
        assert call("--out", folder, *COMMAND) == 2
        assert "cannot be written (Permission denied)" in one_line(capsys)
        assert call("--out", tmp_path / "new", *COMMAND) == 2
        assert "cannot be written (Permission denied)" in one_line(capsys)
    finally:
        if root:
            os.seteuid(0)
        for path in (tmp_path, folder, *folder.rglob("*")):
            path.chmod(0o755)
    assert chunks(folder) == before
    assert call("--out", "/proc/none/sweep", *COMMAND) == 2
    assert "cannot be written" in one_line(capsys)


def test_what_is_no_sweep_is_left_alone(capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for extra in ([], ["--force"]):
        assert call("--out", tmp_path / "mine", *COMMAND, *extra) == 2
        assert "folder" in one_line(capsys)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    (tmp_path / "results" / "sweeps").mkdir(parents=True)
    assert call("--out", tmp_path / "results", *COMMAND, "--force") == 2
    assert "holds no sweep" in one_line(capsys)
    assert (tmp_path / "results" / "sweeps").is_dir()
    (tmp_path / "file").write_text("x")
    assert call("--out", tmp_path / "file", *COMMAND) == 2
    with pytest.raises(InputError, match="holds no sweep"):
        run_sweep(Sweep.create(BASE, grid=GRID), tmp_path / "mine")


def test_writing_is_flushed_before_the_receipt(undisturbed):
    """A receipt names every chunk of its unit with its digest."""
    receipt = json.loads((undisturbed / ".sweep" / "unit-000000.json").read_text())
    names = {name for name in chunks(undisturbed) if name.split("/")[1].startswith("0")}
    labels = {name for name in names if name.startswith(("seed/", "feature/"))}
    assert set(receipt["files"]) == names - labels
    assert receipt["seconds"] > 0
    assert np.isfinite(receipt["seconds"])
