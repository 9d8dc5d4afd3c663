"""The cache of compiled programs saves time between processes, and nothing but time is lost with it."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import jax
import pytest

from icl_theory import compilation_cache

PROGRAM = """
from icl_theory import compilation_cache
folder = compilation_cache.enable()
import jax
counts = {"hits": 0, "misses": 0}
def note(event, **about):
    name = event.removeprefix("/jax/compilation_cache/cache_")
    if name in counts:
        counts[name] += 1
jax.monitoring.register_event_listener(note)
from icl_theory import sample_prompts, TaskMixture, prompt_moments
moments = prompt_moments(sample_prompts(TaskMixture.single([1.0, 0.5], num_context=3), 5, key=jax.random.key(0)))
print(folder, counts["hits"], counts["misses"], moments.gram.sum().hex())
"""


NAMES = (
    compilation_cache.FOLDER,
    "JAX_ENABLE_COMPILATION_CACHE",
    compilation_cache.VARIABLE,
    *compilation_cache.SETTINGS,
)


@pytest.fixture
def clean(monkeypatch):
    """No cache set by the tests' own set-up, which is put back."""
    before = os.environ.get(compilation_cache.FOLDER)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", before)
    for name in NAMES:
        os.environ.pop(name, None)  # those that were there are put back by `monkeypatch`


def start(folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment | {compilation_cache.VARIABLE: str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors == ""
    folder, hits, misses, value = output.split()
    return folder, int(hits), int(misses), value


def test_what_is_compiled_once_is_found_again_and_damage_costs_only_time(tmp_path):
    together = [start(tmp_path) for _ in range(2)]  # neither may hurt the other
    found = [finish(process) for process in together]
    assert found[0][3] == found[1][3]
    folder, hits, misses, value = finish(start(tmp_path))
    assert hits > 0
    assert misses == 0
    assert value == found[0][3]
    for number, path in enumerate(sorted(Path(folder).iterdir())):
        content = path.read_bytes()
        foreign = zlib.compress(b"no program of any compiler")
        path.write_bytes([b"", content[: len(content) // 2], bytes(reversed(content)), foreign][number % 4])
    *_, value = finish(start(tmp_path))
    assert value == found[0][3]


def test_it_can_be_turned_off(clean):
    for word in ("off", "0", "No"):
        clean.setenv(compilation_cache.VARIABLE, word)
        assert compilation_cache.enable() is None
        assert not jax.config.jax_enable_compilation_cache
    assert compilation_cache.FOLDER not in os.environ


def test_it_can_be_put_elsewhere_and_is_the_user_s_alone(clean, tmp_path):
    clean.setenv(compilation_cache.VARIABLE, str(tmp_path))
    folder = compilation_cache.enable()
    assert folder.parent == tmp_path / compilation_cache.NAME
    assert folder.stat().st_mode & 0o777 == 0o700
    clean.setenv("NPROC", "7")  # a child with other threads, which inherits the folder, has programs of its own
    assert compilation_cache.enable().name == folder.name.rpartition("-")[0] + "-7"


def test_whoever_has_set_up_a_cache_keeps_it(clean, tmp_path):
    clean.setenv(compilation_cache.FOLDER, str(tmp_path / "own"))
    clean.setenv(compilation_cache.VARIABLE, str(tmp_path))
    assert compilation_cache.enable() == tmp_path / "own"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_leaves_everything_as_it_was(clean, tmp_path):
    (tmp_path / "file").write_text("")
    clean.setenv(compilation_cache.VARIABLE, str(tmp_path / "file"))
    assert compilation_cache.enable() is None
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_importing_the_package_sets_no_cache(clean):
    code = "import jax, icl_theory; print(jax.config.jax_compilation_cache_dir)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_beyond_the_limit_the_oldest_go_and_empty_ones_always(tmp_path):
    for age, (name, size) in enumerate([("new", 40), ("middle", 40), ("empty", 0), ("old", 40)]):
        (tmp_path / name).write_bytes(b"x" * size)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    compilation_cache.trim(tmp_path, limit=120)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle", "old"}
    compilation_cache.trim(tmp_path, limit=119)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle"}
