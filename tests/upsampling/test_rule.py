"""The rule on records whose learning times are known, and what samplers of other trainers make of its weights."""

import datasets
import grain
import numpy as np
import pytest
from helpers import assert_close

import icl_theory as icl
from icl_theory.errors import InputError
from icl_theory.upsampling.groups import group_centres
from icl_theory.upsampling.noise_scale import sparse
from icl_theory.upsampling.settings import parse_late

EARLY, LATE, COUNT = 40.0, 160.0, 60
STEPS = np.arange(0.0, 401.0, 5.0)


def falling(half_times, steps=STEPS, start=2.0):
    """Losses that fall along straight lines and are half of the start at the half times."""
    half_times = np.asarray(half_times, dtype=float)
    return start * np.clip(1.0 - steps[:, None] / (2.0 * half_times), 0.0, None)


def two_kinds(late=LATE, count=COUNT, share=0.5):
    """Early and late examples, alternating, spread by ±5 % about their medians."""
    spread = np.linspace(0.95, 1.05, count // 2 + 1 - count // 2 % 2)[: count // 2]
    kinds = np.empty(count)
    kinds[::2], kinds[1::2] = EARLY * spread, late * spread
    return icl.LossRecord(STEPS, falling(kinds)), np.arange(count) % 2 == 1


def test_factor_is_the_measured_ratio_over_the_target():
    record, late = two_kinds()
    found = icl.upsample(record, target=2.0)
    np.testing.assert_array_equal(found.late, late)
    assert_close(found.ratio, LATE / EARLY, rtol=0.02)
    assert_close(found.factor, found.ratio / 2.0)
    np.testing.assert_array_equal(found.weights, np.where(late, found.factor, 1.0))


@pytest.mark.parametrize("floor", ["zero", "last"])
@pytest.mark.parametrize("method", ["quantile", "quantile=0.5", "clusters", "threshold=0.3"])
def test_every_way_finds_the_late(method, floor):
    kinds = np.where(np.arange(COUNT) % 2 == 1, 150.0, 30.0)
    steps = np.arange(0.0, 121.0, 5.0) if method.startswith("threshold") else STEPS
    record = icl.LossRecord(steps, falling(kinds, steps))
    if method.startswith("threshold") and floor == "last":
        with pytest.raises(InputError, match="no threshold parts it"):
            icl.upsample(record, late=method, floor=floor)
        return
    np.testing.assert_array_equal(icl.upsample(record, late=method, floor=floor).late, kinds == 150.0)


def test_loss_that_nothing_removes_is_not_late_above_its_floor():
    record, late = two_kinds()
    noise = np.where(np.arange(COUNT) < 10, 3.0, 0.0)
    noisy = icl.LossRecord(STEPS, record.losses + noise)
    np.testing.assert_array_equal(icl.upsample(noisy, floor=noise).late, late)
    assert icl.upsample(noisy).late[:10].all()  # with floor zero they look as if never learned


def test_match_takes_the_ratio_of_the_other_record():
    record, _ = two_kinds()
    sharp, _ = two_kinds(late=80.0)
    found = icl.upsample(record, rule="match", other=sharp)
    assert_close(found.factor, icl.upsample(record).ratio / icl.upsample(sharp).ratio)


def test_secant_finds_the_factor_where_the_ratio_is_linear_in_its_inverse():
    record, _ = two_kinds(late=160.0)
    tried, rest = 2.0, 30.0
    achieved, _ = two_kinds(late=rest + (160.0 - rest) / tried)
    given = {"rule": "secant", "other": achieved, "tried_factor": tried, "max_factor": 100.0}
    early = 160.0 / icl.upsample(record).ratio
    assert_close(icl.upsample(record, **given).factor, (160.0 - rest) / (early - rest), rtol=0.02)
    with pytest.raises(InputError, match="the line through both ratios ends above it"):
        icl.upsample(two_kinds(late=160.0)[0], **given | {"other": two_kinds(late=140.0)[0]})


def test_excess_divides_what_the_ratio_exceeds_one_by():
    record, _ = two_kinds()
    found = icl.upsample(record, rule="excess", target=1.5, max_factor=100.0)
    assert_close(found.factor, (found.ratio - 1.0) / 0.5)
    assert "(R − 1) / (target − 1)" in found.why
    assert icl.upsample(record, rule="excess", target=found.ratio + 1.0).factor == 1.0


def test_a_rule_is_limited_and_says_so():
    found = icl.upsample(two_kinds()[0], max_factor=1.5)
    assert found.factor == 1.5
    assert "limited to 1.5" in found.why


def test_where_the_late_are_soon_enough_nothing_is_upsampled():
    found = icl.upsample(two_kinds()[0], target=10.0)
    assert found.factor == 1.0
    assert "soon enough" in found.why
    np.testing.assert_array_equal(found.copies(), 1)


@pytest.mark.parametrize(
    ("half_times", "settings", "said"),
    [
        ([50.0] * 6, {}, "all examples are learned at once"),
        ([1e6] * 6, {}, "no example is learned by the last checkpoint"),
        ([300.0] * 6, {"late": "threshold=0.1"}, "all examples count as late"),
    ],
)
def test_without_two_groups_the_factor_is_one(half_times, settings, said):
    found = icl.upsample(icl.LossRecord(STEPS, falling(half_times)), **settings)
    assert found.factor == 1.0
    assert said in found.why
    np.testing.assert_array_equal(found.indices(), np.arange(6))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["quantile", "clusters"])
