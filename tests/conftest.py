"""Shared set-up: float64, and the shapes in annotations checked at run time."""

import os
from contextlib import contextmanager

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests ask what programs compute, most of them on a few numbers: a third of their time is saved by compiling in haste.
# The fixture `optimised` is for those that compute long.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: threads that wait for each other would spin
    os.environ["NPROC"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

from jaxtyping import install_import_hook

with install_import_hook("icl_theory", "runtime_checker.check"):
    import icl_theory  # noqa: F401

import hypothesis
import jax
import numpy as np
import pytest

from icl_theory import TaskMixture, compilation_cache, linear_spectrum
from icl_theory.cli import main

jax.config.update("jax_enable_x64", True)
compilation_cache.enable()  # for all workers and the processes that tests start
hypothesis.settings.register_profile("default", deadline=None, max_examples=20, derandomize=True)
hypothesis.settings.load_profile("default")


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no worker is left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="module")
def optimised():
    """Programs compiled as users have them, in this process and in those that it starts."""
    before = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]
    jax.clear_caches()
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.clear_caches()
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = before
    jax.config.update("jax_disable_most_optimizations", before.lower() in ("1", "true"))


@pytest.fixture
def mixture():
    """D = 4, the default spectrum on the coordinate axes, N = 31."""
    return TaskMixture.single(linear_spectrum(4), num_context=31)


@contextmanager
def compilations():
    """The names of the programs that are compiled inside, one entry for each compilation."""
    programs = []

    def note(event, duration_secs, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(about.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield programs
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def run_command(*arguments):
    """Exit code of the command line."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def refused(capsys, *arguments):
    """The one line printed for bad input."""
    assert run_command(*arguments) == 2
    return one_line(capsys)


def one_line(capsys):
    """What stands on standard error, which has to be one line of the command's own."""
    error = capsys.readouterr().err.strip()
    assert error.startswith("icl-theory: error: ")
    assert "\n" not in error
    assert "Traceback" not in error
    return error


def assert_close(actual, desired, *, rtol=None):
    """Equal up to a few rounding errors of the coarser dtype, relative to the largest entry."""
    actual, desired = np.asarray(actual), np.asarray(desired)
    dtype = np.result_type(actual, desired)
    rtol = rtol if rtol is not None else 200 * np.finfo(dtype).eps
    scale = max(float(np.max(np.abs(desired), initial=0.0)), np.finfo(dtype).tiny)
    np.testing.assert_allclose(actual / scale, desired / scale, rtol=0, atol=rtol)
