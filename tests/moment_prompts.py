"""Prompts of two groups and models in the features of linear attention, for tests of moments."""

import jax
import jax.numpy as jnp
from flax import nnx

from icl_theory import (
    CubicFeatureMLP,
    MergedAttention,
    SeparateAttention,
    TaskDistribution,
    TaskMixture,
    sample_prompts,
)

DIM = 3
GROUPS = TaskMixture.create(
    [
        TaskDistribution.create([0.5, 0.3, 0.2], num_context=6, noise_std=0.3),
        TaskDistribution.create([0.2, 0.3, 0.5], num_context=4, count_query=True),
    ],
    [0.6, 0.4],
).with_fixed_task(0.3, [0.5, -1.0, 0.2])
PROMPTS = sample_prompts(GROUPS, 60, key=jax.random.key(1))
WEIGHTED = PROMPTS._replace(weight=jnp.linspace(0.0, 3.0, 60))
MODELS = {
    "merged": lambda **s: MergedAttention(DIM, 4, **s),
    "rank 1": lambda **s: SeparateAttention(DIM, 4, **s),
    "rank 2": lambda **s: SeparateAttention(DIM, 3, rank=2, **s),
    "mlp": lambda **s: CubicFeatureMLP(DIM, 4, **s),
}


def make(name, blocks="reduced", scale=0.3):
    settings = {"init_scale": scale, "rngs": nnx.Rngs(0)}
    return MODELS[name](**settings) if name == "mlp" else MODELS[name](**settings, blocks=blocks)
