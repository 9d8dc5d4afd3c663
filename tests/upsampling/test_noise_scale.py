"""Signal and noise of gradients: unbiased with a right spread where both are known, and the law's known cases."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from icl_theory.errors import InputError
from icl_theory.theory.adaptive_speeds import group_speed
from icl_theory.upsampling.noise_scale import (
    NoiseScale,
    check_noise_scale,
    estimate,
    interval,
    joined,
    load_noise_scale,
    save_noise_scale,
    sparse,
)

WEIGHTS = 30


def products(early, late):
    """Inner products of batch gradients, (K, n) each."""
    both = np.stack([early, late])
    return np.einsum("gkn,hln->gkhl", both, both)


def test_one_batch_an_example_gives_the_signal_and_noise_of_the_set():
    gradients = np.random.default_rng(0).normal(size=(2, 9, WEIGHTS)) + 0.3
    signal, variance = estimate(products(*gradients), 1, (9, 9))
    means = gradients.mean(1)
    np.testing.assert_allclose(signal[0], means @ means.T)
    np.testing.assert_allclose(variance[0], gradients.var(1, ddof=1).sum(1))
    less, _ = estimate(products(*gradients[:, 1:]), 1, (9, 9))
    np.testing.assert_allclose(signal[1], less[0])  # what is left without the first batch


@pytest.mark.parametrize("counts", [(80, 40), (2000, 1000)])
def test_estimates_have_no_bias_and_their_intervals_the_right_width(counts):
    """For 6 batches of 4 in each group, whose mean gradient squared is about 1 % of their noise.

    Intervals do not know how much of the set was drawn, and count the noise of products of noise twice. So they may be
    wider than the spread, by √2 in a large set, but not narrower.
    """
    draw, batches, rows = np.random.default_rng(1), 6, 4
    sets = [0.1 + draw.normal(size=(count, WEIGHTS)) * size for count, size in zip(counts, (1.0, 2.0), strict=True)]
    means = np.stack([one.mean(0) for one in sets])
    true = means @ means.T, np.array([one.var(0, ddof=1).sum() for one in sets])
    found = []
    for _ in range(1500):
        drawn = [draw.permutation(one)[: batches * rows].reshape(batches, rows, -1).mean(1) for one in sets]
        found.append(estimate(products(*drawn), rows, counts))
    for place, wanted in enumerate(true):
        values = np.array([one[place] for one in found])  # (draws, replicates, ...)
        spread = values[:, 0].std(0)
        assert np.all(np.abs(values[:, 0].mean(0) - wanted) < 4 * spread / np.sqrt(len(values)))
        claimed = np.sqrt((batches - 1) * values[:, 1:].var(1)).mean(0)
        assert np.all(claimed > 0.9 * spread)
        assert counts == (80, 40) or np.all(claimed < 1.5 * spread)


def test_an_interval_is_that_of_a_mean():
    values = np.random.default_rng(2).normal(size=10)
    without = np.array([np.delete(values, place).mean() for place in range(10)])
    mean, low, high = interval(np.append(values.mean(), without))
    half = 2.262157 * values.std(ddof=1) / np.sqrt(10)  # Student's t, 9 degrees of freedom
    np.testing.assert_allclose([mean, low, high], [values.mean(), values.mean() - half, values.mean() + half])


@pytest.mark.parametrize("batch", [1, 16, 500])
def test_groups_without_a_common_feature_move_at_the_speed_of_the_theory(batch):
    found = sparse(0.02, 1000)
    for factor in (1.0, 4.0):
        late = 0.02 * factor / (0.98 + 0.02 * factor)
        speeds = group_speed(np.array([1 - late, late]), batch)
        np.testing.assert_allclose(found.paces(factor, batch)[0, 0], speeds)
        np.testing.assert_allclose(found.paces(factor, batch, optimizer="sgd")[0, 0], [1 - late, late])


@pytest.mark.parametrize("batch", [4, 64])
def test_the_law_is_the_mean_step_of_adam_at_fixed_weights(batch):
    """In two blocks of noise 1 and 3, in which a quarter of late examples, upsampled by 3, pull with and against."""
    draw, counts, block = np.random.default_rng(4), (300, 100), np.repeat([1.0, 3.0], WEIGHTS // 2)
    ways = 0.15 * np.ones(WEIGHTS), 0.3 * np.repeat([1.0, -0.2], WEIGHTS // 2)  # mean gradients, alike in a block
    sets = [draw.normal(size=(count, WEIGHTS)) for count in counts]
    sets = [(one - one.mean(0) + way) * block for one, way in zip(sets, ways, strict=True)]
    found = []
    for half in (slice(0, WEIGHTS // 2), slice(WEIGHTS // 2, None)):
        means = np.stack([one[:, half].mean(0) for one in sets])
        found.append((means @ means.T, [one[:, half].var(0).sum() for one in sets]))
    signal, variance = (np.array(part)[None, None] for part in zip(*found, strict=True))
    noise = NoiseScale(np.zeros(1), np.array(["a", "b"]), np.full(2, 15), signal, variance, np.array(counts))

    gradients, chances = np.concatenate(sets), np.repeat([0.5 / 300, 0.5 / 100], counts)  # κπ/(1 − π + κπ) = ½
    rows = draw.choice(400, size=(20000, batch), p=chances)
    adam = optax.scale_by_adam()

    def step(state, given):
        update, state = adam.update(given, state)
        return state, update

    steps = jax.lax.scan(step, adam.init(np.zeros(WEIGHTS)), jnp.asarray(gradients[rows].mean(1)))[1]
    mean = np.asarray(steps[4000:]).mean(0)
    np.testing.assert_allclose(noise.paces(3.0, batch)[0, 0], [one.mean(0) @ mean for one in sets], rtol=0.05)


def test_shared_noise_makes_adam_feel_upsampling_as_gradient_descent():
    found = sparse(0.1, 1000)._replace(variance=np.full((1, 1, 2, 2), 1e6))
    adam, sgd = ([found.paces(k, 8, optimizer=name)[0, 0] for k in (1, 3)] for name in ("adamw", "sgd"))
    np.testing.assert_allclose(adam[1] / adam[0], sgd[1] / sgd[0], rtol=1e-4)


def test_the_ratio_divides_by_the_gain_in_mean_pace():
    """Under gradient descent by κ; over checkpoints, by the mean up to each learning time."""
    alone = sparse(0.25, 100)
    assert alone.ratio((10.0, 50.0), 4.0, 8, optimizer="sgd")[0] == pytest.approx(5 / 4)
    noisy = alone._replace(steps=np.array([100.0]), signal=alone.signal / 4)
    both = joined([noisy, alone])
    assert both.steps.tolist() == [0, 100]
    early, late = (
        np.array([one.paces(k, 8)[0, 0] for one in (alone, noisy)]) for k in (1.0, 4.0)
    )  # (checkpoints, groups) without and with upsampling
    gains = [
        (late[0, group] + end * (late[1, group] - late[0, group]) / 2)
        / (early[0, group] + end * (early[1, group] - early[0, group]) / 2)
        for group, end in ((0, 0.1), (1, 0.5))
    ]
    assert both.ratio((10.0, 50.0), 4.0, 8)[0] == pytest.approx(5 * gains[0] / gains[1])


def test_critical_batch_sizes():
    found = sparse(0.5, 10)._replace(variance=np.array([[[[3.0, 0.0], [1.0, 8.0]]]]))
    assert found.critical_batch()[0, 0].tolist() == [4, 8]
    assert found.critical_batch(by_block=True)[0, 0].tolist() == [[3, np.inf], [np.inf, 8]]


def test_a_measurement_is_kept_in_a_file(tmp_path):
    found = sparse(0.1, 50)
    save_noise_scale(found, tmp_path / "noise.npz")
    again = load_noise_scale(tmp_path / "noise.npz")
    for ours, theirs in zip(again, found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.savez(tmp_path / "other.npz", steps=np.zeros(1))
    (tmp_path / "text.npz").write_text("no")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "noise.npz").read_bytes()[:-100])
    np.save(tmp_path / "single.npy", np.zeros(1))
    for name in ("other.npz", "text.npz", "cut.npz", "single.npy", "missing.npz"):
        with pytest.raises(InputError, match=f"{name}.*finetune --noise-scale"):
            load_noise_scale(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("steps", np.array(["first"])),
        ("blocks", np.array("early")),
        ("sizes", np.ones(3)),
        ("sizes", np.zeros(2)),
        ("signal", np.zeros((1, 2, 2, 2))),
        ("signal", np.zeros((1, 0, 2, 2, 2))),
        ("variance", np.zeros((1, 2, 2, 2))),
        ("variance", np.full((1, 1, 2, 2), np.nan)),
        ("variance", np.full((1, 1, 2, 2), -1.0)),
        ("counts", np.array([45, 0])),
        ("counts", np.array([45])),
    ],
)
def test_a_damaged_measurement_is_refused_by_its_array(name, values, tmp_path):
    found = sparse(0.1, 50)._replace(**{name: values})
    np.savez(tmp_path / "noise.npz", **found._asdict())
    with pytest.raises(InputError, match="measure again with `icl-theory finetune --upsample --noise-scale`") as error:
        load_noise_scale(tmp_path / "noise.npz")
    assert error.value.field == f"{tmp_path / 'noise.npz'}: {name}"
    with pytest.raises(InputError, match=f"^noise: {name}"):
        check_noise_scale(found)


def test_steps_of_a_measurement_ascend():
    both = joined([sparse(0.1, 50), sparse(0.1, 50)._replace(steps=np.ones(1))])
    check_noise_scale(both)
    for steps in ([1.0, 1.0], [1.0, 0.0]):
        with pytest.raises(InputError, match=r"noise: steps.*each once"):
            check_noise_scale(both._replace(steps=np.array(steps)))
    with pytest.raises(InputError, match="noise: signal"):
        check_noise_scale(both._replace(steps=np.arange(3.0)))


def test_equal_examples_have_no_negative_noise():
    """Rounding of the products would leave some."""
    for gradient in np.random.default_rng(0).normal(size=(30, WEIGHTS)):
        assert estimate(products(*np.tile(gradient, (2, 7, 1))), 4, (28, 28))[1].min() >= 0


def test_what_has_no_law_is_refused():
    found: NoiseScale = sparse(0.5, 10)
    with pytest.raises(InputError, match="optimizer"):
        found.paces(2.0, 8, optimizer="muon")
    with pytest.raises(InputError, match="factor"):
        found.paces(0.5, 8)
    with pytest.raises(InputError, match="batch_size"):
        found.paces(2.0, 0)
    with pytest.raises(InputError, match=r"early examples.*more examples"):
        found._replace(signal=-found.signal).ratio((1.0, 2.0), 2.0, 8)
