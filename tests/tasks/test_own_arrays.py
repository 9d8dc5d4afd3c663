"""A user's own arrays train, compress and are tracked like drawn prompts; what is wrong in them is named with its
place.
"""

import jax
import numpy as np
import pytest
from helpers import assert_close

import icl_theory as icl
from icl_theory import InputError, Prompts


def arrays(mixture, key, count=400):
    """The numbers of drawn prompts, as a user would have them."""
    drawn = icl.sample_prompts(mixture, count, key=key)
    return {name: np.asarray(getattr(drawn, name)) for name in ("x", "y", "x_query", "y_query")}


def test_own_arrays_train_as_the_prompts_they_came_from(mixture, key):
    model = icl.SeparateAttention(4, 5, rngs=jax_rngs())
    curves = []
    for prompts in (icl.sample_prompts(mixture, 400, key=key), Prompts.from_arrays(**arrays(mixture, key))):
        loss, params = icl.make_loss(model, prompts)
        run = icl.train(loss, params, hyperparameters={"learning_rate": 0.05}, num_steps=50)
        curves.append(run.loss)
    assert_close(*curves)


def jax_rngs():
    from flax import nnx

    return nnx.Rngs(params=0)


def test_own_arrays_compress(mixture, key):
    own = icl.compress(Prompts.from_arrays(**arrays(mixture, key)), blocks="reduced").moments()
    drawn = icl.prompt_moments(icl.sample_prompts(mixture, 400, key=key), blocks="reduced")
    assert_close(own.gram, drawn.gram)


def test_estimated_features_approach_those_of_the_distribution(key):
    basis = icl.random_basis(jax.random.key(3), 3)
    mixture = icl.TaskMixture.single([0.6, 0.3, 0.1], num_context=31, basis=basis)
    exact, found = (
        icl.find_features(mixture),
        icl.estimate_features(Prompts.from_arrays(**arrays(mixture, key, count=20_000))),
    )
    assert np.abs(np.abs(np.sum(exact.directions * found.directions, axis=0)) - 1.0).max() < 0.01
    np.testing.assert_allclose(found.drive, exact.drive, rtol=0.1)
    np.testing.assert_allclose(found.curvature, exact.curvature, rtol=0.15)


def test_features_of_own_arrays_are_tracked(mixture, key):
    prompts = Prompts.from_arrays(**arrays(mixture, key, count=2000))
    features = icl.estimate_features(prompts)
    loss, _ = icl.make_loss(icl.SeparateAttention(4, 4, rngs=jax_rngs()), prompts)
    start = icl.aligned_parameters(np.full(4, 0.3), features.directions)
    run = icl.train(
        loss, start, hyperparameters={"learning_rate": 0.05}, num_steps=2000, track=icl.EffectiveMatrix(loss.graphdef)
    )
    times = icl.simplicity_bias(run.trajectory(features), features).times
    assert np.all(np.diff(times[:3]) > 0)


@pytest.mark.parametrize("kind", [list, np.float16, np.int64])
def test_lists_and_other_numbers_are_taken(kind):
    x, y, x_query, y_query = [[[1, 0], [0, 2]]], [[1, 1]], [[1, 1]], [1]
    given = (x, y, x_query, y_query) if kind is list else tuple(np.asarray(v, kind) for v in (x, y, x_query, y_query))
    prompts = Prompts.from_arrays(*given)
    assert prompts.beta.tolist() == [[0.5, 1.0]]
    assert prompts.x.dtype == float


GOOD = {"x": np.ones((3, 2, 4)), "y": np.ones((3, 2)), "x_query": np.ones((3, 4)), "y_query": np.ones(3)}
NAN = np.ones((3, 2, 4))
NAN[2, 1, 3] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.ones((3, 4))}, r"x = 'shape \(3, 4\)': give shape \(P, N, D\)"),
        ({"y": np.ones((3, 3))}, r"y = 'shape \(3, 3\)': give shape \(3, 2\)"),
        ({"y_query": np.ones((3, 1))}, r"y_query = 'shape \(3, 1\)': give shape \(3,\)"),
        ({"x": NAN}, r"x\[2, 1, 3\] = nan: give a finite number"),
        ({"y_query": [1.0, np.inf, 1.0]}, r"y_query\[1\] = inf: give a finite number"),
        ({"x": np.ones((3, 0, 4)), "y": np.ones((3, 0))}, "N must be at least one"),
        ({"x": np.ones((0, 2, 4)), "y": np.ones((0, 2))}, "P must be at least one"),
        ({"y_query": ["a", "b", "c"]}, "y_query = .*real numbers"),
        ({"x": [[[1.0], [1.0, 2.0]]]}, "x = .*real numbers, in a shape without gaps"),
        ({"weight": [1.0, 2.0]}, r"weight = 'shape \(2,\)': give shape \(3,\)"),
        ({"weight": [1.0, -2.0, 1.0]}, "weight"),
        ({"num_context": [1, 2, 2]}, r"tokens beyond num_context = 1 must be zero"),
        ({"num_context": [2, 0, 2]}, r"num_context\[1\] = 0.0: give a whole number from 1 to 2"),
        ({"num_context": [2, 2, 1.5]}, r"num_context\[2\] = 1.5"),
        ({"num_context": [np.nan, 2, 2]}, r"num_context\[0\] = nan"),
    ],
)
def test_bad_arrays_are_named_with_their_place(change, message):
    with pytest.raises(InputError, match=message):
        Prompts.from_arrays(**(GOOD | change))


def test_a_number_too_large_for_single_precision_is_named():
    with (
        jax.enable_x64(False),
        pytest.raises(InputError, match=r"y\[0, 1\] = 1e\+300: give a finite number, at most 3.4e"),
    ):
        Prompts.from_arrays(**(GOOD | {"y": [[1.0, 1e300], [1.0, 1.0], [1.0, 1.0]]}))
