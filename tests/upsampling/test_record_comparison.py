"""Two records compared: known changes are found, and what selection alone makes is not taken for a difference."""

import numpy as np
import pytest
from helpers import assert_close

import icl_theory as icl
from icl_theory.errors import InputError
from icl_theory.upsampling.record_comparison import tenths_of

COUNT = 4000
EASY_HIGHER = np.linspace(0.04, -0.02, 10)  # change of each tenth under B


def levels(seed=0):
    """Difficulty of the examples."""
    return np.random.default_rng(seed).lognormal(-0.5, 0.7, COUNT)


def noisy(values, seed, size=0.2):
    return values * np.exp(size * np.random.default_rng(seed).standard_normal(len(values)))


def flatter(values):
    """Less simplicity bias: the lowest losses rise and the highest fall, in their order."""
    return np.exp(np.log(values) * 0.9)


def record(*losses, steps=None, ids=None):
    return icl.LossRecord(range(len(losses)) if steps is None else steps, np.array(losses), ids)


def test_changes_of_tenths_are_found_exactly():
    first = levels()
    tenth = np.empty(COUNT, int)
    tenth[np.argsort(first)] = np.arange(COUNT) // (COUNT // 10)
    found = icl.compare_losses(record(first), record(first * (1.0 + EASY_HIGHER[tenth])))
    assert_close(found.change.value[0, 0], EASY_HIGHER, rtol=1e-10)
    assert_close(found.contrast.value[0, 0], 1.04 / 0.98 - 1.0, rtol=1e-10)
    assert found.findings == ("less",)
    assert found.verdict == "B has less simplicity bias than A at step 0"
    second = first * (1.0 + EASY_HIGHER[tenth])
    assert_close(found.mean_change.value[0], second.mean() / first.mean() - 1.0, rtol=1e-9)
    assert_close(found.spread_change.value[0], second.std() / first.std() - 1.0, rtol=1e-9)
    sizes = [np.sort(values)[-400:].mean() / np.sort(values)[:400].mean() for values in (first, second)]
    assert_close(found.reach[0], sizes)


def test_a_repetition_that_differs_by_noise_shows_selection_and_no_difference():
    values = levels()
    found = icl.compare_losses(record(noisy(values, 1)), record(noisy(values, 2)))
    by_a, by_b = 0, 1
    assert found.contrast.low[0, by_a] > 0.02  # tenths of A alone would claim it
    assert found.contrast.high[0, by_b] < -0.02
    assert found.contrast.low[0, 2] < 0 < found.contrast.high[0, 2]
    logs = np.log1p(found.contrast.value[0])
    assert_close(logs[by_a], -logs[by_b], rtol=0.2)
    assert found.findings == ("undecided",)
    assert "tenths of A and tenths of B show no common difference" in found.verdict


@pytest.mark.parametrize("sizes", [(0.3, 0.05), (0.05, 0.3)])
def test_runs_of_unequal_noise_show_no_difference(sizes):
    """Tenths of both are misled by the noise of one run; tenths of A and of B contradict each other."""
    values = levels()
    found = icl.compare_losses(record(noisy(values, 1, sizes[0])), record(noisy(values, 2, sizes[1])))
    both = 2
    assert not found.contrast.low[0, both] < 0 < found.contrast.high[0, both]
    assert found.findings == ("undecided",)


def test_a_difference_is_found_through_noise_from_either_side():
    values = levels()
    first, second = noisy(values, 1, 0.05), noisy(flatter(values), 2, 0.05)
    assert icl.compare_losses(record(first), record(second)).findings == ("less",)
    assert icl.compare_losses(record(second), record(first)).findings == ("more",)


def test_a_third_run_decides_where_selection_hides_the_difference():
    values = levels()
    first, second = record(noisy(values, 1, 0.4)), record(noisy(flatter(values), 2, 0.4))
    assert icl.compare_losses(first, second).findings == ("undecided",)
    found = icl.compare_losses(first, second, ranking=record(noisy(values, 3, 0.4), steps=[7]))
    assert found.rankings[-1] == "third"
    assert found.findings == ("less",)
    again = icl.compare_losses(first, record(noisy(values, 4, 0.4)), ranking=record(noisy(values, 3, 0.4)))
    assert again.findings == ("undecided",)
    assert "tenths of the third record show no difference" in again.verdict


def test_a_factor_common_to_all_is_no_contrast():
    values = levels().astype(np.float32)
    found = icl.compare_losses(record(values), record(values * np.float32(1.1)))
    assert_close(found.mean_change.value, 0.1, rtol=1e-6)
    assert found.findings == ("undecided",)


