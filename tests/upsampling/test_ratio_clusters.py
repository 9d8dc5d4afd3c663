"""The selection by ratios of losses: against partitions found by trying all, and within sources of known size."""

import itertools

import numpy as np
import pytest

import icl_theory as icl
from icl_theory.errors import InputError
from icl_theory.upsampling.ratio_clusters import loss_ratios, upper_cluster
from icl_theory.upsampling.settings import RECIPES

RNG = np.random.default_rng(0)


def scatter(rows, upper):
    """Squared distance of points to the mean of their group."""
    return sum(np.sum((rows[group] - rows[group].mean(axis=0)) ** 2) for group in (upper, ~upper) if group.any())


def least_scatter(rows):
    parts = (np.array(part) for part in itertools.product([False, True], repeat=len(rows)))
    return min(scatter(rows, part) for part in parts if part.any() and not part.all())


def test_ratios_that_are_not_finite_count_as_one():
    losses = np.array([[4.0, 2.0, 0.0, 4.0, 4.0], [2.0, 0.0, 0.0, np.nan, np.inf], [1.0, 3.0, 5.0, 1.0, 1.0]])
    record = icl.LossRecord([0, 1, 2], losses, gaps=True)
    expected = [[0.5, 0.5], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    np.testing.assert_array_equal(loss_ratios(record.losses, gaps=record.gaps), expected)


def test_one_ratio_is_parted_at_the_best_of_all_partitions():
    for _ in range(20):
        rows = RNG.lognormal(size=(8, 1))
        upper = upper_cluster(rows)
        assert scatter(rows, upper) <= least_scatter(rows) * (1 + 1e-12)
        assert rows[upper].min() > rows[~upper].max()


def test_several_ratios_are_parted_where_the_clusters_are():
    for count in (2, 4):
        kinds = np.arange(10) % 3 == 0
        rows = np.where(kinds[:, None], 0.9, 0.4) + RNG.uniform(-0.1, 0.1, (10, count))
        np.testing.assert_array_equal(upper_cluster(rows), kinds)
        assert scatter(rows, kinds) <= least_scatter(rows) * (1 + 1e-12)


def test_clusters_that_differ_across_the_mean():
    """A rectangle whose short side lies along the mean: cut there, the iteration stays there."""
    along, across = np.array([0.1, 0.1]), np.array([0.15, -0.14])
    rows = np.array([0.7 + along * i + across * j for i in (-1, 1) for j in (-1, 1)])
    assert upper_cluster(rows).tolist() == [False, True, False, True]
    assert scatter(rows, upper_cluster(rows)) <= least_scatter(rows) * (1 + 1e-12)


def test_order_does_not_matter_and_equal_examples_stay_together():
    rows = RNG.integers(0, 4, (200, 3)) / 4.0
    upper, order = upper_cluster(rows), RNG.permutation(200)
    np.testing.assert_array_equal(upper_cluster(rows[order]), upper[order])
    for point in np.unique(rows, axis=0):
        assert len(set(upper[np.all(rows == point, axis=1)])) == 1


@pytest.mark.parametrize("count", [1, 30])
def test_equal_ratios_have_no_late_group(count):
    losses = np.exp(-np.arange(4.0))[:, None] * RNG.uniform(1, 2, count)
    found = icl.upsample(icl.LossRecord(range(4), losses), late="ratio-clusters", factor=2.0)
    assert not found.late.any()
    assert "the same ratios" in found.why


def sourced():
    """Three sources of 12, 9 and 3 examples; the pace of the second source is slower throughout."""
    by = np.repeat(["a", "b", "c"], [12, 9, 3])
    slow = np.arange(24) % 3 == 0
    pace = np.where(slow, 40.0, 8.0) * np.where(by == "b", 10.0, 1.0)
    return icl.LossRecord([0, 10, 20, 30], np.exp(-np.array([[0], [10], [20], [30]]) / pace)), by, slow


def test_each_source_is_clustered_by_itself_and_small_ones_are_late():
    record, by, slow = sourced()
    settings = {"late": "ratio-clusters", "by": by, "factor": 2.0}
    found = icl.upsample(record, small_sources="cluster", **settings)
    np.testing.assert_array_equal(found.late, slow)
    whole = icl.upsample(record, **settings)
    np.testing.assert_array_equal(whole.late, slow | (by == "c"))
    assert [tuple(source) for source in whole.sources] == [("a", 12, 4, False), ("b", 9, 3, False), ("c", 3, 3, True)]
    mixed = icl.upsample(record, late="ratio-clusters", factor=2.0)
    np.testing.assert_array_equal(mixed.late[by == "b"], True)  # among all examples, the source decides


def test_sources_as_numbers_in_another_order():
    record, by, slow = sourced()
    order = RNG.permutation(24)
    numbers = np.array([{"a": 7, "b": 3, "c": 11}[name] for name in by])
    for late in ("ratio-clusters", "clusters"):
        found = icl.upsample(record.arranged(order), late=late, by=numbers[order], small_sources="cluster", factor=2.0)
        np.testing.assert_array_equal(found.late, slow[order])


def test_a_source_of_average_size_is_not_small():
    record = sourced()[0]
    by = np.arange(24) // 8  # three of eight
    found = icl.upsample(record, late="ratio-clusters", by=by, factor=2.0)
    assert not any(source.small for source in found.sources)


def test_a_source_of_one_example_is_late_or_not_at_all():
    record, by, _ = sourced()
    by = np.where(np.arange(24) == 0, "single", by)
    settings = {"late": "ratio-clusters", "by": by, "factor": 2.0}
    assert icl.upsample(record, **settings).late[0]
    assert not icl.upsample(record, small_sources="cluster", **settings).late[0]


def test_the_first_checkpoints_decide():
    losses = np.array([[1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 0.9, 0.9], [0.5, 0.1, 0.1, 0.1]])
    record = icl.LossRecord([0, 1, 2], losses)
    assert icl.upsample(record, late="ratio-clusters", first=2, factor=2.0).late.tolist() == [False, False, True, True]
    assert icl.upsample(record, late="ratio-clusters", factor=2.0).late.tolist() == [True, False, False, False]
    for late in ("clusters", "ratio-clusters"):
        assert icl.upsample(record, late=late, first=2, factor=2.0).late.tolist() == [False, False, True, True]


def test_the_recipe_as_published():
    record, by, slow = sourced()
    found = icl.upsample(record, by=by, **RECIPES["vattheuer2025"])
    np.testing.assert_array_equal(found.weights, np.where(slow | (by == "c"), 2.0, 1.0))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"first": 5}, "first = 5: the record has 4 checkpoints"),
        ({"first": 1}, "at least 2"),
        ({"by": ["a"] * 23}, "by = '23 of them': give the source of each of 24 examples"),
        ({"by": range(24)}, "every example is a source of its own"),
        ({"by": [None, *["a"] * 23]}, "by = 'none in row 0'"),
        ({"by": np.ones(24)}, "give whole numbers or texts"),
        ({"small_sources": "late"}, "without sources it does nothing"),
        ({"small_sources": "both", "by": ["a"] * 24}, "one of late, cluster"),
        ({"late": "quantile", "first": 2}, "give clusters or ratio-clusters"),
        ({"late": "threshold", "by": ["a"] * 24}, "give clusters or ratio-clusters"),
        ({"late": "ratio-clusters=2"}, "or ratio-clusters"),
    ],
)
def test_settings_that_cannot_be_used(settings, said):
    with pytest.raises(InputError, match=said):
        icl.upsample(sourced()[0], **{"late": "ratio-clusters", "factor": 2.0} | settings)


def test_losses_without_ratios():
    with pytest.raises(InputError, match="a ratio needs two losses"):
        loss_ratios(np.ones((1, 3)))
