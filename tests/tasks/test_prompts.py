"""Sampling: shapes, separate keys, group counts, padding and the distribution itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close

from icl_theory import (
    InputError,
    Prompts,
    SeparateAttention,
    TaskDistribution,
    TaskMixture,
    at_context_lengths,
    concatenate_prompts,
    make_loss,
    sample_prompt_chunks,
    sample_prompts,
)
from icl_theory.tasks.sampling import PromptKeys, _group_counts


def test_shapes_and_targets(mixture, key):
    prompts = sample_prompts(mixture, 10, key=key)
    assert prompts.x.shape == (10, 31, 4)
    assert prompts.tokens.shape == (10, 32, 5)
    assert_close(prompts.y, np.einsum("pnd,pd->pn", prompts.x, prompts.task_vector))
    assert_close(prompts.y_query, np.sum(prompts.x_query * prompts.task_vector, axis=1))
    assert np.all(prompts.tokens[:, -1, -1] == 0)


def test_each_key_moves_only_its_own_part(key):
    mixture = TaskMixture.single([1.0, 0.5], num_context=6, noise_std=0.3)
    keys = PromptKeys.from_key(key)
    base = sample_prompts(mixture, 5, key=keys)
    other = jax.random.key(99)
    tasks = sample_prompts(mixture, 5, key=keys._replace(tasks=other))
    noise = sample_prompts(mixture, 5, key=keys._replace(noise=other))
    assert np.array_equal(tasks.x, base.x)
    assert not np.allclose(tasks.task_vector, base.task_vector)
    assert np.array_equal(noise.x, base.x)
    assert np.array_equal(noise.task_vector, base.task_vector)
    assert not np.allclose(noise.y, base.y)


def test_label_noise_is_on_the_context_alone(key):
    prompts = sample_prompts(TaskMixture.single([1.0, 0.5], num_context=6, noise_std=0.3), 5, key=key)
    assert_close(prompts.y_query, np.sum(prompts.x_query * prompts.task_vector, axis=1))
    noise = prompts.y - np.einsum("pnd,pd->pn", prompts.x, prompts.task_vector)
    assert np.all(noise != 0)


def test_equal_groups_and_pieces_share_no_draw(key):
    group = TaskDistribution.create([1.0, 0.5], num_context=6, noise_std=0.3)
    pieces = list(sample_prompt_chunks(TaskMixture.create([group] * 2, [0.5, 0.5]), 20, key=key, chunk_size=5))
    assert [int(piece.group[0]) for piece in pieces] == [0, 0, 1, 1]
    prompts = concatenate_prompts(pieces)
    noise = prompts.y - np.einsum("pnd,pd->pn", prompts.x, prompts.task_vector)
    for drawn in (prompts.x, prompts.x_query, prompts.task_vector, np.round(noise, 12)):
        assert len(np.unique(drawn)) == np.size(drawn)


@pytest.mark.parametrize(("shares", "count"), [([0.3, 0.7], 10), ([1 / 3, 1 / 3, 1 / 3], 10), ([0.0, 1.0], 7)])
def test_group_counts_add_up_and_follow_shares(shares, count):
    counts = _group_counts(np.asarray(shares), count)
    assert counts.sum() == count
    assert np.all(np.abs(counts - np.asarray(shares) * count) < 1)


def test_shorter_groups_are_padded_with_nothing(key):
    groups = [TaskDistribution.create([1.0, 0.5], num_context=n) for n in (8, 3)]
    prompts = sample_prompts(TaskMixture.create(groups, [0.5, 0.5]), 8, key=key)
    short = prompts.group == 1
    assert short.sum() == 4
    assert np.all(prompts.x[short, 3:] == 0)
    assert_close(prompts.mask.sum(axis=1), np.where(short, 3.0, 8.0))
    beta = np.einsum("pn,pnd->pd", prompts.y[short, :3], prompts.x[short, :3]) / 3
    assert_close(prompts.beta[short], beta)


def test_a_counted_query_is_divided_by(key):
    """β is a sum over N tokens; groups that count the query divide it by N + 1, at every length."""
    groups = [TaskDistribution.create([1.0, 0.5], num_context=3, count_query=counted) for counted in (False, True)]
    prompts = sample_prompts(TaskMixture.create(groups, [0.5, 0.5]), 6, key=key)
    assert prompts.divisor.tolist() == [3, 3, 3, 4, 4, 4]
    assert at_context_lengths(prompts, [2, 1]).divisor.tolist() == [2, 2, 2, 3, 3, 3, 1, 1, 1, 2, 2, 2]
    own = Prompts.from_arrays(prompts.x, prompts.y, prompts.x_query, prompts.y_query, count_query=True)
    sums = np.einsum("pn,pnd->pd", prompts.y, prompts.x)
    assert_close(own.beta, sums / 4)
    assert_close(prompts.beta, sums / np.asarray(prompts.divisor)[:, None])
    assert sample_prompts(TaskMixture.create(groups[:1], [1.0]), 2, key=key).count_query is None
    with pytest.raises(InputError, match="count_query"):
        make_loss(SeparateAttention(2, 2, rngs=nnx.Rngs(0)), own._replace(count_query=own.count_query[:2]))


def test_inputs_and_noise_have_their_covariances(key):
    basis = jnp.asarray([[0.6, -0.8], [0.8, 0.6]])
    mixture = TaskMixture.single([2.0, 0.5], num_context=50, noise_std=0.7, basis=basis, task_eigenvalues=[1.0, 3.0])
    prompts = sample_prompts(mixture, 4000, key=key)
    x = np.asarray(prompts.x).reshape(-1, 2)
    noise = np.asarray(prompts.y - jnp.einsum("pnd,pd->pn", prompts.x, prompts.task_vector))
    assert np.allclose(x.T @ x / len(x), mixture.groups[0].covariance, atol=0.02)
    assert np.allclose(noise.std(), 0.7, rtol=0.01)
    tasks = np.asarray(prompts.task_vector)
    assert np.allclose(tasks.T @ tasks / len(tasks), mixture.groups[0].task_covariance, atol=0.2)


def test_bad_counts_and_prompts_are_named(mixture, key):
    with pytest.raises(InputError, match="num_prompts"):
        sample_prompts(mixture, 0, key=key)
    prompts = sample_prompts(mixture, 6, key=key)
    broken = prompts._replace(y=prompts.y.at[3, 2].set(jnp.nan))
    model = SeparateAttention(4, 2, rngs=nnx.Rngs(0))
    for name, wrong in (
        ("y_query", prompts.y_query[:, None]),
        ("y", prompts.y[:, :-1]),
        ("num_context", 0 * prompts.num_context),
        ("y_query", prompts.y_query[:-1]),
    ):
        with pytest.raises(InputError, match="prompts"):
            make_loss(model, prompts._replace(**{name: wrong}))
    with pytest.raises(InputError, match=r"prompts\.y\[3\]"):
        make_loss(model, broken)
