"""The cache of compiled programs saves time between processes, and nothing but time is lost with it."""

import os
import subprocess
import sys
from pathlib import Path

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


@pytest.fixture
def clean(monkeypatch):
    """No cache set by the tests' own set-up."""
    for name in ("JAX_COMPILATION_CACHE_DIR", compilation_cache.VARIABLE, *compilation_cache.SETTINGS):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


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
        path.write_bytes([b"", content[: len(content) // 2], bytes(reversed(content))][number % 3])
    *_, value = finish(start(tmp_path))
    assert value == found[0][3]


def test_it_can_be_turned_off_or_put_elsewhere(clean, tmp_path):
    for word in ("off", "0", "No"):
        clean.setenv(compilation_cache.VARIABLE, word)
        assert compilation_cache.enable() is None
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    clean.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    clean.setenv(compilation_cache.VARIABLE, str(tmp_path))
    assert compilation_cache.enable() == tmp_path / "own"  # whoever has set up JAX's own cache keeps it
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
