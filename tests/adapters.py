"""Models with adapters of random numbers, for tests and for their golden files."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.model.lora import Lora, adapted, linears

GOLDENS = Path(__file__).parent / "goldens" / "llm"
LORA = {
    "llama": Lora(3, alpha=5.0, dropout=0.25, matrices=("query", "value", "down")),
    "phi": Lora(2, alpha=4.0, matrices=("key", "output", "up")),
    "phi3": Lora(2, alpha=3.0, matrices=("query", "value", "up", "down")),
}


def with_random_adapters(family):
    """A golden model with adapters whose two matrices are both random."""
    model = adapted(load_decoder(GOLDENS / family), LORA[family])
    random = np.random.default_rng(3)
    for layer in range(model.config.num_layers):
        for _, linear in linears(model):
            if linear.adapter is not None:
                for part in (linear.adapter.a, linear.adapter.b):
                    drawn = 0.3 * random.normal(size=part.shape[1:])
                    part[...] = part[...].at[layer].set(jnp.asarray(drawn, jnp.float32))
    return model


def tokens():
    return np.random.default_rng(4).integers(3, 40, (2, 9))
