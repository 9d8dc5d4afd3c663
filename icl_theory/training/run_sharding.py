"""Sharding of the axis of runs over all local devices: each works alone on an equal share of the runs.

`shard_map` gives every device the program that a single device would run on its share, so results do not depend on the
number of devices. Devices exchange nothing and wait for each other only at the end of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

AXIS = "runs"


def runs_mesh() -> Mesh | None:
    """Mesh of all local devices; None if there is only one, or if the session chose one (`jax.default_device`)."""
    if jax.config.jax_default_device is not None or jax.local_device_count() == 1:  # type: ignore[attr-defined]
        return None
    return Mesh(np.asarray(jax.local_devices()), (AXIS,))


def last(tree: PyTree) -> Any:
    """Partition specs of arrays whose last axis is that of the runs."""
    return jax.tree.map(lambda leaf: P(*[None] * (np.ndim(leaf) - 1), AXIS), tree)


def second(tree: PyTree) -> Any:
    """Partition specs of arrays of shape (snapshots, runs, ...)."""
    return jax.tree.map(lambda _: P(None, AXIS), tree)


def is_axis(node: Any) -> bool:
    """Return True if a node is an axis: None (the same for all runs) or an integer."""
    return node is None or isinstance(node, int)


def leading(tree: PyTree, axes: Any) -> Any:
    """Partition specs of `loss` or `track`: leaves with axis 0 are split by runs, all devices hold the others."""
    spec = lambda axis, part: jax.tree.map(lambda _: P() if axis is None else P(AXIS), part)  # noqa: E731
    return jax.tree.map(spec, axes, tree, is_leaf=is_axis)


def everywhere(tree: PyTree) -> Any:
    """Partition specs of arrays that every device holds in full."""
    return jax.tree.map(lambda _: P(), tree)


def shared_out(function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """Wrap a function so that every device runs it on its share of the arguments."""
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def place(tree: PyTree, mesh: Mesh, specs: Any) -> Any:
    """Put arrays on the devices given by their specs, so that a program finds them where it needs them."""
    return jax.tree.map(lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), tree, specs)
