"""The pieces of the upsampling experiments, each on numbers that can be checked by hand."""

import jax
import numpy as np
from helpers import assert_close

from icl_theory import compress, population_loss, population_moments, sample_prompts
from icl_theory.verification.claims.finite_data_arms import Pilot, fresh_arms, judge, weighted_arms
from icl_theory.verification.claims.generalisation_losses import at_level, lowest, quadratic
from icl_theory.verification.ensembles import reduced_population


def test_held_out_loss_at_a_level_of_the_training_loss():
    training = np.asarray([[4.0, 2.0, 0.0], [4.0, 1.0, 1.0], [4.0, 3.0, 2.5]])
    held = np.asarray([[8.0, 6.0, 5.0], [8.0, 5.0, 5.0], [8.0, 7.0, 6.0]])[..., None]
    found = at_level(training, held, np.asarray([1.0, 2.5, 2.0]))
    assert found[:, 0].tolist() == [5.5, 6.5, np.inf]


def test_held_out_losses_are_population_losses(key, mixture):
    matrix = np.asarray(jax.random.normal(key, (4, 4)))
    assert_close(
        quadratic(matrix.reshape(16), reduced_population(mixture)),
        population_loss(matrix, population_moments(mixture)),
        rtol=1e-10,
    )


def test_the_lowest_training_loss_is_a_minimum(key, mixture):
    moments = compress(sample_prompts(mixture, 60, key=key), blocks="reduced").moments()
    (least,) = lowest([moments])
    tensor = np.linalg.solve(moments.gram, moments.cross)
    for change in 1e-3 * np.random.default_rng(0).normal(size=(5, 16)):
        assert quadratic(tensor + change, moments) > least


def test_arms_add_the_weight_that_the_factor_says(key, mixture):
    """Copies and fresh prompts alike bring (κ−1) times the number of late ones; fresh ones of each kind differ."""
    own, pool = (compress(sample_prompts(mixture, 400, key=k), blocks="reduced") for k in jax.random.split(key))
    time = np.linspace(0.0, 10.0, 11)
    optimum = np.linalg.solve(own.moments().gram, own.moments().cross)
    matrices = ((1.0 - np.exp(-time))[:, None] * optimum).reshape(11, 4, 4)
    matrices[:, :, 2:] *= (time > 5.0)[:, None, None]  # half of the directions come late
    pilot = judge(own, time, matrices, quantile=0.5)
    assert pilot.factor > 1
    added = (pilot.factor - 1.0) * pilot.late.sum()
    for weight in weighted_arms(pilot, seed=0).values():
        assert_close(weight.sum(), 400 + added)
    arms = fresh_arms(pilot, own.moments(), pool, seed=0)
    assert {float(np.round(moments.weight, 8)) for moments in arms.values()} == {float(np.round(400 + added, 8))}
    assert len({float(moments.energy) for moments in arms.values()}) == 3


def test_without_late_examples_nothing_is_added(key, mixture):
    own = compress(sample_prompts(mixture, 20, key=key), blocks="reduced")
    nothing = Pilot(np.arange(2.0), np.zeros((2, 16)), np.zeros(20), np.zeros(20, bool), 1.0)
    plain = own.moments()
    for moments in fresh_arms(nothing, plain, own, seed=0).values():
        assert moments.weight == plain.weight
