"""The optimizer step is compiled once: the learner at its start is placed as the one that a step returns."""

import numpy as np
import pytest
from helpers import compilations
from tiny_model import write_tiny_model

from icl_theory.llm.data.batches import Batch
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.training.step import begin, make_step


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_second_step_is_not_compiled_anew(tmp_path, optimizer):
    graph, learner = begin(load_decoder(write_tiny_model(tmp_path / "model")), optimizer)
    step = make_step(graph, optimizer)
    batch = Batch(np.ones((2, 8), np.int32), np.ones((2, 8), bool), np.ones(2, np.float32))
    with compilations() as programs:
        for _ in range(2):
            learner, _ = step(learner, batch, 1e-3, 0.0)
    assert programs.count("jit(step)") == 1
