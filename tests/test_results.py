"""Result folders: complete or absent, and everything else named."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from icl_theory import InputError
from icl_theory.environment import code_version, process_bytes
from icl_theory.results import (
    MANIFEST,
    is_complete,
    load_arrays,
    plain,
    read_manifest,
    save_arrays,
    set_aside,
    write_result,
)


@dataclasses.dataclass(frozen=True)
class Config:
    rho: float = 0.1
    levels: tuple[float, ...] = (1.0, 2.0)


def write(folder, config=None, code="1"):
    return write_result(
        folder,
        lambda partial: save_arrays(partial / "data.npz", {"x": np.arange(3)}),
        config=config or Config(),
        code=code,
        seconds=1.0,
    )


def test_round_trip(tmp_path):
    folder = tmp_path / "deep" / "run"
    assert not is_complete(folder, config=Config(), code="1", remedy="…")
    write(folder)
    assert is_complete(folder, config=Config(), code="1", remedy="…")
    assert load_arrays(folder / "data.npz")["x"].tolist() == [0, 1, 2]
    assert read_manifest(folder, remedy="…")["config"] == {"rho": 0.1, "levels": [1.0, 2.0]}
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), "half written"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "damaged"),
        (lambda folder: (folder / MANIFEST).write_text('{"files": ["a"]}'), "damaged"),
        (lambda folder: (folder / MANIFEST).write_text('{"files": {}}'), "damaged"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00"), "damaged"),
        (lambda folder: (folder / "data.npz").unlink(), "data.npz is missing or damaged"),
        (lambda folder: (folder / "data.npz").write_bytes(b"cut"), "data.npz is missing or damaged"),
    ],
)
def test_half_written_folders_are_named_and_left_alone(tmp_path, damage, words):
    folder = tmp_path / "run"
    write(folder)
    damage(folder)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(InputError, match=words) as error:
        is_complete(folder, config=Config(), code="1", remedy="remove it")
    assert "remove it" in str(error.value)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_another_version_or_setting_is_refused_with_what_differs(tmp_path):
    write(tmp_path / "run")
    with pytest.raises(InputError, match="written by icl_theory 1, this is 2"):
        is_complete(tmp_path / "run", config=Config(), code="2", remedy="…")
    with pytest.raises(InputError, match=r"rho was 0.1, now 0.2"):
        is_complete(tmp_path / "run", config=Config(rho=0.2), code="1", remedy="…")


def test_nothing_is_overwritten_and_nothing_half_written_stays(tmp_path):
    write(tmp_path / "run")
    with pytest.raises(InputError, match="exists"):
        write(tmp_path / "run")

    def interrupted(partial):
        (partial / "data.npz").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_result(tmp_path / "other", interrupted, config=Config(), code="1", seconds=0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_unwritable_place_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "file" / "run")

    def full(partial):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        write_result(tmp_path / "run", full, config=Config(), code="1", seconds=0.0)


def test_older_results_are_renamed_not_removed(tmp_path):
    folder = tmp_path / "run"
    assert set_aside(folder) is None
    for number in (1, 2):
        write(folder)
        assert set_aside(folder) == tmp_path / f"run.old-{number}"
    assert (tmp_path / "run.old-1" / "data.npz").exists()
    results = tmp_path / "results"
    write(results / "experiment")
    (results / "figures").mkdir()
    assert set_aside(results) == tmp_path / "results.old-1"


def test_a_foreign_folder_is_never_moved(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="other things than results"):
        set_aside(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "thesis.txt").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="it is a file"):
        is_complete(tmp_path / "file", config=Config(), code="1", remedy="…")


def test_versions_and_configs_are_plain(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    before = code_version(tmp_path)
    code_version.cache_clear()
    (tmp_path / "a.py").write_text("x = 2")
    assert code_version(tmp_path) != before
    assert json.dumps(plain({"a": np.float64(1.0), "b": np.arange(2), "c": Config()}))


def test_the_peak_of_a_process_is_its_own():
    """Not that of the larger one which started it."""
    ballast = np.ones(2**27)  # 1 GiB
    code = "from icl_theory.environment import process_bytes as p; print(p(), p(peak=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    now, peak = map(float, done.stdout.split())
    assert process_bytes() > ballast.nbytes
    assert 0.9 * now < peak < ballast.nbytes
