"""The loss of language models: mean cross entropy, in nats, of the tokens that are to be learned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def token_losses(logits: Float[Array, "*batch V"], targets: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """`ln Σ_v e^{z_v} − z_target` of each token, in float32."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def example_losses(
    logits: Float[Array, "B T V"], targets: Int[Array, "B T"], learned: Bool[Array, "B T"]
) -> Float[Array, " B"]:
    """Mean over the learned tokens of each row; 0 where there are none."""
    losses = jnp.where(learned, token_losses(logits, targets), 0.0)
    return losses.sum(axis=1) / jnp.maximum(learned.sum(axis=1), 1)
