"""Readings of the arms of language-model studies: paired differences, learning steps, accuracies by kind."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from experiments.language_models.problems import Problems, order, unseen
from experiments.language_models.trainer import Plan, all_arms
from icl_theory.errors import InputError
from icl_theory.llm.evaluation import study
from icl_theory.llm.evaluation.study import bias_of, learning_step, merged, paired


def test_an_order_is_of_whole_epochs():
    found = order(np.array([3, 3, 5]), 8, seed=0)
    assert sorted(found[:3]) == sorted(found[3:6]) == [3, 3, 5]
    assert len(found) == 8
    np.testing.assert_array_equal(found, order(np.array([3, 3, 5]), 8, seed=0))


def test_differences_are_paired_by_seed():
    mean, half = paired(np.array([0.1, 0.3, 0.2]))
    found = ttest_1samp([0.1, 0.3, 0.2], 0).confidence_interval(0.95)
    np.testing.assert_allclose([mean - half, mean + half], found)


class Recorded:
    """A trainer that notes how long each arm is trained, and on what."""

    def __init__(self, plan):
        self.plan, self.runs = plan, []
        self.train = Problems(np.zeros((2, 8, 3)), np.zeros((2, 8, 3)), np.zeros((2, 8)))

    def run(self, sharpness, rho, indices, num_steps, followed=None, draw=0):
        self.runs.append((num_steps, [np.bincount(rows, minlength=8).tolist() for rows in indices]))
        losses = np.exp(-np.arange(9)[:, None] / np.where(np.arange(8) < 4, 1.0, 3.0))
        return {"steps": list(range(9)), "losses": np.stack([losses] * 2)}

    def summary(self, found, picked):
        return {}


def test_arms_at_equal_epochs_take_the_late_twice_and_train_longer():
    trainer = Recorded(Plan("adamw", (0, 1), 80, 1e-3, 4, (0.02,), equal_epochs=True))
    arms = all_arms(trainer)
    assert len(arms) == trainer.plan.num_arms == 10
    found = dict(zip(arms, trainer.runs[1:], strict=True))  # after the pilot run
    assert found["adamw late × 2, equal epochs"] == (120, [[1, 1, 1, 1, 2, 2, 2, 2]] * 2)
    assert found["adamw plain, 1½ × the steps"] == (120, [[1] * 8] * 2)
    assert found["adamw late"][0] == found["adamw plain"][0] == 80


def test_bias_is_read_between_records():
    assert learning_step([0, 10, 20], [1.0, 0.6, 0.2]) == pytest.approx(12.5)
    assert learning_step([0, 10], [1.0, 0.6]) == np.inf
    arm = {"steps": [0, 10, 20], "early": [[1, 0.5, 0.1]] * 2, "late": [[1, 0.9, 0.4], [1, 1, 0.8]]}
    ratios, bounds, progress = bias_of(arm)
    np.testing.assert_allclose(ratios, [1.8, 2.0])
    assert bounds.tolist() == [0, 1]
    np.testing.assert_allclose(progress, [0.1, 0.0], atol=1e-12)


def test_parts_are_put_together():
    parts = [{"a": {"steps": [0, 1], "accuracy": [seed], "by_kind": {"k": [seed]}}} for seed in range(3)]
    assert merged(parts) == {"a": {"steps": [0, 1], "accuracy": [0, 1, 2], "by_kind": {"k": [0, 1, 2]}}}


def test_accuracies_of_kinds_are_shown():
    arm = {"accuracy": [0.5, 0.25], "by_kind": {"a": [1.0, 0.5], "b": [0.0, 0.0]}}
    known = {"accuracy": [0.0, 0.0], "by_kind": {"a": [0.0, 0.0], "b": [0.0, 0.0]}, "by_template": {"all": [0.1, 0.3]}}
    known["by_template"] |= {"a": [0.2, 0.6], "b": [0.0, 0.0]}
    lines = [line.split() for line in study.kinds({"arms": {"adamw plain": arm}, "before": known})]
    assert lines[0] == ["accuracy", "all", "a", "b"]
    assert lines[1] == ["before", "0.000", "0.000", "0.000"]
    assert lines[2][-3:] == ["0.200", "0.400", "0.000"]
    assert lines[3] == ["adamw", "plain", "0.375", "0.750", "0.000"]
    assert len(study.kinds({"arms": {"adamw plain": arm}})) == 2


def test_rates_and_sizes_of_a_plan():
    with pytest.raises(InputError, match="multiple of 40"):
        Plan("adamw", (0,), 50, 1e-3, 8, (0.1,))


def test_unseen_rows_are_those_that_training_lacks():
    known = np.array([[1, 2], [3, 4]])
    assert unseen(np.array([[3, 4], [4, 3], [1, 2]]), known).tolist() == [False, True, False]
