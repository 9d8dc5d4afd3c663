"""The decoder's two programs: one block in a loop, as on accelerators, and the code of each layer, as on CPUs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapters import with_random_adapters
from flax import nnx
from helpers import assert_close

from icl_theory.llm.data.batches import Batch
from icl_theory.llm.model import decoder
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.model.generate import _greedy, generate
from icl_theory.llm.training.step import make_step, start

GOLDENS = Path(__file__).parents[1] / "goldens" / "llm"
TOKENS = np.random.default_rng(0).integers(3, 40, (2, 12))


def gradient(model):
    graph, weights = nnx.split(model)
    return jax.jit(jax.grad(lambda theta: (nnx.merge(graph, theta)(TOKENS) ** 2).mean()))(weights)


def text(model):
    graph, weights = nnx.split(model)
    return jax.jit(lambda theta: nnx.merge(graph, theta)(TOKENS)).lower(weights).as_text()


@pytest.fixture
def looped(monkeypatch):
    """Return a function that makes the decoder loop over its layers."""
    yield lambda: (monkeypatch.setattr(decoder, "unrolled", lambda: False), _greedy.clear_cache())
    _greedy.clear_cache()


@pytest.mark.parametrize(("family", "remat"), [("llama", False), ("gemma3_text", True), ("phi", False)])
def test_a_loop_over_layers_does_what_their_own_code_does(family, remat, looped):
    model = load_decoder(GOLDENS / family, remat=remat)
    separate, replies = gradient(model), generate(model, TOKENS.tolist(), max_new=4)
    assert "stablehlo.while" not in text(model)
    looped()
    assert "stablehlo.while" in text(model)
    jax.tree.map(assert_close, gradient(model), separate)
    assert generate(model, TOKENS.tolist(), max_new=4) == replies


def test_steps_of_adapters_with_dropout_on_packed_rows_are_the_same(looped):
    batch = Batch(jnp.asarray(TOKENS), jnp.ones(TOKENS.shape, bool), jnp.ones(2), jnp.asarray(TOKENS > 20).cumsum(1))
    found = []
    for _ in range(2):
        graph, learner = start(with_random_adapters("llama"), "adamw")
        step = make_step(graph, "adamw", dropout_seed=5)
        learner, seen = step(learner, batch, 0.01, 0.0)
        found.append((seen["gradient_norm"], learner.params))
        looped()
    jax.tree.map(assert_close, *found)
