"""Factors, weights and copies; what theory says they do, against training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close

from icl_theory import (
    AlignedDescent,
    AlignedFlow,
    Ascent,
    EffectiveMatrix,
    InputError,
    MomentFlow,
    SeparateAttention,
    TaskDistribution,
    TaskMixture,
    aligned_parameters,
    compare,
    compress,
    early_group,
    example_copies,
    example_weights,
    excess_factor,
    find_features,
    find_group_features,
    full_population_moments,
    hitting_time,
    learning_time_ratio,
    learning_times,
    linear_spectrum,
    make_loss,
    path_matched_factors,
    prompt_moments,
    random_basis,
    random_group,
    ratio_factor,
    sam_equivalent_factor,
    sample_prompts,
    secant_factor,
    train,
    upsampled_learning_times,
    upsampled_loss,
)
from icl_theory.theory.sam_dynamics import two_phase_ratio
from icl_theory.theory.upsampling import two_phase_factor

LATE = np.asarray([False, False, True, True, False, True])
TIMES = np.asarray([0.0, 2.0, 8.0, np.inf, 4.0, 6.0])


def groups(*rows, shares=None, **settings):
    made = [TaskDistribution.create(np.asarray(row, float), num_context=31, **settings) for row in rows]
    return TaskMixture.create(made, shares or np.full(len(made), 1.0 / len(made)))


def test_the_ratio_takes_medians_and_leaves_out_what_had_nothing_to_learn():
    assert learning_time_ratio(TIMES, LATE) == 8.0 / 3.0
    assert learning_time_ratio(TIMES, LATE, last=7.0) == 7.0 / 3.0
    assert learning_time_ratio(TIMES, np.zeros(6, bool)) == 1.0


def test_ratio_rule():
    assert ratio_factor(6.0) == 6.0
    assert ratio_factor(6.0, target=1.5) == 4.0
    assert ratio_factor(6.0, target=1.5, largest=3.0) == 3.0
    assert ratio_factor(np.asarray([4.0, 1.0]), target=2.0).tolist() == [2.0, 0.5]


def test_the_secant_finds_the_factor_of_a_ratio_linear_in_its_inverse():
    """R = 0.5 + 7.5/κ: to reach 4 takes κ = 15/7, whatever was tried first."""
    for tried in (0.5, 1.5, 3.0):
        assert_close(secant_factor(tried, ratio=8.0, achieved=0.5 + 7.5 / tried, target=4.0), 15.0 / 7.0)
    assert_close(
        secant_factor(np.asarray([1.0, 2.0]), ratio=8.0, achieved=np.asarray([8.0, 4.0]), target=2.0), [1.0, 4.0]
    )
    with pytest.raises(InputError, match=r"give more than 0\.5"):
        secant_factor(3.0, ratio=8.0, achieved=0.5 + 7.5 / 3.0, target=0.4)


def test_what_the_ratio_exceeds_one_by_is_divided():
    """By κ if the late feature has hardly grown beside the early one, by more if it has."""
    assert_close(excess_factor(5.0, target=2.0), 4.0)
    for drive_ratio, factor in ((10.0, 3.0), (4.0, 1.5)):
        reached = 1.0 + 4.0 * (drive_ratio / factor - 1.0) / (drive_ratio - 1.0)
        assert_close(excess_factor(5.0, target=reached, drive_ratio=drive_ratio), factor)
    assert_close(excess_factor(5.0, target=1.0, drive_ratio=10.0), 10.0)  # equal drives: learned at once
    for given, named in (
        ({"ratio": 0.9, "target": 2.0}, "ratio = 0.9"),
        ({"ratio": 5.0, "target": 1.0}, "give more than 1"),
        ({"ratio": 5.0, "target": 0.9, "drive_ratio": 10.0}, "target = 0.9"),
        ({"ratio": 5.0, "target": 2.0, "drive_ratio": 1.0}, "drive_ratio = 1"),
        ({"ratio": 5.0, "target": np.nan}, "target = nan"),
    ):
        with pytest.raises(InputError, match=named):
            excess_factor(**given)


def test_weights_and_copies_count_alike():
    assert example_weights(LATE, 2.5).tolist() == [1.0, 1.0, 2.5, 2.5, 1.0, 2.5]
    copies = example_copies(LATE, 2.5, seed=0)
    assert copies[LATE].sum() == 8  # 7.5, rounded to even
    assert set(copies[LATE]) == {2, 3}
    assert (copies[~LATE] == 1).all()
    assert (copies == example_copies(LATE, 2.5, seed=0)).all()
    assert any((copies != example_copies(LATE, 2.5, seed=seed)).any() for seed in range(1, 6))
    assert example_copies(LATE, 3.0, seed=1).tolist() == [1, 1, 3, 3, 1, 3]
    assert example_copies(LATE, 0.0, seed=1).tolist() == [1, 1, 0, 0, 1, 0]


def test_copies_train_as_weights_do(key):
    """Moments of the repeated set are those of the weighted one."""
    prompts = sample_prompts(TaskMixture.single([0.7, 0.3], num_context=9), 6, key=key)
    copies = example_copies(LATE, 2.0, seed=0)
    index = np.repeat(np.arange(6), copies)
    repeated = prompt_moments(jax.tree.map(lambda leaf: leaf[index], prompts))
    weighted = compress(prompts).moments(copies.astype(float))
    for name in ("gram", "cross", "energy", "weight"):
        assert_close(getattr(repeated, name), getattr(weighted, name))


def test_controls_have_the_size_of_the_late_group():
    assert early_group(TIMES, LATE).tolist() == [False, True, False, False, True, True]
    drawn = random_group(LATE, seed=3)
    assert drawn.sum() == LATE.sum()
    assert (drawn == random_group(LATE, seed=3)).all()
    assert len({tuple(random_group(LATE, seed=seed)) for seed in range(10)}) > 1


def test_upsampled_features_are_those_of_the_upsampled_mixture(key):
    basis = random_basis(key, 4)
    mixture = groups(linear_spectrum(4), linear_spectrum(4)[::-1].copy(), shares=[0.8, 0.2], basis=basis, noise_std=0.3)
    found = find_group_features(mixture)
    for factor in (0.5, 2.0):
        ours, theirs = found.upsampled([1.0, factor]), find_features(mixture.upsampled([1.0, factor]))
        order = np.argsort(-ours.drive)  # theirs are numbered by the new drives
        assert_close(ours.drive[order], theirs.drive, rtol=1e-10)
        assert_close(ours.curvature[order], theirs.curvature, rtol=1e-10)
        assert_close(ours.energy, theirs.energy, rtol=1e-10)
    # Beyond κ = 4 the order of drives turns; the numbers of the features stay.
    assert np.argmax(found.upsampled([1.0, 20.0]).drive) == 3


def test_a_feature_of_its_own_divides_the_ratio_exactly():
    found = find_group_features(groups([2.0, 0.0], [0.0, 1.0]))
    for start in (0.01, 0.2, np.asarray([0.1, 0.03])):
        plain = upsampled_learning_times(found, 1.0, start=start)
        more = upsampled_learning_times(found, [1.0, 3.0], start=start)
        assert_close(more[1] / more[0], plain[1] / plain[0] / 3.0, rtol=1e-12)
    assert_close(upsampled_loss(found, [1.0, 3.0]), upsampled_loss(found, 1.0))


def test_the_cost_of_the_bias_is_the_loss_at_the_biased_optimum():
    mixture = groups(linear_spectrum(4), linear_spectrum(4)[::-1].copy(), shares=[0.8, 0.2])
    found = find_group_features(mixture)
    weighted, plain = (
        full_population_moments(m).restricted("reduced").mean() for m in (mixture.upsampled([1, 5]), mixture)
    )
    tensor = np.linalg.solve(weighted.gram, weighted.cross)
    loss = tensor @ plain.gram @ tensor - 2 * plain.cross @ tensor + plain.energy
    assert_close(upsampled_loss(found, [1.0, 5.0]), loss, rtol=1e-10)


def test_sam_equivalent_factor_is_the_ratio_of_its_first_steps():
    """One small step of SAM moves feature d by a_d(1 − δ s_d)² of an equal start, to leading order in u_0."""
    features = find_features(groups([2.0, 0.0], [0.0, 1.0]))
    start, rho = 1e-3, 0.5 * np.sqrt(3.0) * 1e-3
    rate = 1e-3
    moved = [
        AlignedDescent(features, np.full(2, start), rate, ascent).predict(np.asarray([0.0, rate])).strength ** (1 / 3)
        for ascent in (Ascent(), Ascent(rho))
    ]
    plain, sam = (u[1] - u[0] for u in moved)
    expected = (sam[1] / sam[0]) / (plain[1] / plain[0])
    assert_close(sam_equivalent_factor(features.drive, start=start, rho=rho)[1], expected, rtol=1e-3)
    assert sam_equivalent_factor(features.drive, start=start, rho=0.0).tolist() == [1.0, 1.0]


def test_path_matched_factor_gives_gradient_descent_sams_ratio():
    """Against the discrete map of SAM and closed-form times of the upsampled mixture, for three features."""
    mixture = groups([1.0, 0.0, 0.0], [0.0, 0.7, 0.0], [0.0, 0.0, 0.5])
    found = find_group_features(mixture)
    features, start, rho = found.upsampled(), 0.05, 0.4 * np.sqrt(3.0) * 0.05
    factors = path_matched_factors(features, start=start, rho=rho)
    rate, time = 1e-3, np.arange(0, 250_000, 50) * 1e-3
    strength = AlignedDescent(features, np.full(3, start), rate, Ascent(rho)).predict(time).strength
    sam = learning_times(time, strength / features.optimum)
    upsampled = upsampled_learning_times(found, factors, start=start)
    assert_close(upsampled / upsampled[0], sam / sam[0], rtol=5e-3)
    assert (np.diff(factors) > 0).all()


def test_path_matched_factor_where_sam_rests_long_on_a_plateau():
    """Drives 100 to 1: an explicit solver gives up there. Against the discrete map."""
    features = find_features(groups([1.0, 0.0], [0.0, 0.1]))
    start, rho, rate = 0.05, 0.3 * np.sqrt(3.0) * 0.05, 2e-4  # above that the discrete map oscillates
    factor = path_matched_factors(features, start=start, rho=rho)[1]
    time = np.arange(0, 15_000_000, 10_000) * rate
    strength = AlignedDescent(features, np.full(2, start), rate, Ascent(rho)).predict(time).strength
    first = np.arange(0, 300_000, 100) * rate
    early = AlignedDescent(features, np.full(2, start), rate, Ascent(rho)).predict(first).strength
    times = [learning_times(first, early / features.optimum)[0], learning_times(time, strength / features.optimum)[1]]
    plain = hitting_time(0.5, drive=features.drive, optimum=features.optimum, start=np.full(2, start))
    assert np.abs(plain[1] / plain[0] / (times[1] / times[0]) / factor - 1.0) < 0.01


def test_two_phase_factor_divides_to_the_two_phase_ratio():
    alpha, delta = 0.25, np.asarray([0.0, 0.2, 0.5])
    assert_close(1.0 / alpha / two_phase_factor(alpha, delta), two_phase_ratio(alpha, delta))
    assert two_phase_factor(alpha, 0.0) == 1.0
    assert np.isnan(two_phase_factor(alpha, 0.8))


def test_moment_flow_of_a_population_is_the_flow_of_its_features(key):
    mixture = groups(linear_spectrum(3), noise_std=0.2, basis=random_basis(key, 3))
    features, time = find_features(mixture), np.linspace(0.0, 40.0, 50)
    flow = MomentFlow.from_moments(full_population_moments(mixture), features.directions, start=0.2)
    assert np.abs(flow.coupling - np.diag(features.curvature)).max() < 1e-12
    comparison = compare(AlignedFlow(features, np.full(3, 0.2)), flow.predict(time))
    assert max(comparison.strength, comparison.loss) < 1e-8
    assert_close(flow.optimum, features.optimum, rtol=1e-10)
    other = flow._replace(start=np.full(3, 0.3), drive=1.5 * flow.drive)
    for alone, together in zip((flow, other), MomentFlow.predict_together([flow, other], time), strict=True):
        assert_close(together.strength, alone.predict(time).strength, rtol=1e-9)
        assert_close(together.loss, alone.predict(time).loss, rtol=1e-9)


def test_weighted_moments_predict_learning_times(key):
    """Small targets three times: with the couplings this makes, the aligned model's times within 2 %; without, not."""
    mixture = TaskMixture.single(linear_spectrum(3), num_context=31)
    examples = compress(sample_prompts(mixture, 20_000, key=key), blocks="reduced")
    chosen = np.abs(np.asarray(examples.target)) < np.median(np.abs(np.asarray(examples.target)))
    moments = examples.moments(example_weights(chosen, 3.0))
    flow = MomentFlow.from_moments(moments, find_features(mixture).directions, start=0.1)
    loss, _ = make_loss(SeparateAttention(3, 3, rngs=nnx.Rngs(0)), moments)
    run = train(
        loss,
        aligned_parameters(jnp.full(3, 0.1), jnp.asarray(flow.directions)),
        hyperparameters={"learning_rate": 0.02},
        num_steps=25_000,
        num_snapshots=2001,
        track=EffectiveMatrix(loss.graphdef),
    )
    measured = learning_times(run.time, flow.features.strength(run.tracked) / flow.optimum)
    predicted = learning_times(run.time, flow.predict(run.time).strength / flow.optimum)
    assert np.abs(predicted / measured - 1.0).max() < 0.02
    own = flow.features
    alone = hitting_time(0.5, drive=own.drive, optimum=own.optimum, start=flow.start)
    assert np.abs(alone / measured - 1.0).max() > 0.1
    assert np.abs(flow.predict(run.time).loss / run.loss - 1.0).max() < 0.1


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("times", lambda: learning_time_ratio(np.asarray([1.0, np.inf]), np.asarray([False, True]))),
        ("late", lambda: learning_time_ratio(np.ones(2), np.ones(2, bool))),
        ("late", lambda: learning_time_ratio(np.asarray([0.0, 3.0]), np.asarray([False, True]))),
        ("late", lambda: learning_time_ratio(np.asarray([2.0, 0.0]), np.asarray([False, True]))),
        (r"times\[0\]", lambda: learning_time_ratio(np.asarray([np.nan, 1.0]), np.asarray([False, True]))),
        ("last", lambda: learning_time_ratio(np.ones(2), np.asarray([False, True]), last=0.0)),
        (r"times\[1\]", lambda: early_group(np.asarray([1.0, -1.0]), np.asarray([False, True]))),
        ("ratio, target", lambda: ratio_factor(np.ones(2), target=np.ones(3))),
        ("give more than 4", lambda: secant_factor(2.0, ratio=4.0, achieved=4.0 - 1e-9, target=2.0)),
        ("factor", lambda: example_copies(LATE, 1e300, seed=0)),
        ("delta", lambda: two_phase_factor(0.25, -0.1)),
        ("alpha", lambda: two_phase_factor(1.5, 0.1)),
        (
            "factors",
            lambda: upsampled_learning_times(find_group_features(groups([1.0, 0.0], [0.0, 1.0])), [1, 0], start=0.1),
        ),
        ("start", lambda: upsampled_learning_times(find_group_features(groups([1.0])), 1.0, start=np.ones(2))),
        ("fraction", lambda: path_matched_factors(find_features(groups([1.0])), start=0.05, rho=0.01, fraction=0.97)),
        ("start", lambda: path_matched_factors(find_features(groups([1.0])), start=5.0, rho=0.01)),
        ("start", lambda: MomentFlow.from_moments(full_population_moments(groups([1.0])), np.eye(1), start=np.inf)),
        (
            "directions",
            lambda: MomentFlow.from_moments(full_population_moments(groups([1.0])), np.full((1, 1), np.nan), start=0.1),
        ),
        (
            "time",
            lambda: MomentFlow.from_moments(full_population_moments(groups([1.0])), np.eye(1), start=0.1).predict(
                -np.ones(1)
            ),
        ),
        ("ratio", lambda: ratio_factor(np.inf)),
        ("target", lambda: ratio_factor(2.0, target=0.0)),
        ("largest", lambda: ratio_factor(2.0, largest=0.5)),
        ("achieved", lambda: secant_factor(2.0, ratio=4.0, achieved=5.0, target=2.0)),
        ("target", lambda: secant_factor(2.0, ratio=4.0, achieved=3.0, target=np.nan)),
        ("drive", lambda: sam_equivalent_factor(np.asarray([1.0, 2.0]), start=0.1, rho=0.01)),
        ("drive", lambda: sam_equivalent_factor(np.asarray([1.0, np.nan]), start=0.1, rho=0.01)),
        ("rho = 1.0: SAM stops", lambda: sam_equivalent_factor(np.asarray([2.0, 1.0]), start=0.1, rho=1.0)),
        ("start", lambda: sam_equivalent_factor(np.asarray([2.0, 1.0]), start=0.0, rho=0.1)),
        ("factor", lambda: example_weights(LATE, -1.0)),
        ("factor", lambda: example_copies(LATE, np.nan, seed=0)),
        ("seed", lambda: example_copies(LATE, 2.0, seed=-1)),
        ("seed", lambda: random_group(LATE, seed=-1)),
        ("factors", lambda: find_group_features(groups([1.0], [2.0])).upsampled([0.0, 0.0])),
        ("factors", lambda: find_group_features(groups([1.0], [2.0])).upsampled([1.0, 2.0, 3.0])),
        ("factors", lambda: find_group_features(groups([1.0], [2.0])).upsampled([1.0, -2.0])),
    ],
)
def test_bad_input_is_named(field, call):
    with pytest.raises(InputError, match=field):
        call()


def test_a_trap_has_no_path_matched_factor():
    features = find_features(groups([1.0]))
    with pytest.raises(InputError, match="rho"):
        path_matched_factors(features, start=0.05, rho=0.2)
