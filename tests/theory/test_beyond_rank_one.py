"""Theory of heads of rank R, least squares, softmax at small weights, imbalance and principal components, each on its
own.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close

from icl_theory import InputError, MergedAttention, SeparateAttention, TaskMixture, find_features, linear_spectrum
from icl_theory.llm.training.losses import token_losses
from icl_theory.models.parameters import merge_model, split_model
from icl_theory.moments.empirical import prompt_moments
from icl_theory.tasks.features import find_group_features
from icl_theory.tasks.mixture import TaskDistribution
from icl_theory.tasks.sampling import sample_prompts
from icl_theory.tasks.spectra import geometric_spectrum, random_basis
from icl_theory.theory.balance import imbalance, imbalance_change
from icl_theory.theory.least_squares import best_tensor, escape_rate, tensor_loss
from icl_theory.theory.low_rank import growth_rate, head_value
from icl_theory.theory.principal_components import component_regression, plateau_predictions, regression_gap
from icl_theory.theory.softmax import small_weight_drive
from icl_theory.training.losses import PromptsLoss, make_loss, quadratic_loss
from icl_theory.training.tracked import FeatureStrength


@pytest.fixture
def turned(key):
    """The default spectrum in a random basis."""
    return TaskMixture.single(linear_spectrum(4), num_context=31, basis=random_basis(key, 4))


@pytest.fixture
def prompts(mixture, key):
    return sample_prompts(mixture, 300, key=key)


@pytest.mark.parametrize("held", [[0], [0, 1], [1, 3]])
def test_a_head_that_holds_features_is_at_rest_and_balanced(turned, held):
    features = find_features(turned)
    value = head_value(features, held)
    lengths = np.sqrt(features.optimum[held] / value)
    assert value**2 == pytest.approx(np.sum(lengths**2))
    rows = jnp.asarray((features.directions[:, held] * lengths).T)[None]
    loss, _ = make_loss(SeparateAttention(4, 1, rank=len(held), rngs=nnx.Rngs(0)), turned)
    gradient = jax.grad(loss)({"value": jnp.asarray([value]), "key": rows, "query": rows})
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) < 1e-14


def test_growth_in_a_free_rank_is_that_of_the_gradient(turned):
    features, held, free = find_features(turned), [0, 1], 3
    value, tiny = head_value(features, held), 1e-6
    lengths = np.append(np.sqrt(features.optimum[held] / value), tiny)
    rows = jnp.asarray((features.directions[:, [*held, free]] * lengths).T)[None]
    loss, _ = make_loss(SeparateAttention(4, 1, rank=3, rngs=nnx.Rngs(0)), turned)
    gradient = jax.grad(loss)({"value": jnp.asarray([value]), "key": rows, "query": rows})
    speed = -np.asarray(gradient["key"])[0, 2] @ features.directions[:, free]
    assert growth_rate(features, held, free) == pytest.approx(2.0 * speed / tiny, rel=1e-9)  # key and query: twice


@pytest.mark.parametrize("held", [[4], [-1], [0, 0]])
def test_features_that_a_head_cannot_hold(mixture, held):
    with pytest.raises(InputError, match="held"):
        head_value(find_features(mixture), held)


def test_the_best_tensor_is_least_squares_on_the_features(prompts):
    from icl_theory.models.cubic_features import cubic_features

    table = np.asarray(cubic_features(prompts, blocks="full"))
    target = np.asarray(prompts.y_query)
    moments = prompt_moments(prompts, blocks="full")
    best = best_tensor(moments)
    assert_close(best, np.linalg.lstsq(table, target, rcond=None)[0], rtol=1e-7)
    others = np.stack([best, 0.3 * best, np.zeros_like(best)])
    assert_close(tensor_loss(others, moments), np.mean((target - others @ table.T) ** 2, axis=1), rtol=1e-9)
    assert_close(quadratic_loss(jnp.asarray(others[1]), moments.mean()), tensor_loss(others[1], moments), rtol=1e-9)


def test_of_several_best_tensors_the_shortest(mixture, key):
    few = sample_prompts(mixture, 10, key=key)  # fewer prompts than the 60 features
    moments = prompt_moments(few, blocks="full")
    best = best_tensor(moments)
    assert float(tensor_loss(best, moments)) == pytest.approx(0.0, abs=1e-9)
    values, vectors = np.linalg.eigh(np.asarray(moments.mean().gram))
    empty = vectors[:, values < 1e-10 * values[-1]]
    assert empty.shape[1] >= 50
    assert np.abs(empty.T @ best).max() < 1e-6 * np.linalg.norm(best)


def test_the_escape_rate_is_that_of_the_linearised_flow(prompts):
    """The largest eigenvalue of minus the Hessian at zero, of one head, is half of the rate: T is a product of two
    weights.
    """
    moments = prompt_moments(prompts, blocks="full")
    model = MergedAttention(4, 1, init_scale=0.0, blocks="full", rngs=nnx.Rngs(0))
    loss, params = make_loss(model, moments)
    flat, rebuild = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.zeros_like, params))
    hessian = jax.hessian(lambda vector: loss(rebuild(vector)))(flat)
    assert escape_rate(moments) == pytest.approx(2.0 * np.linalg.eigvalsh(-np.asarray(hessian))[-1], rel=1e-9)


def test_the_escape_rate_of_steps_is_that_of_a_step(prompts):
    """A step multiplies v and U by 1 + 2ησ₁, so T by its square."""
    moments = prompt_moments(prompts, blocks="full")
    flow = escape_rate(moments)
    assert escape_rate(moments, 0.3) == pytest.approx(2 * np.log(1 + 0.3 * flow / 2) / 0.3)
    assert escape_rate(moments, 1e-6) == pytest.approx(flow, rel=1e-5)


def test_the_escape_rate_is_of_full_blocks(prompts):
    with pytest.raises(InputError, match="full"):
        escape_rate(prompt_moments(prompts, blocks="reduced"))


def test_softmax_near_zero_is_linear_attention_on_centred_contexts(prompts):
    """`ŷ = v (ȳ + x_qᵀ Uᵀ β̃)` to first order, prompt by prompt."""
    model = MergedAttention(4, 1, scores="softmax", rngs=nnx.Rngs(0))
    graphdef, _ = split_model(model)
    zero = {"value": jnp.asarray([0.7]), "merged": jnp.zeros((1, 4, 4))}
    direction = {"value": jnp.zeros(1), "merged": jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4)))}
    level, slope = jax.jvp(lambda point: merge_model(graphdef, point)(prompts), (zero,), (direction,))
    x, y, query = (np.asarray(part) for part in (prompts.x, prompts.y, prompts.x_query))
    count = x.shape[1] + 1
    mean = (x.sum(axis=1) + query) / count
    centred = np.einsum("pn,pnd->pd", y, x - mean[:, None]) / count
    assert_close(level, 0.7 * y.sum(axis=1) / count)
    assert_close(slope, 0.7 * np.einsum("pd,de,pe->p", centred, np.asarray(direction["merged"])[0], query), rtol=1e-10)
    signal = np.einsum("pd,p,pe->pde", centred, np.asarray(prompts.y_query), query).mean(axis=0)
    assert np.diag(signal)[0] == pytest.approx(0.16 * (31 / 32) ** 2, rel=0.25)


def test_the_drive_of_softmax_wants_a_context(mixture):
    features = find_features(mixture)
    assert_close(small_weight_drive(features, 1), features.drive / 4)
    with pytest.raises(InputError, match="num_context"):
        small_weight_drive(features, 0)


@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("rank", [None, 1, 3])
def test_a_step_changes_the_imbalance_as_derived(turned, rank, rho):
    rngs = nnx.Rngs(0)
    model = (
        MergedAttention(4, 3, init_scale=0.5, rngs=rngs)
        if rank is None
        else SeparateAttention(4, 3, rank=rank, init_scale=0.5, rngs=rngs)
    )
    loss, params = make_loss(model, turned)
    gradient, at = jax.grad(loss), params
    if rho:
        first = gradient(params)
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(first)))
        at = jax.tree.map(lambda leaf, g: leaf + rho * g / norm, params, first)
    after = jax.tree.map(lambda leaf, g: leaf - 0.1 * g, params, gradient(at))
    measured = jax.tree.map(lambda new, old: new - old, imbalance(after), imbalance(params))
    for name, change in imbalance_change(loss, params, learning_rate=0.1, rho=rho).items():
        assert np.abs(np.asarray(measured[name])).max() > 1e-6
        np.testing.assert_allclose(measured[name], change, atol=1e-14)


def test_balanced_heads_have_no_imbalance():
    rows = jnp.asarray([[[0.6, 0.8]]])
    assert all(
        np.abs(leaf).max() < 1e-15 for leaf in imbalance({"value": jnp.ones(1), "key": rows, "query": rows}).values()
    )


def test_regression_on_components_is_least_squares_in_each_context(turned, key):
    prompts, features = sample_prompts(turned, 20, key=key), find_features(turned)
    found = np.asarray(component_regression(prompts, features, 2))
    chosen = features.directions[:, :2]
    for place, (x, y, query) in enumerate(zip(prompts.x, prompts.y, prompts.x_query, strict=True)):
        weights = np.linalg.lstsq(np.asarray(x) @ chosen, np.asarray(y), rcond=None)[0]
        assert found[place] == pytest.approx(float(np.asarray(query) @ chosen @ weights))
    full = np.asarray(component_regression(prompts, features, 4))
    assert_close(full, prompts.y_query, rtol=1e-9)  # without noise all four components give the answer


@pytest.mark.parametrize("num_learned", [0, 1, 4])
def test_predictions_on_a_plateau_are_those_of_the_fixed_point(turned, key, num_learned):
    prompts, features = sample_prompts(turned, 20, key=key), find_features(turned)
    chosen = features.directions[:, :num_learned]
    matrix = (chosen * features.optimum[:num_learned]) @ chosen.T
    expected = np.einsum("pd,de,pe->p", *(np.asarray(part) for part in (prompts.beta, matrix, prompts.x_query)))
    assert_close(plateau_predictions(prompts, features, num_learned), expected)


def test_least_squares_differs_from_the_plateau_by_m_plus_one_over_n(key):
    long = TaskMixture.single(linear_spectrum(4), num_context=400)
    prompts, features = sample_prompts(long, 4000, key=key), find_features(long)
    for m in (1, 3):
        plateau, least = (
            np.asarray(kind(prompts, features, m)) for kind in (plateau_predictions, component_regression)
        )
        assert np.mean((plateau - least) ** 2) / np.mean(least**2) == pytest.approx(regression_gap(m, 400), rel=0.15)


def test_components_that_do_not_exist(prompts, mixture, key):
    features = find_features(mixture)
    for kind, number in ((plateau_predictions, 5), (plateau_predictions, -1), (component_regression, 0)):
        with pytest.raises(InputError, match="num_"):
            kind(prompts, features, number)
    short = sample_prompts(TaskMixture.single(linear_spectrum(4), num_context=2), 5, key=key)
    with pytest.raises(InputError, match="num_context"):
        component_regression(short, features, 2)


def test_feature_strength_is_read_off_the_effective_matrix(turned):
    features = find_features(turned)
    graphdef, params = split_model(SeparateAttention(4, 5, rngs=nnx.Rngs(0)))
    tracked = FeatureStrength(graphdef, jnp.asarray(features.directions))(params)
    matrix = np.asarray(merge_model(graphdef, params).effective_matrix())
    assert_close(tracked, [direction @ matrix @ direction for direction in features.directions.T])


def test_group_features_under_other_shares_are_those_of_that_mixture():
    groups = [TaskDistribution.create(np.array(values), num_context=31) for values in ([0.7, 0.3], [0.2, 0.8])]
    found = find_group_features(TaskMixture.create(groups, np.array([0.5, 0.5]))).with_shares(np.array([3.0, 1.0]))
    wanted = find_features(TaskMixture.create(groups, np.array([0.75, 0.25])))
    order = np.argsort(-found.drive)
    assert_close(found.drive[order], wanted.drive)
    assert_close(found.curvature[order], wanted.curvature)


def test_each_eigenvalue_of_a_geometric_spectrum_is_ratio_times_the_next():
    spectrum = geometric_spectrum(5, 2.5)
    assert_close(spectrum[:-1] / spectrum[1:], np.full(4, 2.5))
    assert spectrum.sum() == pytest.approx(1.0)


def test_the_prompts_loss_is_a_weighted_mean_square(prompts):
    graphdef, params = split_model(SeparateAttention(4, 5, init_scale=0.4, rngs=nnx.Rngs(0)))
    weighted = prompts._replace(weight=jnp.linspace(0.5, 2.0, 300))
    errors = np.asarray(prompts.y_query - merge_model(graphdef, params)(prompts)) ** 2
    wanted = np.average(errors, weights=np.linspace(0.5, 2.0, 300))
    assert float(PromptsLoss(graphdef, weighted)(params)) == pytest.approx(wanted)


def test_token_losses_are_cross_entropies():
    logits = np.random.default_rng(1).normal(size=(2, 3, 5)).astype(np.float32)
    targets = np.array([[0, 4, 2], [1, 1, 3]])
    wanted = -np.log(np.take_along_axis(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), targets[..., None], -1))
    assert_close(token_losses(jnp.asarray(logits), jnp.asarray(targets)), wanted[..., 0], rtol=1e-5)
