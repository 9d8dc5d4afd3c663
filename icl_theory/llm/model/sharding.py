"""Sharding for fine-tuning: batches are split over all devices, weights and optimizer state over some of them.

A mesh has two axes, and batch rows are split over both. Along `shard`, weights are split too: they are gathered when a
layer needs them, and their gradients are reduced to the shards. Along `data`, every device holds the same weights.
Results equal those of one device up to rounding.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from icl_theory.errors import InputError, check_number
from icl_theory.llm.model.stacking import is_stacked

DATA, SHARD = "data", "shard"
ROWS = (DATA, SHARD)


def make_mesh(shards: int = 1) -> Mesh:
    """Make a mesh of all devices of all hosts, with weights split over `shards` devices.

    Raises:
        InputError: `shards` does not divide the number of devices.
    """
    check_number("shards", shards, minimum=1, integer=True)
    devices = np.asarray(jax.devices())
    if devices.size % shards:
        raise InputError("shards", shards, f"it must divide the number of devices ({devices.size})")
    return Mesh(devices.reshape(-1, shards), (DATA, SHARD))


def shardings(tree: PyTree, mesh: Mesh) -> Any:
    """Return the sharding of each array in a tree, as `cut` chooses it for one layer of the blocks."""

    def one(path: Any, leaf: Any) -> NamedSharding:
        shape, layers = np.shape(leaf), int(is_stacked(path))
        return NamedSharding(mesh, P(*(None,) * layers, *cut(shape[layers:], mesh.shape[SHARD])))

    return jax.tree_util.tree_map_with_path(one, tree)


def cut(shape: tuple[int, ...], shards: int) -> P:
    """Split the longest axis that `shards` divides; if there is none, or for vectors and scalars, do not split."""
    able = [axis for axis, size in enumerate(shape) if size % shards == 0]
    if len(shape) < 2 or shards == 1 or not able:
        return P()
    longest = max(able, key=lambda axis: shape[axis])
    return P(*(SHARD if axis == longest else None for axis in range(len(shape))))


def check_rows(rows: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raise `InputError` if the rows of each accumulated part of a batch cannot be split evenly over the devices."""
    if rows // accumulate % mesh.size:
        remedy = f"its parts ({rows // accumulate} rows) must be a multiple of the {mesh.size} devices"
        raise InputError("batch_size", rows, remedy)


def place(tree: PyTree, where: Any, *, own: bool = False) -> Any:
    """Place arrays, known to every host, as the shardings in `where` say.

    Arrays are moved one by one, so that a device holds at most its part and one whole array. With `own`, the results
    share no memory with the arrays given.
    """

    def one(leaf: Any, sharding: Any) -> Any:
        if isinstance(leaf, jax.Array) and leaf.committed and leaf.sharding == sharding and not own:
            return leaf
        if not sharding.is_fully_addressable:
            whole = np.array(leaf)
            return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])
        return jax.device_put(leaf, sharding, may_alias=False if own else None)

    return jax.tree.map(one, tree, where)


def place_weights(tree: PyTree, mesh: Mesh | None, *, own: bool = False) -> Any:
    """Place weights split over the mesh, or whole on the first device without a mesh."""
    alone = SingleDeviceSharding(jax.local_devices()[0])
    where = jax.tree.map(lambda _: alone, tree) if mesh is None else shardings(tree, mesh)
    return place(tree, where, own=own)


def place_rows(tree: PyTree, mesh: Mesh) -> Any:
    """Place arrays split over all devices along their first axis, the batch rows."""
    return place(tree, jax.tree.map(lambda _: NamedSharding(mesh, P(ROWS)), tree))


def in_host_memory(tree: PyTree) -> Any:
    """Gather the arrays one by one as whole numpy arrays on every host."""

    def one(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(one, tree)


def wait_for_all_hosts(name: str) -> None:
    """Wait until every host reaches this point; a single host does not wait."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def decided_by_first_host(value: bool) -> bool:
    """Return the first host's value on all hosts."""
    return value if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def by_rows(array: Any, axis: int = 0) -> Any:
    """Constrain an array in a compiled function to be split by rows along `axis`; no effect unless our mesh is set."""
    if DATA not in jax.sharding.get_abstract_mesh().axis_names:
        return array
    return jax.lax.with_sharding_constraint(array, P(*(None,) * axis, ROWS))


def everywhere(array: Any) -> Any:
    """Constrain an array in a compiled function to be whole on every device; no effect unless our mesh is set."""
    if DATA not in jax.sharding.get_abstract_mesh().axis_names:
        return array
    return jax.lax.with_sharding_constraint(array, P())


def on_mesh(function: Any, mesh: Mesh | None) -> Any:
    """Wrap a compiled function so that the mesh is set while it is called."""
    if mesh is None:
        return function

    @wraps(function)
    def call(*arguments: Any) -> Any:
        with jax.set_mesh(mesh):
            return function(*arguments)

    return call
