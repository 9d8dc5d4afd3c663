"""What tests of `icl-theory finetune` share: options of a short run, weights of a saved model."""

import jax
from flax import nnx

from icl_theory.llm.model.checkpoint import load_decoder

QUICK = ["--length", 16, "--batch-size", 4, "--learning-rate", 0.005, "--quiet"]


def weights(folder):
    return jax.tree.leaves(nnx.state(load_decoder(folder), nnx.Param))
