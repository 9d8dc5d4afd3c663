"""Errors as they come out of a worker process."""

import pickle

import pytest

from icl_theory.errors import DivergenceError, InputError, Interrupted
from icl_theory.upsampling.row_fields import NothingToLearn

ERRORS = [
    InputError("rho", -1.0, "give at least 0"),
    NothingToLearn("answer"),
    Interrupted("the same command goes on"),
    DivergenceError(step=3, loss=1e9, settings={"learning_rate": 2.0}, last_step=2, params=None),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_a_worker_process_arrives_whole(error):
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)
