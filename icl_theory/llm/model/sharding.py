"""Fine-tuning laid over devices: rows of a batch over all of them, weights and optimizer state cut over some.

A mesh has two axes. Rows are cut over both. Along `shard` the weights are cut too, gathered where a layer needs them,
and their gradients summed into the cuts; along `data` every device holds the same. Results are those of one device up
to rounding.
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

DATA, SHARD = "data", "shard"
ROWS = (DATA, SHARD)


def make_mesh(shards: int = 1) -> Mesh:
    """All devices, of all hosts, with weights cut over `shards` of them.

    Raises:
        InputError: a number that does not divide that of the devices.
    """
    check_number("shards", shards, minimum=1, integer=True)
    devices = np.asarray(jax.devices())
    if devices.size % shards:
        raise InputError("shards", shards, f"it must divide the number of devices ({devices.size})")
    return Mesh(devices.reshape(-1, shards), (DATA, SHARD))


def shardings(tree: PyTree, mesh: Mesh) -> Any:
    """Return the sharding of each array: cut along its longest axis that can be, else whole on every device."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, cut(np.shape(leaf), mesh.shape[SHARD])), tree)


def cut(shape: tuple[int, ...], shards: int) -> P:
    """The longest axis of an array that `shards` divides, cut; vectors and numbers stay whole."""
    able = [axis for axis, size in enumerate(shape) if size % shards == 0]
    if len(shape) < 2 or shards == 1 or not able:
        return P()
    longest = max(able, key=lambda axis: shape[axis])
    return P(*(SHARD if axis == longest else None for axis in range(len(shape))))


def check_rows(rows: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raise `InputError` where the rows of a part of a batch cannot be shared out evenly."""
    if rows // accumulate % mesh.size:
        remedy = f"its parts ({rows // accumulate} rows) must be a multiple of the {mesh.size} devices"
        raise InputError("batch_size", rows, remedy)


def place(tree: PyTree, where: Any, *, own: bool = False) -> Any:
    """The same arrays, known to every host, where they are to lie; one after the other, so that no device holds more
    than its part and one whole array. With `own` they share no memory with those given."""

    def one(leaf: Any, sharding: Any) -> Any:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding and not own:
            return leaf
        if not sharding.is_fully_addressable:
            whole = np.array(leaf)
            return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])
        return jax.device_put(leaf, sharding, may_alias=False if own else None)

    return jax.tree.map(one, tree, where)


def place_weights(tree: PyTree, mesh: Mesh | None, *, own: bool = False) -> Any:
    """Weights, cut over the mesh; without one whole on the first device."""
    alone = SingleDeviceSharding(jax.local_devices()[0])
    where = jax.tree.map(lambda _: alone, tree) if mesh is None else shardings(tree, mesh)
    return place(tree, where, own=own)


def place_rows(tree: PyTree, mesh: Mesh) -> Any:
    """Arrays whose first axis is that of the rows."""
    return place(tree, jax.tree.map(lambda _: NamedSharding(mesh, P(ROWS)), tree))


def in_host_memory(tree: PyTree) -> Any:
    """The arrays whole, as numpy's, on every host; one after the other."""

    def one(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(one, tree)


def wait_for_all_hosts(name: str) -> None:
    """Wait until every host is here; alone there is no one to wait for."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def decided_by_first_host(value: bool) -> bool:
    """Return the first host's value on all hosts."""
    return value if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def by_rows(array: Any, axis: int = 0) -> Any:
    """Inside a program: the array cut by rows along `axis`, where a mesh of ours is set; else as it is."""
    if DATA not in jax.sharding.get_abstract_mesh().axis_names:
        return array
    return jax.lax.with_sharding_constraint(array, P(*(None,) * axis, ROWS))


def everywhere(array: Any) -> Any:
    """Inside a program: the array whole on every device, where a mesh of ours is set; else as it is."""
    if DATA not in jax.sharding.get_abstract_mesh().axis_names:
        return array
    return jax.lax.with_sharding_constraint(array, P())


def on_mesh(function: Any, mesh: Mesh | None) -> Any:
    """A compiled function that is called with the mesh set."""
    if mesh is None:
        return function

    @wraps(function)
    def call(*arguments: Any) -> Any:
        with jax.set_mesh(mesh):
            return function(*arguments)

    return call
