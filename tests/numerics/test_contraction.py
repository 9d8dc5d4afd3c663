"""The two small operations: equal to einsum and to indexing, differentiable to any order, batch axis last."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close

from icl_theory.numerics.contraction import contract, reshape, sum_entries

SIZES = {"h": 3, "e": 4, "f": 2, "d": 5, "b": 300, "c": 40}
SPECS = ["he,hfd->efd", "h,hde->de", "hrd,hre->de", "f,f->", "e,efd->fd", "bd,bc->dc", ",e->e"]


def operands(spec, key, batch=()):
    left, right = spec.split("->")[0].split(",")
    shapes = [tuple(SIZES.get(letter, 3) for letter in names) for names in (left, right)]
    return [jax.random.normal(k, (*batch, *shape)) for k, shape in zip(jax.random.split(key), shapes, strict=True)]


@pytest.mark.parametrize("spec", SPECS)
def test_contract_is_einsum_at_every_order(spec, key):
    left, right = operands(spec, key)
    assert_close(contract(spec, left, right), jnp.einsum(spec, left, right))
    functions = [
        lambda a, b, product=product: jnp.sum(jnp.sin(product(spec, a, b) + jnp.sum(a)))
        for product in (contract, jnp.einsum)
    ]
    for transform in (
        lambda f: jax.grad(f, argnums=(0, 1)),
        lambda f: lambda a, b: jax.jvp(f, (a, b), (b.sum() * a, a.sum() * b)),
        lambda f: lambda a, b: jax.jvp(jax.grad(f), (a, b), (a, b)),
        lambda f: lambda a, b: jax.grad(lambda a: jnp.sum(jax.grad(f)(a, b) ** 2))(a),
    ):
        ours, theirs = (jax.tree.leaves(transform(f)(left, right)) for f in functions)
        for our, their in zip(ours, theirs, strict=True):
            assert_close(our, their, rtol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_contract_under_vmap(spec, key):
    left, right = operands(spec, key, batch=(6,))
    expected = jax.vmap(lambda a, b: jnp.einsum(spec, a, b))(left, right)
    assert_close(jax.vmap(lambda a, b: contract(spec, a, b))(left, right), expected)
    last = [jnp.moveaxis(side, 0, -1) for side in (left, right)]
    out = jax.vmap(lambda a, b: contract(spec, a, b), in_axes=-1, out_axes=-1)(*last)
    assert_close(jnp.moveaxis(out, -1, 0), expected)
    shared = jax.vmap(lambda a: contract(spec, a, right[0]))(left)
    assert_close(shared, jax.vmap(lambda a: jnp.einsum(spec, a, right[0]))(left))
    twice = jax.vmap(lambda a: jax.vmap(lambda b: contract(spec, a, b))(right))(left)
    assert_close(twice, jax.vmap(lambda a: jax.vmap(lambda b: jnp.einsum(spec, a, b))(right))(left))


def test_a_batched_contraction_moves_nothing_when_the_axis_is_last(key):
    """No transpose in the traced program: the reason why the operation exists."""
    left, right = (jnp.moveaxis(side, 0, -1) for side in operands("he,hfd->efd", key, batch=(6,)))

    def loss(a, b):
        tensor = contract("he,hfd->efd", a, b)
        flat = reshape(tensor, (tensor.size,))
        return contract("f,f->", flat, flat)

    traced = jax.make_jaxpr(jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=-1, out_axes=-1))(left, right)
    assert "transpose" not in str(traced)
    assert "contract" in str(traced)


def test_sum_entries_adds_what_it_names(key):
    array = jax.random.normal(key, (2, 3))
    entries = ((0,), (1, 3), (), (5, 4, 0))
    by_hand = [sum(array.ravel()[i] for i in group) if group else 0.0 for group in entries]
    assert_close(sum_entries(array, entries, (2, 2)), np.reshape(by_hand, (2, 2)))
    weights = jax.random.normal(jax.random.key(1), (2, 2))
    gradient = jax.grad(lambda a: jnp.sum(weights * sum_entries(a, entries, (2, 2))))(array)
    expected = np.zeros(6)
    for group, weight in zip(entries, weights.ravel(), strict=True):
        for i in group:
            expected[i] += weight
    assert_close(gradient, expected.reshape(2, 3))
    many = jax.random.normal(key, (2, 3, 7))
    batched = jax.vmap(lambda a: sum_entries(a, entries, (2, 2)), in_axes=-1, out_axes=-1)(many)
    assert_close(batched[..., 4], sum_entries(many[..., 4], entries, (2, 2)))
    assert_close(
        jax.vmap(lambda a: reshape(a, (6,)), in_axes=-1, out_axes=0)(many), jnp.moveaxis(many, -1, 0).reshape(7, 6)
    )
