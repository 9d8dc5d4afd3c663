"""Moving the weights of a job between devices and host memory, and a one-line error when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from flax import nnx
from jax.sharding import Mesh

from icl_theory.errors import InputError
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.sharding import in_host_memory, place_weights


def on_devices(decoder: Decoder, mesh: Mesh | None) -> Decoder:
    """Return the decoder with its weights sharded over the mesh, or on the first device without one."""
    graph, params = nnx.split(decoder, nnx.Param)
    return nnx.merge(graph, place_weights(params, mesh))


def in_hosts(decoder: Decoder) -> Decoder:
    """Return the decoder with all its weights in the memory of every host."""
    graph, params = nnx.split(decoder, nnx.Param)
    return nnx.merge(graph, in_host_memory(params))


@contextmanager
def memory_said(remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error into an `InputError` that says what to do about it."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "ut of memory" in str(error):
            raise InputError("memory", jax.devices()[0].device_kind, f"it does not suffice; {remedy}") from None
        raise
