"""The axis of runs laid over all local devices: each takes an equal share of the runs and works on it alone.

`shard_map` hands every device the program that one device would run on that share, so results do not depend on how many
there are. Nothing is exchanged between devices, and none is waited for but at the end of a chunk.
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
    """The local devices in a row; None where there is one, or where the session chose one (`jax.default_device`)."""
    if jax.config.jax_default_device is not None or jax.local_device_count() == 1:  # type: ignore[attr-defined]
        return None
    return Mesh(np.asarray(jax.local_devices()), (AXIS,))


def last(tree: PyTree) -> Any:
    """Specs of arrays whose last axis is that of the runs."""
    return jax.tree.map(lambda leaf: P(*[None] * (np.ndim(leaf) - 1), AXIS), tree)


def second(tree: PyTree) -> Any:
    """Specs of arrays (snapshots, runs, ...)."""
    return jax.tree.map(lambda _: P(None, AXIS), tree)


def is_axis(node: Any) -> bool:
    """Return True for an axis: None (the same for all runs) or a number."""
    return node is None or isinstance(node, int)


def leading(tree: PyTree, axes: Any) -> Any:
    """Specs of a loss, or of what is tracked: the runs come first in the leaves where `axes` is 0, all devices hold the
    others.
    """
    spec = lambda axis, part: jax.tree.map(lambda _: P() if axis is None else P(AXIS), part)  # noqa: E731
    return jax.tree.map(spec, axes, tree, is_leaf=is_axis)


def everywhere(tree: PyTree) -> Any:
    """Specs of what all devices hold."""
    return jax.tree.map(lambda _: P(), tree)


def shared_out(function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """The function, run by every device on its share of the arguments."""
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def place(tree: PyTree, mesh: Mesh, specs: Any) -> Any:
    """The arrays on the devices of their specs, so that a program finds them where it needs them."""
    return jax.tree.map(lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), tree, specs)
