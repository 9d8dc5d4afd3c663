"""Random numbers are those of `jax.random`, drawn by one program whatever their number."""

import jax
import numpy as np
import pytest
from helpers import assert_close, compilations
from hypothesis import given
from hypothesis import strategies as st

from icl_theory import (
    RunConfig,
    TaskMixture,
    linear_spectrum,
    population_moments,
    random_basis,
    sample_prompts,
    simulate,
)
from icl_theory.numerics.draws import BLOCK, standard_normal
from icl_theory.sweeps.batched_runs import Cache, run_batch


@given(seed=st.integers(0, 2**31), shape=st.sampled_from([(), (0, 3), (7,), (3, 4), (BLOCK,), (2, BLOCK + 1)]))
@pytest.mark.parametrize("double", [True, False])
def test_they_are_the_float64_numbers_of_jax_in_either_precision(double, seed, shape):
    with jax.enable_x64(double):
        key = jax.random.key(seed)
        drawn = standard_normal(key, shape)
        assert drawn.dtype == (np.float64 if double else np.float32)
        assert drawn.shape == shape
    with jax.enable_x64(True):
        assert np.array_equal(drawn, jax.random.normal(key, shape).astype(drawn.dtype))


def test_numbers_beyond_the_first_four_billion_are_jax_s_too(key):
    """Block number 2¹⁸ begins at number 2³², where the upper half of the counter begins to count."""
    from icl_theory.numerics.draws import _block

    words = jax.random.key_data(key)
    first = _block(words, np.asarray([0, 0], np.uint32))
    later = _block(words, np.asarray([1, 0], np.uint32))
    assert not np.array_equal(first, later)
    counts = np.asarray([1, 5], np.uint32)  # number 2³² + 5, by the generator itself
    bits = [int(word) for word in jax.extend.random.threefry_2x32(words, counts)]
    unit = ((bits[0] << 32 | bits[1]) >> 12) / 2**52
    assert_close(later[5], np.sqrt(2.0) * jax.lax.erf_inv(2.0 * unit - 1.0), rtol=1e-12)


def test_traced_keys_draw_the_same_numbers(key):
    one_by_one = np.stack([standard_normal(each, (5,)) for each in jax.random.split(key, 3)])
    assert_close(jax.vmap(lambda each: standard_normal(each, (5,)))(jax.random.split(key, 3)), one_by_one)
    assert_close(jax.jit(lambda each: standard_normal(each, (5,)))(key), standard_normal(key, (5,)))


def test_prompts_can_be_drawn_inside_jit_with_traced_keys_and_with_others(key, mixture):
    expected = sample_prompts(mixture, 5, key=key).x
    assert_close(jax.jit(lambda each: sample_prompts(mixture, 5, key=each).x)(key), expected)
    assert_close(jax.jit(lambda: sample_prompts(mixture, 5, key=key).x)(), expected)
    assert_close(jax.jit(lambda: random_basis(key, 3))(), random_basis(key, 3))


def test_a_loss_can_be_differentiated_by_shares_in_a_list(mixture):
    groups = [*mixture.groups, mixture.groups[0]._replace(noise_std=1.0)]

    def loss(share):
        return population_moments(TaskMixture.create(groups, [share, 1 - share])).beta_moments.sum()

    slope = jax.grad(loss)(0.5)
    assert_close(slope, (loss(0.75) - loss(0.25)) / 0.5)


def test_other_generators_are_left_to_jax():
    key = jax.random.key(3, impl="rbg")
    assert np.array_equal(standard_normal(key, (4,)), jax.random.normal(key, (4,)))


def test_one_seed_gives_the_same_start_and_data_in_either_precision():
    """Alone, and in a sweep, which draws inside a program."""
    shared = {"dim": 3, "num_heads": 2, "basis": "random", "data": "prompts", "num_prompts": 40, "num_context": 5}
    shared |= {"num_steps": 1, "num_snapshots": 2}
    configs = [RunConfig(**shared, dtype=dtype) for dtype in ("float64", "float32")]
    single = [simulate(config).run.loss[0] for config in configs]
    batch = {"size": 1, "shared": True, "full": True, "theory": False, "curves": True, "cache": Cache()}
    swept = [run_batch([config], **batch)["loss"][0, 0] for config in configs]
    np.testing.assert_allclose([*single, *swept], single[0], rtol=1e-5)


@given(dim=st.integers(1, 6))
def test_a_random_basis_is_that_of_jax(dim):
    key = jax.random.key(dim)
    assert_close(random_basis(key, dim), jax.random.orthogonal(key, dim))


def test_other_numbers_of_prompts_compile_nothing(key):
    """Neither drawing prompts nor tasks, spectra and bases have a program for each shape."""

    def draw(count, num_context, dim):
        mixture = TaskMixture.single(linear_spectrum(dim), num_context=num_context, basis=random_basis(key, dim))
        return sample_prompts(mixture.upsampled([2.0]), count, key=key)

    draw(3, 4, 2)
    with compilations() as programs:
        assert draw(37, 11, 5).x.shape == (37, 11, 5)
    assert programs == []


def test_they_are_the_numbers_of_jax_as_users_compile_it(optimised):
    for seed in range(20):
        key = jax.random.key(seed)
        assert np.array_equal(standard_normal(key, (BLOCK + 7,)), jax.random.normal(key, (BLOCK + 7,)))
