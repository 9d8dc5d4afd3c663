"""Late and early groups from losses alone."""

import ast
from pathlib import Path

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close

from icl_theory import (
    InputError,
    example_learning_times,
    late_by_clustering,
    late_by_quantile,
    late_by_threshold,
    relative_losses,
    trajectory_clusters,
)

PACKAGE = Path(__file__).parents[2] / "icl_theory"
TIME = np.arange(5.0)
# An early example, a late one, one that never learns, one that no model can fit, one whose loss only rises.
LOSSES = np.asarray(
    [
        [4.0, 4.0, 4.0, 4.0, 1.0],
        [1.0, 4.0, 4.0, 3.5, 2.0],
        [0.0, 3.0, 4.0, 3.0, 2.0],
        [0.0, 1.0, 4.0, 3.0, 2.0],
        [0.0, 0.0, 4.0, 3.0, 2.0],
    ]
)


@pytest.mark.parametrize("module", ["upsampling/lateness.py", "upsampling/factor.py", "analysis/learning_times.py"])
def test_the_rule_depends_on_no_simulator(module):
    tree = ast.parse((PACKAGE / module).read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert found <= {"__future__", "typing", "numpy", "scipy.cluster.vq", "jaxtyping", "icl_theory.errors"} | {
        "icl_theory.upsampling.lateness",
        "icl_theory.analysis.learning_times",
    }


def test_learning_times_without_a_floor():
    assert_close(example_learning_times(TIME, LOSSES)[:2], [2 / 3, 2.5])
    assert np.isinf(example_learning_times(TIME, LOSSES)[2:]).all()


def test_a_loss_that_no_model_removes_is_not_late_against_its_own_floor():
    times = example_learning_times(TIME, LOSSES, floor=LOSSES[-1])
    assert_close(times[[0, 1, 3]], [2 / 3, 2.5, 1.0])
    assert times[4] == 0  # nothing to learn
    assert times[2] == 0  # a floor at its start says the same
    floor = np.asarray([0.0, 0.0, 0.0, 3.0, 2.0])
    assert example_learning_times(TIME, LOSSES, floor=floor)[2] == np.inf


def test_nothing_to_learn_is_time_zero_whenever_recording_began():
    times = example_learning_times(TIME + 10.0, LOSSES, floor=LOSSES[-1])
    assert times[4] == 0
    assert_close(times[0], 10.0 + 2.0 / 3.0)


def test_relative_losses_of_many_runs():
    many = np.stack([LOSSES, 2.0 * LOSSES])
    relative = relative_losses(many)
    assert_close(relative[0], relative[1])
    assert (relative[:, 0] == 1).all()
    assert_close(relative_losses(jnp.asarray(LOSSES)), relative[0])


def test_the_three_rules_agree_where_it_is_clear():
    rng = np.random.default_rng(0)
    rate = np.where(np.arange(200) < 130, 2.0, 0.2) * rng.uniform(0.9, 1.1, 200)
    losses = rng.uniform(0.5, 2.0, 200) * np.exp(-np.linspace(0.0, 4.0, 30)[:, None] * rate)
    slow = np.arange(200) >= 130
    times = example_learning_times(np.linspace(0.0, 4.0, 30), losses)
    assert (late_by_clustering(losses) == slow).all()
    assert (late_by_threshold(losses, threshold=0.3) == slow).all()
    assert (late_by_quantile(times, quantile=0.65) == slow).all()
    found = trajectory_clusters(losses)
    assert found.centres.shape == (2, 30)
    assert found.centres[1].mean() > found.centres[0].mean()
    assert found.distance.max() < 0.2


def test_threshold_looks_where_it_is_told():
    assert late_by_threshold(LOSSES, checkpoint=1).tolist() == [False, True, True, True, True]
    assert late_by_threshold(LOSSES).tolist() == [False, False, True, True, True]
    assert late_by_threshold(LOSSES, floor=LOSSES[-1]).tolist() == [False] * 5


def test_at_the_threshold_an_example_is_learned():
    """Equality counts as learned everywhere; halves and quarters are exact."""
    losses = np.asarray([[1.0, 1.0, 1.0], [0.5, 0.75, 0.5], [0.5, 0.5, 0.75]])
    assert late_by_threshold(losses, threshold=0.5).tolist() == [False, False, True]
    assert late_by_threshold(losses, threshold=0.5, checkpoint=1).tolist() == [False, True, False]
    assert_close(example_learning_times(np.arange(3.0), losses), [1.0, 2.0, 1.0])


def test_of_two_cuts_equally_near_the_smaller_late_group():
    """Also where rounding of the shares would tell the two apart, as with 29 examples (15/29 and 14/29 late)."""
    for count in range(3, 60, 2):
        assert late_by_quantile(np.arange(1.0, count + 1)).sum() == count // 2
    assert late_by_quantile(np.arange(1.0, 5.0), quantile=0.375).sum() == 2
    assert late_by_quantile(np.arange(1.0, 6.0), quantile=0.7).sum() == 1


def test_quantile_does_not_part_times_that_differ_by_rounding():
    times = np.asarray([1.0, 1.0 + 1e-15, 1.0 + 1e-12, 2.0, 2.0 + 1e-11, 5.0])
    for quantile in np.linspace(0.0, 1.0, 11):
        assert late_by_quantile(times, quantile=quantile).sum() in (1, 3)


def test_quantile_never_parts_equal_times():
    assert late_by_quantile(np.asarray([1.0, 1.0, 1.0, 5.0])).tolist() == [False, False, False, True]
    assert late_by_quantile(np.asarray([1.0, 5.0, 5.0, 5.0])).tolist() == [False, True, True, True]
    assert not late_by_quantile(np.full(4, 3.0)).any()
    assert not late_by_quantile(np.full(4, np.inf)).any()
    assert late_by_quantile(np.asarray([1.0, np.inf, np.inf])).tolist() == [False, True, True]
    # 1 of 3 or 2 of 3 late are equally near to a half: the smaller group.
    assert late_by_quantile(np.asarray([1.0, 2.0, 3.0])).sum() == 1


@hypothesis.given(
    hypothesis.extra.numpy.arrays(float, st.integers(1, 30), elements=st.sampled_from([0.0, 1.0, 2.0, 3.5, np.inf])),
    st.floats(0.0, 1.0),
)
def test_quantile_cuts_between_values_nearest_to_what_was_asked(times, quantile):
    late = late_by_quantile(times, quantile=quantile)
    learns = times > 0
    assert not late[~learns].any()
    if late.any():
        assert times[late].min() > times[learns & ~late].max()
        shares = [np.mean(times[learns] > value) for value in np.unique(times[learns])[:-1]]
        assert abs(late[learns].mean() - (1 - quantile)) <= min(abs(share - (1 - quantile)) for share in shares) + 1e-12
    else:
        assert len(np.unique(times[learns])) <= 1


@hypothesis.given(st.randoms(use_true_random=False))
def test_groups_follow_their_examples(random):
    rng = np.random.default_rng(random.randrange(1000))
    losses = rng.uniform(size=(6, 40)) * np.linspace(1.0, 0.05, 6)[:, None] ** rng.uniform(0.2, 3.0, 40)
    order = rng.permutation(40)
    for rule in (late_by_threshold, late_by_clustering, lambda x: late_by_quantile(example_learning_times(TIME6, x))):
        assert (rule(losses)[order] == rule(losses[:, order])).all()
        assert (rule(3.0 * losses) == rule(losses)).all()


TIME6 = np.arange(6.0)


def test_examples_that_are_all_alike_have_no_late_group():
    assert not late_by_clustering(np.ones((3, 5))).any()
    assert not trajectory_clusters(np.zeros((3, 5))).late.any()


def test_clusters_against_each_floor_find_those_that_fall_late():
    """Some have hardly anything to lose: their relative losses are huge and must not make the clusters."""
    rng = np.random.default_rng(1)
    time = np.linspace(0.0, 1.0, 20)[:, None]
    when = np.where(np.arange(100) < 60, 0.3, 0.7) + rng.uniform(-0.05, 0.05, 100)
    losses = 1.0 + 1.0 / (1.0 + np.exp((time - when) / 0.05))
    losses[:, 98:] = 1.0 + 0.3 * rng.uniform(size=(20, 2))
    losses[-1, 98:] = losses[0, 98:] - 1e-4
    late = late_by_clustering(losses, floor=losses[-1])
    assert (late[:98] == (np.arange(98) >= 60)).all()


def test_one_explosion_does_not_make_a_cluster():
    losses = np.stack(
        [np.linspace(1.0, 0.1, 10)] * 5 + [np.linspace(1.0, 0.8, 10)] * 4 + [np.geomspace(1.0, 1e6, 10)], 1
    )
    assert late_by_clustering(losses).sum() == 5


@pytest.mark.parametrize(
    ("field", "call"),
    [
        (r"losses\[1, 2\] = nan", lambda: relative_losses(np.asarray([[1.0, 1.0, 1.0], [1.0, 1.0, np.nan]]))),
        (r"losses\[0, 0\] = -1", lambda: relative_losses(-np.ones((2, 2)))),
        ("losses = 'shape", lambda: relative_losses(np.ones((2, 0)))),
        ("floor = 'shape", lambda: relative_losses(LOSSES, floor=np.ones(3))),
        ("floor = 'NaN", lambda: relative_losses(LOSSES, floor=np.nan)),
        (r"losses\[0, 0\] = inf", lambda: relative_losses(np.full((2, 2), np.inf))),
        ("floor", lambda: relative_losses(LOSSES, floor=np.ones((2, 5)))),
        ("time", lambda: example_learning_times(TIME[::-1], LOSSES)),
        ("time", lambda: example_learning_times(np.full(5, np.nan), LOSSES)),
        ("checkpoint", lambda: late_by_threshold(LOSSES, checkpoint=7)),
        (r"times\[0\]", lambda: late_by_quantile(-np.ones(2))),
        ("remaining", lambda: example_learning_times(TIME, LOSSES, remaining=1.0)),
        ("fraction", lambda: example_learning_times(TIME[:-1], LOSSES)),
        ("threshold", lambda: late_by_threshold(LOSSES, threshold=1.5)),
        ("checkpoint", lambda: late_by_threshold(LOSSES, checkpoint=5)),
        ("floor", lambda: relative_losses(LOSSES, floor=np.asarray(["a"] * 5))),
        ("quantile", lambda: late_by_quantile(np.ones(3), quantile=-0.1)),
        (r"times\[1\]", lambda: late_by_quantile(np.asarray([1.0, np.nan]))),
        ("times", lambda: late_by_quantile(np.ones(0))),
    ],
)
def test_bad_input_is_named(field, call):
    with pytest.raises(InputError, match=field):
        call()
