"""Sharpness-aware gradients: against their definitions, over whole batches, and their invariants."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close

from icl_theory.llm.data.batches import Batch
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.optimizers.adamw_muon import build_optimizer, preconditioned
from icl_theory.llm.optimizers.sam import Stages, loss_and_gradient, perturbation
from icl_theory.llm.training.step import make_step, start

GOLDENS = Path(__file__).parents[1] / "goldens" / "llm"
THETA, RHO = jnp.array([0.3, -0.7]), 0.2
MATRIX = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
PARTS = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)))


def features_of(theta, part):
    return jnp.tanh(MATRIX @ theta + part)


def output(theta, h):
    """As an output layer with weights of its own reads hidden states."""
    return h * (1 + theta[0])


def loss_of_logits(z):
    """A loss whose gradient with respect to z changes with z."""
    return jnp.sum(jnp.exp(z) * jnp.arange(1.0, 4.0))


def toy(features_of=features_of, output=output):
    def pull_of(theta, h, held, held_h, part):
        return output(theta, h) @ jax.lax.stop_gradient(jax.grad(loss_of_logits)(output(held, held_h)))

    return Stages(features_of, lambda theta, h, part: loss_of_logits(output(theta, h)), pull_of)


def logits_of(theta):
    return jnp.stack([output(theta, features_of(theta, part)) for part in PARTS])


def loss_of(logits):
    return sum(map(loss_of_logits, logits))


def loss(theta):
    return loss_of(logits_of(theta))


def epsilon():
    gradient = jax.grad(loss)(THETA)
    return RHO * gradient / jnp.linalg.norm(gradient)


def test_gradients_are_those_of_their_definitions():
    """Over all parts of a batch, which share one perturbation."""
    moved = THETA + epsilon()
    jacobian = jax.jacobian(logits_of)(moved)
    expected = {
        "none": jax.grad(loss)(THETA),
        "sam": jax.grad(loss)(moved),
        "fsam": jnp.einsum("pzt,pz->t", jacobian, jax.grad(loss_of)(logits_of(THETA))),
    }
    for kind, wanted in expected.items():
        value, found = loss_and_gradient(kind, toy(), THETA, PARTS, rho=RHO)
        assert_close(value, loss(THETA))
        assert_close(found, wanted)
    assert not np.allclose(expected["sam"], expected["fsam"], rtol=1e-3)


def test_without_a_radius_all_are_the_gradient():
    for kind in ("sam", "fsam"):
        assert_close(loss_and_gradient(kind, toy(), THETA, PARTS, rho=0.0)[1], jax.grad(loss)(THETA))


def test_functional_sam_is_the_gradient_where_logits_are_linear():
    """Their Jacobian is the same everywhere; SAM still moves."""
    linear = toy(lambda theta, part: MATRIX @ theta + part, lambda theta, h: h)
    gradient, sam, fsam = (
        loss_and_gradient(kind, linear, THETA, PARTS, rho=RHO)[1] for kind in ("none", "sam", "fsam")
    )
    assert_close(fsam, gradient)
    assert not np.allclose(sam, gradient, rtol=1e-2)


def test_sam_and_functional_sam_differ_by_the_change_of_the_gradient_of_the_logits():
    """`J(θ + ε)ᵀ [∇_z ℓ(z(θ + ε)) − ∇_z ℓ(z(θ))]`."""
    sam, fsam = (loss_and_gradient(kind, toy(), THETA, PARTS, rho=RHO)[1] for kind in ("sam", "fsam"))
    logits, pull = jax.vjp(logits_of, THETA + epsilon())
    (difference,) = pull(jax.grad(loss_of)(logits) - jax.grad(loss_of)(logits_of(THETA)))
    assert np.linalg.norm(difference) > 0.1
    assert_close(sam - fsam, difference)


def test_a_perturbation_has_the_radius_and_the_direction():
    direction = {"a": jnp.array([3.0, -1.0]), "b": jnp.array(2.0)}
    found = perturbation(direction, 0.5)
    assert_close(optax.tree.norm(found), 0.5)
    assert_close(found["a"] / found["b"], np.array([1.5, -0.5]))
    zero = perturbation(jax.tree.map(jnp.zeros_like, direction), 0.5)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(zero))


def test_the_current_preconditioner_is_what_adam_divides_by():
    """Of three gradients, the last included: with no momentum the step is `-g/(√v̂ + 1e-8)`."""
    params = {"w": jnp.zeros(2)}
    optimizer = build_optimizer("adamw", b1=0.0)
    state = optimizer.init(params)
    for gradient in ({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([2.0, 0.0])}, {"w": jnp.array([3.0, 0.5])}):
        found = preconditioned("current", state, gradient)
        updates, state = optimizer.update(gradient, state, params)
        np.testing.assert_allclose(updates["w"], -found["w"], rtol=1e-5)


def test_the_past_preconditioner_does_not_see_the_gradient_of_the_step():
    """v after gradients 1 and 2 is 0.999 · 0.001 + 0.001 · 4 where b2 = 0.999; at first it is zero, and d = g/1e-6."""
    optimizer, params = build_optimizer("adamw"), {"w": jnp.zeros(2)}
    state = optimizer.init(params)
    last = {"w": jnp.array([3.0, 0.5])}
    np.testing.assert_allclose(preconditioned("past", state, last)["w"], [3e6, 5e5], rtol=1e-6)
    for gradient in ({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([2.0, 0.0])}):
        _, state = optimizer.update(gradient, state, params)
    expected = [3.0 / (np.sqrt(0.004999) + 1e-6), 0.5 / 1e-6]
    np.testing.assert_allclose(preconditioned("past", state, last)["w"], expected, rtol=1e-4)


@pytest.mark.parametrize(("sharpness", "preconditioner"), [("sam", "none"), ("sam", "current"), ("fsam", "past")])
def test_a_batch_in_parts_has_one_perturbation(sharpness, preconditioner):
    """Gradients of whole batches, with second moments of the step before, do not depend on the number of parts."""
    random = np.random.default_rng(0)
    batch = Batch(jnp.asarray(random.integers(3, 40, (4, 10))), jnp.ones((4, 10), bool), jnp.arange(1.0, 5.0))
    norms = []
    for parts in (1, 4):
        graph, learner = start(load_decoder(GOLDENS / "llama"), "adamw")
        step = make_step(graph, "adamw", sharpness=sharpness, preconditioner=preconditioner, accumulate=parts)
        for rho in (0.0, 0.3):
            learner, seen = step(learner, batch, 1e-3, rho)
        norms.append((seen["loss"], seen["gradient_norm"]))
    np.testing.assert_allclose(*norms, rtol=2e-4)