def test_rounding_makes_no_late_group(dtype, method):
    """One course of learning, each example with a scale of its own: relative losses agree to rounding only."""
    scales = np.random.default_rng(0).uniform(0.5, 3.0, COUNT)
    losses = (np.exp(-STEPS / 70.0)[:, None] * scales).astype(dtype)
    found = icl.upsample(icl.LossRecord(STEPS, losses), late=method, factor=4.0)
    assert not found.late.any()
    assert found.factor == 1.0


def test_rounding_does_not_part_equal_times():
    kinds = np.where(np.arange(COUNT) < 20, EARLY, LATE)
    losses = falling(kinds) * np.random.default_rng(0).uniform(0.5, 3.0, COUNT)
    np.testing.assert_array_equal(icl.upsample(icl.LossRecord(STEPS, losses)).late, kinds == LATE)


@pytest.mark.parametrize("late", ["clusters", "threshold=0.8"])
def test_a_ratio_to_what_was_never_learned_is_none(late):
    slow = 1.0 - np.where(np.arange(COUNT) % 2, 0.05, 0.3) * (STEPS / STEPS[-1])[:, None]
    with pytest.raises(InputError, match="median of the early"):
        icl.upsample(icl.LossRecord(STEPS, slow), late=late)
    record, _ = two_kinds()
    with pytest.raises(InputError, match="median of the early"):
        icl.upsample(record, rule="match", other=icl.LossRecord(STEPS, slow))


def test_a_bound_on_the_other_ratio_is_called_so():
    record, _ = two_kinds()
    other, _ = two_kinds(late=1e5)
    assert "at least" in icl.upsample(record, rule="match", other=other).why


def test_the_other_record_is_matched_by_its_ids():
    record, _ = two_kinds()
    ids = [f"example {row}" for row in range(COUNT)]
    order = np.random.default_rng(0).permutation(COUNT)
    named = icl.LossRecord(record.steps, record.losses, ids)
    other = two_kinds(late=80.0)[0].losses
    shuffled = icl.LossRecord(record.steps, other[:, order], [ids[row] for row in order])
    expected = icl.upsample(record, rule="match", other=icl.LossRecord(record.steps, other)).factor
    assert icl.upsample(named, rule="match", other=shuffled).factor == expected
    with pytest.raises(InputError, match="with ids if these have some"):
        icl.upsample(named, rule="match", other=icl.LossRecord(record.steps, other))


def test_what_is_found_follows_the_ids_of_the_data():
    record, late = two_kinds()
    ids = [f"example {row}" for row in range(COUNT)]
    order = np.random.default_rng(0).permutation(COUNT)
    named = icl.LossRecord(record.steps, record.losses, ids).for_ids([ids[row] for row in order])
    np.testing.assert_array_equal(icl.upsample(named).late, late[order])
    assert named.ids.to_pylist() == [ids[row] for row in order]
    with pytest.raises(InputError, match="names no examples"):
        record.for_ids(ids)


def test_no_loss_at_all_is_nothing_to_learn():
    assert "had anything to learn" in icl.upsample(icl.LossRecord([0, 1], np.zeros((2, 3)))).why


def test_never_learned_counts_as_the_last_step():
    record = icl.LossRecord(STEPS, falling([40.0, 40.0, 1e6, 1e6]))
    assert_close(icl.upsample(record).ratio, STEPS[-1] / 40.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"late": "median"}, "give quantile=Q"),
        ({"late": "clusters=2"}, "give quantile=Q"),
        ({"late": "quantile=x"}, "quantile=NUMBER"),
        ({"late": "quantile=1.5"}, "at most 1"),
        ({"rule": "sam"}, "give one of ratio"),
        ({"group": "all"}, "give one of late"),
        ({"rule": "match"}, "the rule match needs it"),
        ({"rule": "match", "target": 2.0}, "the rule match does not use it"),
        ({"rule": "excess"}, "the rule excess needs it"),
        ({"rule": "excess", "target": 1.0}, "greater than 1"),
        ({"rule": "secant", "tried_factor": 2.0}, "the rule secant needs it"),
        ({"tried_factor": 2.0}, "the rule ratio does not use it"),
        ({"factor": 2.0, "target": 1.5}, "target does nothing"),
        ({"factor": 0.5}, "at least 1"),
        ({"target": 0.0}, "at least 1"),
        ({"max_factor": 0.5}, "at least 1"),
        ({"remaining": 1.0}, "give less than 1"),
        ({"floor": "none"}, "give one of zero, last"),
        ({"floor": np.zeros(3)}, "give 60 finite numbers"),
        (
            {"optimizer": "sgd", "noise": sparse(0.5, COUNT)._replace(counts=np.zeros(2))},
            "positive numbers of examples",
        ),
    ],
)
def test_bad_settings_are_refused_in_words(settings, said):
    with pytest.raises(InputError) as error:
        icl.upsample(two_kinds()[0], **settings)
    assert said in str(error.value)


