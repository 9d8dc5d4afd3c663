"""SAM: two gradients a step, finite at zero, gradient descent at ρ = 0, an optax transformation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close

from icl_theory import InputError, gd, perturb, sam, train, unnormalised_sam
from icl_theory.llm.optimizers.sam import perturbation


def loss(params):
    return jnp.sum(jnp.square(params["a"]) ** 2) + jnp.sum(params["a"]) * params["b"] + params["b"] ** 2


PARAMS = {"a": jnp.asarray([1.0, -0.5]), "b": jnp.asarray(0.7)}


def step(optimizer, params=PARAMS, function=loss):
    grads = jax.grad(function)(params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params, grad_fn=jax.grad(function))
    return optax.apply_updates(params, updates)


@pytest.mark.parametrize("normalised", [True, False])
def test_one_step_by_hand(normalised):
    grads = jax.grad(loss)(PARAMS)
    norm = np.sqrt(np.sum(np.square(grads["a"])) + np.square(grads["b"]))
    scale = 0.1 / norm if normalised else 0.1
    moved = {name: PARAMS[name] + scale * grads[name] for name in PARAMS}
    second = jax.grad(loss)(moved)
    after = step(sam(0.02, 0.1, normalised=normalised))
    for name in PARAMS:
        assert_close(after[name], PARAMS[name] - 0.02 * second[name])


def test_unnormalised_is_its_own_name():
    assert_close(step(unnormalised_sam(0.02, 0.1))["a"], step(sam(0.02, 0.1, normalised=False))["a"])


def test_rho_zero_is_gradient_descent():
    for left, right in zip(jax.tree.leaves(step(sam(0.02, 0.0))), jax.tree.leaves(step(gd(0.02))), strict=True):
        assert np.array_equal(left, right)


@pytest.mark.parametrize("normalised", [True, False])
def test_zero_gradient_moves_nothing_and_is_finite(normalised):
    zero = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    after = jax.jit(lambda: step(sam(0.02, 0.1, normalised=normalised), zero))()
    assert all(np.array_equal(leaf, np.zeros_like(leaf)) for leaf in jax.tree.leaves(after))
    slope = jax.grad(lambda rho: perturb(zero, jax.grad(loss)(zero), rho=rho)["b"])(0.1)
    assert np.isfinite(slope)


@pytest.mark.parametrize("size", [1e-36, 1e-20, 1e-3, 1e20, 1e36])
@pytest.mark.parametrize(
    "perturbed", [lambda g: perturb(jnp.zeros_like(g), g, rho=0.1), lambda g: perturbation(g, 0.1)]
)
def test_gradients_of_any_size_are_perturbed_in_float32(size, perturbed):
    grads = jnp.asarray([3.0, 4.0], jnp.float32) * np.float32(size)
    with jax.enable_x64(False):
        assert_close(perturbed(grads), np.asarray([0.06, 0.08], np.float32))


@pytest.mark.parametrize(
    ("grads", "rho"),
    [
        (np.full(10**6, 1e36), 0.05),  # the norm is 1e39
        ([1e-37, 0.0, 1e-37], 50.0),  # ρ over the norm is 4e38
        ([1e37, 0.0, 1e37], 0.05),  # and 4e-39
        ([3.4e38, 0.0, -3.4e38], 1e-6),
        ([1.2e-38, 0.0, -1.2e-38], 1e6),
    ],
)
@pytest.mark.parametrize(
    "perturbed", [lambda g, rho: perturb(jnp.zeros_like(g), g, rho=rho), lambda g, rho: perturbation(g, rho)]
)
def test_float32_holds_the_perturbation_where_it_does_not_hold_the_norm(grads, rho, perturbed):
    expected = np.sign(grads) * rho / np.sqrt(np.count_nonzero(grads))
    with jax.enable_x64(False):
        assert_close(perturbed(jnp.asarray(grads, jnp.float32), rho), expected, rtol=1e-5)


def test_a_step_of_sam_can_be_differentiated_at_a_zero_gradient():
    zero = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    start = lambda shift: jax.tree.map(lambda leaf: leaf + shift, zero)  # noqa: E731
    for derivative in (jax.jacrev, jax.jacfwd):
        change = derivative(lambda shift: step(sam(0.02, 0.1), start(shift))["b"])(0.0)
        assert_close(change, 1.0 - 0.02 * 4.0)  # ∂²loss/∂b² + Σ ∂²loss/∂a∂b = 4, as without a perturbation


def test_exactly_two_gradients_a_step():
    calls = []

    @jax.custom_vjp
    def counted(x):
        return jnp.sum(x**2)

    def backward(x, g):
        jax.debug.callback(lambda: calls.append(1))
        return (2 * g * x,)

    counted.defvjp(lambda x: (jnp.sum(x**2), x), backward)
    train(counted, jnp.ones(3), optimizer=sam, hyperparameters={"learning_rate": 0.1, "rho": 0.05}, num_steps=10)
    jax.effects_barrier()
    assert len(calls) == 20


def test_loss_is_logged_at_the_unperturbed_weights():
    seen = train(
        loss,
        PARAMS,
        optimizer=sam,
        hyperparameters={"learning_rate": 0.01, "rho": 0.3},
        num_steps=5,
        num_snapshots=6,
        track=lambda params: params,
    )
    for index, logged in enumerate(seen.loss):
        assert_close(logged, loss(jax.tree.map(lambda leaf, i=index: leaf[i], seen.tracked)))


def test_works_inside_an_optax_chain_and_with_any_base():
    chained = optax.chain(sam(0.1, 0.05), optax.clip_by_global_norm(1e-3))
    after = step(optax.with_extra_args_support(chained))
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, after, PARAMS))
    assert_close(moved, 1e-3, rtol=1e-12)
    adam = step(sam(0.01, 0.05, base=optax.adam))
    assert_close(np.abs(np.asarray(adam["a"] - PARAMS["a"])), [0.01, 0.01], rtol=1e-6)


def test_the_base_sees_the_parameters_themselves():
    """Weight decay pulls θ, and not the perturbed θ + ε, towards zero."""

    def decayed(learning_rate):
        return optax.chain(optax.add_decayed_weights(0.5), optax.sgd(learning_rate))

    after, plain = step(sam(0.02, 0.3, base=decayed)), step(sam(0.02, 0.3))
    for name in PARAMS:
        assert_close(after[name], plain[name] - 0.02 * 0.5 * PARAMS[name])


@pytest.mark.parametrize(
    ("field", "arguments"), [("rho", (0.1, -1.0)), ("learning_rate", (-0.1, 0.1)), ("rho", (0.1, np.nan))]
)
def test_bad_numbers_are_refused(field, arguments):
    with pytest.raises(InputError) as error:
        sam(*arguments)
    assert error.value.field == field


def test_the_base_has_no_learning_rate_of_its_own():
    """Training time is learning rate times step, whatever takes the step."""
    momentum = functools.partial(sam, base=functools.partial(optax.sgd, momentum=0.5))
    hyperparameters = {"learning_rate": 0.01, "rho": 0.05}
    run = train(loss, PARAMS, optimizer=momentum, hyperparameters=hyperparameters, num_steps=1)
    assert_close(run.params["a"], step(sam(0.01, 0.05))["a"])  # momentum does nothing in the first step
    assert_close(run.time, [0.0, 0.01])


@pytest.mark.parametrize(
    ("base", "name", "reason"),
    [
        (optax.adam(0.3), "GradientTransformationExtraArgs", "object is not callable"),
        (None, "NoneType", "object is not callable"),
        (functools.partial(optax.adam, learning_rate=0.5), "adam", "multiple values for argument 'learning_rate'"),
        (lambda: optax.sgd(1.0), "<lambda>", "takes 0 positional arguments but 1 was given"),
        (lambda rate: 3, "<lambda>", "its result is of type int"),
        (lambda rate: {}["x"], "<lambda>", "KeyError: 'x'"),
    ],
)
def test_a_base_that_is_no_factory_is_refused_in_one_line(base, name, reason):
    with pytest.raises(InputError, match=r"called with the learning rate, such as optax\.adam$") as error:
        sam(0.01, 0.05, base=base)
    assert (error.value.field, error.value.value) == ("base", name)
    assert reason in error.value.remedy


def test_update_without_gradient_function_says_so():
    optimizer = sam(0.1, 0.1)
    with pytest.raises(InputError, match="grad_fn"):
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
