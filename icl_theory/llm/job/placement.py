"""Weights of a job on devices or in host memory, and memory that ran out said in one line."""

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
    """The decoder with its weights laid over the devices."""
    graph, params = nnx.split(decoder, nnx.Param)
    return nnx.merge(graph, place_weights(params, mesh))


def in_hosts(decoder: Decoder) -> Decoder:
    """The decoder with its weights in the memory of every host."""
    graph, params = nnx.split(decoder, nnx.Param)
    return nnx.merge(graph, in_host_memory(params))


@contextmanager
def memory_said(remedy: str) -> Iterator[None]:
    """Turn a device that is out of memory into what to do about it."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "ut of memory" in str(error):
            raise InputError("memory", jax.devices()[0].device_kind, f"it does not suffice; {remedy}") from None
        raise
