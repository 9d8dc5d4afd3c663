"""Spectra, groups and shares: what they are, and what is refused."""

import jax
import numpy as np
import pytest
from helpers import assert_close

from icl_theory import (
    InputError,
    TaskDistribution,
    TaskMixture,
    linear_spectrum,
    power_law_spectrum,
    random_basis,
    white_spectrum,
)


@pytest.mark.parametrize("spectrum", [linear_spectrum(5), white_spectrum(5), power_law_spectrum(5, 1.3)])
def test_spectra_have_trace_one_and_descend(spectrum):
    assert_close(spectrum.sum(), 1.0)
    assert np.all(np.diff(spectrum) <= 1e-15)


def test_covariance_has_the_spectrum_in_the_basis(key):
    basis = random_basis(key, 3)
    group = TaskDistribution.create([3.0, 2.0, 1.0], num_context=5, basis=basis, task_eigenvalues=[1.0, 2.0, 3.0])
    assert_close(basis.T @ basis, np.eye(3))
    assert_close(basis.T @ group.covariance @ basis, np.diag([3.0, 2.0, 1.0]))
    assert_close(basis.T @ group.task_covariance @ basis, np.diag([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("eigenvalues", {"eigenvalues": [1.0, -0.1]}),
        ("eigenvalues", {"eigenvalues": [1.0, float("nan")]}),
        ("eigenvalues", {"eigenvalues": [[1.0]]}),
        ("eigenvalues", {"eigenvalues": []}),
        ("eigenvalues", {"eigenvalues": ["a"]}),
        ("task_eigenvalues", {"task_eigenvalues": [1.0, -1.0]}),
        ("task_eigenvalues", {"task_eigenvalues": [1.0]}),
        ("num_context", {"num_context": 0}),
        ("num_context", {"num_context": 2.5}),
        ("noise_std", {"noise_std": -1.0}),
        ("noise_std", {"noise_std": float("nan")}),
        ("basis", {"basis": np.eye(3)}),
        ("task_mean", {"task_mean": np.zeros(3)}),
        ("basis", {"basis": 2.0 * np.eye(2)}),
        ("eigenvalues", {"eigenvalues": [0.0, 0.0]}),
    ],
)
def test_bad_groups_are_refused_by_field_name(field, settings):
    arguments = {"eigenvalues": [1.0, 0.5], "num_context": 4} | settings
    with pytest.raises(InputError) as error:
        TaskDistribution.create(arguments.pop("eigenvalues"), **arguments)
    assert error.value.field == field
    assert error.value.remedy


@pytest.mark.parametrize("shares", [[0.5, 0.6], [1.5, -0.5], [1.0], [float("nan"), 1.0]])
def test_shares_must_be_a_distribution(shares):
    group = TaskDistribution.create([1.0], num_context=4)
    with pytest.raises(InputError, match="shares"):
        TaskMixture.create([group, group], shares)


def test_groups_of_different_dimension_are_refused():
    groups = [TaskDistribution.create([1.0] * dim, num_context=4) for dim in (1, 2)]
    with pytest.raises(InputError, match="dimension"):
        TaskMixture.create(groups, [0.5, 0.5])
    with pytest.raises(InputError, match="groups"):
        TaskMixture.create([], [])


def test_upsampling_reweights_and_refuses_bad_factors():
    group = TaskDistribution.create([1.0], num_context=4)
    mixture = TaskMixture.create([group, group], [0.8, 0.2])
    assert_close(mixture.upsampled([1.0, 4.0]).shares, [0.5, 0.5])
    for factors in ([-1.0, 1.0], [0.0, 0.0], [1.0]):
        with pytest.raises(InputError, match="factors"):
            mixture.upsampled(factors)


def test_fixed_task_splits_every_group(mixture):
    vector = np.arange(4.0)
    split = mixture.with_fixed_task(0.25, vector)
    assert_close(split.shares, [0.75, 0.25])
    assert_close(split.groups[1].task_second_moment, np.outer(vector, vector))
    with pytest.raises(InputError, match="share"):
        mixture.with_fixed_task(1.5, vector)


def test_importing_does_not_change_precision():
    code = "import jax, icl_theory; assert not jax.config.jax_enable_x64; print('single')"
    import subprocess
    import sys

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "single"
    assert jax.config.jax_enable_x64
