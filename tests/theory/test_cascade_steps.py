"""The program that integrates the cascade."""

import numpy as np
from helpers import compilations

import icl_theory as icl


def test_it_is_compiled_once_however_long_it_runs():
    """The state that one call of the program returns is given to the next."""
    features = icl.find_features(icl.TaskMixture.single([0.5, 0.3, 0.2], num_context=7))
    draw = np.random.default_rng(0)
    heads = (0.01 * draw.normal(size=shape) for shape in ((2,), (2, 3), (2, 3)))
    with compilations() as programs:
        icl.RandomStartCascade(features, *heads).learning_times()
    assert programs.count("jit(_advance)") == 1
