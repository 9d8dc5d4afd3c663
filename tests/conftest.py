"""Shared set-up: float64, and the shapes in annotations checked at run time."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests ask what programs compute, most of them on a few numbers: a third of their time is saved by compiling in haste.
# The fixture `optimised` is for those that compute long.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: threads that wait for each other would spin
    os.environ["NPROC"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

from jaxtyping import install_import_hook

# For good, as modules are imported where they are first used. Language models are left out: their tests give wrong
# kinds of settings on purpose, which the package's own checks are to name.
CHECKED = (
    "tasks",
    "models",
    "moments",
    "analysis",
    "training",
    "upsampling",
    "theory",
    "simulation",
    "sweeps",
    "numerics",
)
install_import_hook([f"icl_theory.{name}" for name in CHECKED], "runtime_checker.check")

import hypothesis
import jax
import pytest

from icl_theory import TaskMixture, compilation_cache, linear_spectrum

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