def test_a_single_checkpoint_is_refused():
    with pytest.raises(InputError, match="needs at least two"):
        icl.upsample(icl.LossRecord([0], [[1.0, 2.0]]))


def test_a_ratio_that_cannot_be_measured_asks_for_the_factor():
    losses = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.2, 0.2], [0.0, 0.0, 0.1, 0.1]])
    record = icl.LossRecord([0, 1, 2], losses)
    floor = np.array([0.0, 0.0, 1.0, 1.0])  # the early have nothing to learn
    with pytest.raises(InputError, match="or give the factor"):
        icl.upsample(record, late="clusters", floor=floor)
    found = icl.upsample(record, late="clusters", floor=floor, factor=2.0)
    assert np.isnan(found.ratio)
    assert found.factor == 2.0


def test_controls_have_the_size_of_the_late():
    record, late = two_kinds()
    for group in ("random", "early"):
        found = icl.upsample(record, factor=2.0, group=group, seed=3)
        assert found.chosen.sum() == late.sum()
        np.testing.assert_array_equal(found.late, late)
    np.testing.assert_array_equal(icl.upsample(record, factor=2.0, group="early").chosen, ~late)


def test_the_chunks_change_nothing(monkeypatch):
    record, _ = two_kinds()
    whole = [icl.upsample(record, late=late) for late in ("quantile", "threshold=0.01", "clusters")]
    centres, distance = group_centres(record, whole[0])
    for module in ("icl_theory.upsampling.loss_record", "icl_theory.upsampling.lateness"):
        monkeypatch.setattr(f"{module}.CHUNK", 7)
    for expected, late in zip(whole, ("quantile", "threshold=0.01", "clusters"), strict=True):
        found = icl.upsample(record, late=late)
        np.testing.assert_array_equal(found.weights, expected.weights)
    again = group_centres(record, whole[0])
    assert_close(again[0], centres)
    assert_close(again[1], distance)


def test_copies_weights_and_indices_agree():
    found = icl.upsample(two_kinds()[0], factor=2.3)
    copies = found.copies(seed=1)
    assert copies[found.late].sum() == round(2.3 * found.late.sum())
    np.testing.assert_array_equal(np.bincount(found.indices(seed=1)), copies)
    assert_close(copies[found.late].mean(), found.weights[found.late].mean())
    np.testing.assert_array_equal(found.copies(seed=1), copies)
    assert (found.copies(seed=2) != copies).any()


def test_late_settings_have_defaults():
    assert parse_late("quantile") == ("quantile", 0.5)
    assert parse_late("threshold=0.25") == ("threshold", 0.25)


def test_a_selection_of_datasets():
    found = icl.upsample(two_kinds()[0], factor=2.5)
    rows = datasets.Dataset.from_list([{"question": f"{row} + 1?", "answer": str(row + 1)} for row in range(COUNT)])
    chosen = rows.select(found.indices())
    expected = [f"{row} + 1?" for row, often in enumerate(found.copies()) for _ in range(often)]
    assert chosen["question"][:] == expected


def test_grain_reads_the_indices():
    found = icl.upsample(two_kinds()[0], factor=2.5)
    read = grain.MapDataset.source(found.indices()).shuffle(seed=0).map(lambda row: int(row))
    np.testing.assert_array_equal(np.bincount(list(read)), found.copies())


def test_grain_mixes_by_the_weights():
    found = icl.upsample(two_kinds()[0], factor=3.0)
    parts = [np.flatnonzero(~found.late), np.flatnonzero(found.late)]
    mixed = grain.MapDataset.mix(
        [grain.MapDataset.source(part).shuffle(seed=0).repeat() for part in parts],
        weights=[found.weights[part].sum() for part in parts],
    )
    drawn = np.array([int(mixed[place]) for place in range(4000)])
    assert_close(found.late[drawn].mean(), 0.75, rtol=0.01)
