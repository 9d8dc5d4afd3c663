"""Moments are sums: built from any pieces, of devices and processes too, in float64, saved and reloaded."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close
from hypothesis import given
from hypothesis import strategies as st
from moment_prompts import DIM, GROUPS, PROMPTS, WEIGHTED

from icl_theory import (
    InputError,
    Moments,
    SeparateAttention,
    TaskMixture,
    concatenate_prompts,
    cubic_features,
    load_moments,
    make_loss,
    prompt_moments,
    sample_prompt_chunks,
    sample_prompts,
)


@given(st.sampled_from([1, 7, 64]), st.integers(1, 59), st.sampled_from(["reduced", "full"]))
def test_pieces_add_up(chunk_size, cut, blocks):
    whole = prompt_moments(WEIGHTED, blocks=blocks)
    parts = [jax.tree.map(lambda leaf, s=s: np.asarray(leaf)[s], WEIGHTED) for s in (slice(0, cut), slice(cut, None))]
    apart = prompt_moments(parts[0], blocks=blocks) + prompt_moments(parts[1], blocks=blocks, chunk_size=chunk_size)
    streamed = prompt_moments(iter(parts), blocks=blocks, chunk_size=chunk_size)
    for found in (apart, streamed):
        assert (found.count, found.dim, found.blocks) == (60, DIM, blocks)
        for field in ("gram", "cross", "energy", "weight"):
            assert_close(getattr(found, field), getattr(whole, field), rtol=1e-13)


def test_moments_by_hand_and_upsampling_is_a_factor():
    found = prompt_moments(WEIGHTED)
    features, weights = np.asarray(cubic_features(PROMPTS, blocks="full")), np.asarray(WEIGHTED.weight)
    assert_close(found.gram, sum(w * np.outer(f, f) for w, f in zip(weights, features, strict=True)), rtol=1e-13)
    assert_close(found.cross, (weights * np.asarray(PROMPTS.y_query)) @ features, rtol=1e-13)
    assert_close(found.energy, weights @ np.square(PROMPTS.y_query))
    assert_close(found.weight, weights.sum())
    early, late = (
        prompt_moments(jax.tree.map(lambda leaf, s=s: leaf[s], PROMPTS)) for s in (slice(0, 30), slice(30, 60))
    )
    upsampled = prompt_moments(PROMPTS._replace(weight=jnp.where(jnp.arange(60) < 30, 1.0, 3.0)))
    assert_close((early + 3.0 * late).mean().gram, upsampled.mean().gram)
    copies = concatenate_prompts([PROMPTS, *[jax.tree.map(lambda leaf: leaf[30:], PROMPTS)] * 2])
    assert_close(prompt_moments(copies).mean().cross, upsampled.mean().cross)


def test_float64_sums_whatever_the_precision_of_the_session():
    expected = prompt_moments(PROMPTS)
    with jax.enable_x64(False):
        single = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), PROMPTS)
        assert single.x.dtype == np.float32
        found = prompt_moments(single)
        both = found + found
        loss, params = make_loss(SeparateAttention(DIM, 2, rngs=nnx.Rngs(0)), found)
        assert loss.moments.gram.dtype == params["value"].dtype == np.float32
    assert found.gram.dtype == both.gram.dtype == np.float64
    assert_close(found.gram, expected.gram, rtol=1e-6)
    exact = prompt_moments(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), single))
    assert_close(found.gram, exact.gram, rtol=1e-14)


def test_a_stream_is_the_same_data(key):
    chunks = list(sample_prompt_chunks(GROUPS, 100, key=key, chunk_size=16))
    assert max(len(chunk.y_query) for chunk in chunks) == 16
    together = concatenate_prompts(chunks)
    whole = sample_prompts(GROUPS, 100, key=key)
    assert np.array_equal(np.bincount(together.group), np.bincount(whole.group))
    assert len(np.unique(np.asarray(together.y_query))) == 100
    assert_close(prompt_moments(iter(chunks)).gram, prompt_moments(together).gram)


def test_saved_and_reloaded(tmp_path):
    found = prompt_moments(PROMPTS)
    found.save(tmp_path / "moments.npz")
    again = load_moments(tmp_path / "moments.npz")
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(again), strict=True))
    assert (again.dim, again.blocks) == (DIM, "full")
    with pytest.raises(InputError, match="exists"):
        found.save(tmp_path / "moments.npz")
    with pytest.raises(InputError, match="cannot be written"):
        found.save(tmp_path / "nowhere" / "moments.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "moments.npz").read_bytes()[:500])
    np.savez(tmp_path / "other.npz", gram=np.eye(2))
    with np.load(tmp_path / "moments.npz") as stored:
        np.savez(tmp_path / "wrong.npz", **(dict(stored) | {"dim": 5}))
    for name, words in (("none", "read"), ("cut", "damaged"), ("other", "convention"), ("wrong", "shape")):
        with pytest.raises(InputError, match=words):
            load_moments(tmp_path / f"{name}.npz")


def test_moments_stay_in_float64_and_add_up_by_sum():
    found = prompt_moments(PROMPTS)
    with jax.enable_x64(False):
        scaled, total = jnp.asarray(3.0) * found, sum([found, found])
    assert scaled.gram.dtype == total.gram.dtype == np.float64
    assert_close(scaled.gram, 3.0 * found.gram)
    assert_close(total.cross, 2.0 * found.cross)


DEVICES = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh, PartitionSpec
import icl_theory as icl
assert len(jax.devices()) == 4
prompts = icl.sample_prompts(icl.TaskMixture.single([0.5, 0.3, 0.2], num_context=6), 40, key=jax.random.key(0))
mesh = Mesh(np.asarray(jax.devices()), ("data",))
sums = jax.shard_map(
    lambda part: jax.lax.psum(icl.moment_sums(part), "data"),
    mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec(),
)(prompts)
whole = icl.prompt_moments(prompts)
assert np.allclose(sums.gram, whole.gram, rtol=1e-13) and sums.count == whole.count == 40
print("same")
"""
HALF = """
import sys, jax
jax.config.update("jax_enable_x64", True)
import icl_theory as icl
prompts = icl.sample_prompts(icl.TaskMixture.single([0.5, 0.3, 0.2], num_context=6), 40, key=jax.random.key(0))
half = int(sys.argv[1])
icl.prompt_moments(jax.tree.map(lambda leaf: leaf[20 * half : 20 * half + 20], prompts)).save(sys.argv[2])
"""


def test_moments_of_several_devices_add_up(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    done = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True)
    assert done.stdout.strip() == "same", done.stderr


def test_moments_of_several_processes_add_up(tmp_path):
    paths = [tmp_path / f"{half}.npz" for half in (0, 1)]
    workers = [subprocess.Popen([sys.executable, "-c", HALF, str(i), str(path)]) for i, path in enumerate(paths)]
    assert [worker.wait() for worker in workers] == [0, 0]
    together: Moments = load_moments(paths[0]) + load_moments(paths[1])
    prompts = sample_prompts(TaskMixture.single([0.5, 0.3, 0.2], num_context=6), 40, key=jax.random.key(0))
    assert_close(together.gram, prompt_moments(prompts).gram, rtol=1e-13)
