"""Moments of a population are exact averages, and say where single precision loses the digits."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close
from moment_prompts import DIM, GROUPS, make

from icl_theory import (
    MergedAttention,
    PrecisionWarning,
    Prompts,
    SeparateAttention,
    TaskDistribution,
    TaskMixture,
    full_population_moments,
    make_loss,
    population_moments,
    prompt_moments,
    sample_prompts,
    train,
)


def test_single_precision_that_loses_the_digits_is_said():
    steep = TaskMixture.single([1.0, 1e-3], num_context=500)
    with jax.enable_x64(False):
        prompts = sample_prompts(steep, 400, key=jax.random.key(0))
        model = SeparateAttention(2, 2, rngs=nnx.Rngs(0))
        with pytest.warns(PrecisionWarning, match="condition number"):
            make_loss(model, prompts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_loss(SeparateAttention(2, 2, rngs=nnx.Rngs(0)), prompts)  # float64 has digits enough
    assert prompt_moments(prompts, blocks="reduced").condition_number() > 1e7


def test_single_precision_is_judged_by_the_exact_population():
    steep = TaskMixture.single([1.0, 1e-3], num_context=500)
    long = TaskMixture.single([1.0, 0.5], num_context=60_000)
    exact = full_population_moments(long)
    with jax.enable_x64(False):
        single = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float32)), steep)
        for blocks in ("reduced", "full"):
            with pytest.warns(PrecisionWarning, match="is "):
                make_loss(MergedAttention(2, 2, blocks=blocks, rngs=nnx.Rngs(0)), single)
        single = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), long)
        again = full_population_moments(single)
    assert again.gram.dtype == np.float64
    assert_close(again.gram, exact.gram, rtol=1e-6)
    assert np.all(np.diagonal(again.gram) > 0)


def test_full_population_contains_the_reduced_one_and_trains_like_it():
    full, reduced = full_population_moments(GROUPS), population_moments(GROUPS)
    tensor = jax.random.normal(jax.random.key(0), (9,))
    assert_close(full.restricted("reduced").product(tensor), reduced.product(tensor))
    assert_close(full.restricted("reduced").cross, reduced.cross)
    assert_close(full.energy, reduced.energy)
    assert np.linalg.eigvalsh(full.gram).min() > 0
    plain = TaskMixture.single([0.5, 0.3, 0.2], num_context=6, noise_std=0.3)  # no fixed task: wrong blocks stay zero
    loss, params = make_loss(make("merged"), plain)
    wide_loss, wide = make_loss(make("merged", "full"), plain)
    value = jnp.zeros_like(wide["value"]).at[:, DIM].set(params["value"])
    merged = jnp.zeros_like(wide["merged"]).at[:, :DIM, :DIM].set(params["merged"])
    settings = {"hyperparameters": {"learning_rate": 0.05}, "num_steps": 500}
    run, wide_run = train(loss, params, **settings), train(wide_loss, {"value": value, "merged": merged}, **settings)
    assert_close(wide_run.loss, run.loss, rtol=1e-12)
    assert np.abs(wide_run.params["value"][:, :DIM]).max() < 1e-14


@pytest.mark.parametrize("count_query", [False, True])
def test_population_moments_are_exact_averages(count_query):
    """A Gauss–Hermite rule of n points gives exact means of polynomials up to degree 2n − 1, here 5 (queries: 7)."""
    group = TaskDistribution.create(
        [0.7, 0.3],
        num_context=2,
        noise_std=0.8,
        count_query=count_query,
        task_eigenvalues=[0.5, 2.0],
        task_mean=np.asarray([0.3, -0.4]),
        basis=np.asarray([[0.6, -0.8], [0.8, 0.6]]),
    )
    rules = [np.polynomial.hermite_e.hermegauss(n) for n in [3] * 8 + [4] * 2]
    grid = np.stack(np.meshgrid(*(points for points, _ in rules), indexing="ij"), axis=-1).reshape(-1, 10)
    weight = np.prod(np.stack(np.meshgrid(*(w for _, w in rules), indexing="ij"), axis=-1), axis=-1).ravel()
    root, task_root = (np.linalg.cholesky(matrix) for matrix in (group.covariance, group.task_covariance))
    x, query = grid[:, :4].reshape(-1, 2, 2) @ root.T, grid[:, 8:] @ root.T
    task = group.task_mean + grid[:, 4:6] @ task_root.T
    y = np.einsum("pnd,pd->pn", x, task) + 0.8 * grid[:, 6:8]
    prompts = Prompts.from_arrays(x, y, query, np.sum(query * task, axis=1), weight=weight, count_query=count_query)
    exact = prompt_moments(prompts).mean()
    found = full_population_moments(TaskMixture.create([group], [1.0]))
    for name in ("gram", "cross", "energy"):
        assert_close(getattr(found, name), getattr(exact, name), rtol=1e-12)
    reduced = population_moments(TaskMixture.create([group], [1.0]))
    assert_close(reduced.product(jnp.eye(4)[1]), exact.gram[:4, 1], rtol=1e-12)
    assert_close(reduced.cross, exact.cross[:4], rtol=1e-12)
