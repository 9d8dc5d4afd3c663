"""The decoder's two programs: one block in a loop, as on accelerators, and the code of each layer, as on CPUs."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close

from icl_theory.llm.model import decoder
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.model.generate import _greedy, generate

GOLDENS = Path(__file__).parents[1] / "goldens" / "llm"
TOKENS = np.random.default_rng(0).integers(3, 40, (2, 12))


def gradient(model):
    graph, weights = nnx.split(model)
    return jax.jit(jax.grad(lambda theta: (nnx.merge(graph, theta)(TOKENS) ** 2).mean()))(weights)


def text(model):
    graph, weights = nnx.split(model)
    return jax.jit(lambda theta: nnx.merge(graph, theta)(TOKENS)).lower(weights).as_text()


@pytest.mark.parametrize(("family", "remat"), [("llama", False), ("gemma3_text", True), ("phi", False)])
def test_a_loop_over_layers_does_what_their_own_code_does(family, remat, monkeypatch):
    model = load_decoder(GOLDENS / family, remat=remat)
    separate, replies = gradient(model), generate(model, TOKENS.tolist(), max_new=4)
    assert "stablehlo.while" not in text(model)
    monkeypatch.setattr(decoder, "unrolled", lambda: False)
    _greedy.clear_cache()
    assert "stablehlo.while" in text(model)
    jax.tree.map(assert_close, gradient(model), separate)
    assert generate(model, TOKENS.tolist(), max_new=4) == replies
    _greedy.clear_cache()