def test_intervals_are_those_of_a_ratio_of_means():
    """By the delta method, in the easiest tenth of A and for the mean of all."""
    values = levels()
    first, second = noisy(values, 1), noisy(values, 2)
    found = icl.compare_losses(record(first), record(second))
    for estimate, chosen in (
        ([part[0, 0, 0] for part in found.change], np.argsort(first)[: COUNT // 10]),
        ([part[0] for part in found.mean_change], np.arange(COUNT)),
    ):
        a, b = first[chosen], second[chosen]
        ratio = b.mean() / a.mean()
        error = np.std(b - ratio * a) / a.mean() / np.sqrt(len(chosen))
        value, low, high = estimate
        assert_close(value, ratio - 1.0, rtol=1e-9)
        assert_close((high - low) / (2 * 1.96), error, rtol=0.12)


def test_the_same_seed_gives_the_same_intervals():
    first, second = record(noisy(levels(), 1)), record(noisy(levels(), 2))
    found = [icl.compare_losses(first, second, seed=seed).contrast.low for seed in (3, 3, 4)]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.all(found[0] != found[2])


def test_common_steps_and_examples_by_their_ids():
    values, order = levels(), np.random.default_rng(9).permutation(COUNT)
    first = record(values, values / 2, values / 4, steps=[0, 10, 30], ids=np.arange(COUNT))
    flat = flatter(values)[order]
    second = record(values[order], flat, flat / 2, steps=[0, 20, 30], ids=order)
    found = icl.compare_losses(first, second)
    assert found.steps.tolist() == [0, 30]
    assert found.findings == ("identical", "less")
    assert found.verdict == "the losses are identical at step 0; B has less simplicity bias than A at step 30"


def test_learning_time_ratios_are_those_of_the_rule():
    pace = np.where(np.arange(200) < 100, 10.0, 40.0)
    steps = np.arange(0, 101, 5)
    first = record(*np.exp(-steps[:, None] / pace), steps=steps)
    second = record(*np.exp(-steps[:, None] / np.sqrt(20 * pace)), steps=steps)
    found = icl.compare_losses(first, second)
    assert_close(found.ratios, [icl.upsample(first).ratio, icl.upsample(second).ratio])
    assert_close(found.ratios, [4.0, 2.0], rtol=0.05)
    alone = icl.compare_losses(record(first.losses[1]), record(second.losses[1]))
    assert np.isnan(alone.ratios).all()


def test_equal_losses_share_a_tenth_in_any_order():
    values = np.repeat([0.0, 1.0, 2.0], [55, 20, 25])
    order = np.random.default_rng(0).permutation(100)
    np.testing.assert_array_equal(tenths_of(values[order]), tenths_of(values)[order])
    assert tenths_of(values)[[0, 60, 99]].tolist() == [2, 6, 8]
    np.testing.assert_array_equal(tenths_of(np.arange(100.0)), np.arange(100) // 10)


def test_tenths_without_loss_are_not_defined():
    values = np.maximum(levels() - 0.4, 0.0)
    found = icl.compare_losses(record(values), record(values * 1.1))
    assert np.isnan(found.change.value[0, 0, 0])
    assert np.isnan(found.contrast.low[0, 0])
    assert found.findings == ("undecided",)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (record(levels()[:-1], ids=range(COUNT - 1)), "B = '3999 examples, with ids': A has 4000, with ids"),
        (record(levels()), "B = '4000 examples': A has 4000, with ids"),
        (record(levels(), ids=range(1, COUNT + 1)), "ids = '0': it and 0 more of 4000"),
        (record(levels(), steps=[5], ids=range(COUNT)), "'0 against 5': none is in both records"),
        (record(levels(), ids=range(COUNT)), "the records are identical at every common step"),
    ],
)
def test_records_that_do_not_go_together(second, said):
    with pytest.raises(InputError, match=said):
        icl.compare_losses(record(levels(), ids=range(COUNT)), second)


def test_examples_with_gaps_are_left_out():
    first, second = levels(), flatter(levels())
    broken = np.where(np.arange(COUNT) < 300, np.nan, second)
    found = icl.compare_losses(record(first), icl.LossRecord([0], broken[None], gaps=True))
    expected = icl.compare_losses(record(first[300:]), record(second[300:]))
    assert found.num_examples == COUNT - 300
    np.testing.assert_array_equal(found.change.low, expected.change.low)


def test_few_examples():
    with pytest.raises(InputError, match="examples = 99: tenths of them need at least 100 without gaps"):
        icl.compare_losses(record(levels()[:99]), record(levels(1)[:99]))
