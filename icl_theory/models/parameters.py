"""Parameters of a model: drawing them, aligning them with features, and splitting them off as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree

from icl_theory.errors import InputError, check_number, check_shape
from icl_theory.numerics.draws import standard_normal
from icl_theory.numerics.tracing import array_module, device_array


def aligned_parameters(strengths: Any, basis: Float[Array | np.ndarray, "D D"] | None = None) -> dict[str, Array]:
    """Balanced parameters of a D-head rank-one `SeparateAttention` in which head d holds feature d alone.

    They are `v_d = u_d` and `k_d = q_d = u_d e_d`, so feature d has strength `w_d = u_d³` (theory notes, §5).

    Args:
        strengths: Amplitude u_d of each head, shape (D,).
        basis: Directions e_d as columns; the coordinate axes by default.

    Returns:
        `{"value": (D,), "key": (D, 1, D), "query": (D, 1, D)}`.
    """
    array = array_module((strengths, basis))
    u = array.asarray(strengths, dtype=float)
    if u.ndim != 1:
        raise InputError("strengths", f"shape {u.shape}", "give one number per feature")
    basis = np.eye(u.shape[0]) if basis is None else array.asarray(basis)
    check_shape("basis", basis, (u.shape[0], u.shape[0]))
    rows = device_array((basis * u).T[:, None, :], float)
    return {"value": device_array(u, float), "key": rows, "query": rows}


def widen_parameters(params: Mapping[str, Any]) -> dict[str, Array]:
    """Parameters of full blocks that make the model of the given ones, those of an attention with reduced blocks.

    Values on x, and keys and queries on y, are zero. Training may move them: with finite data they leave zero.

    Args:
        params: `value` (H,) with `merged` (H, D, D), or with `key` and `query` (H, R, D).

    Returns:
        `value` (H, D+1) with `merged` (H, D+1, D+1), or with `key` and `query` (H, R, D+1).
    """
    array, names = array_module(params), set(params)
    if names not in ({"value", "merged"}, {"value", "key", "query"}) or np.ndim(params["value"]) != 1:
        raise InputError("params", sorted(names), "give those of an attention with reduced blocks")
    sides = {"merged": ((0, 0), (0, 1), (0, 1)), "key": ((0, 0), (0, 0), (0, 1)), "query": ((0, 0), (0, 0), (0, 1))}
    wide = {name: array.pad(array.asarray(params[name]), sides[name]) for name in sorted(names - {"value"})}
    width = next(iter(wide.values())).shape[-1]
    value = array.pad(array.asarray(params["value"])[:, None], ((0, 0), (width - 1, 0)))
    return {name: device_array(leaf) for name, leaf in {"value": value, **wide}.items()}


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef[Any], dict[str, Array]]:
    """Split a module into its static structure and its parameters, a plain dictionary of arrays."""
    graphdef, params = nnx.split(model, nnx.Param)
    return graphdef, nnx.to_pure_dict(params)


def merge_model(graphdef: nnx.GraphDef[Any], params: PyTree) -> Any:
    """Rebuild the module from the structure and parameters that `split_model` returned."""
    return nnx.merge(graphdef, nnx.State(params))


def scale_or_default(field: str, value: Any, default: Any) -> Any:
    check_number("init_scale" if value is None else field, default if value is None else value, minimum=0.0)
    return default if value is None else value


def normal_parameter(key: Any, shape: tuple[int, ...], scale: float | Float[Array, ""]) -> nnx.Param[Any]:
    """Draw a parameter with normal entries of standard deviation `scale`."""
    return nnx.Param(device_array(scale * standard_normal(key, shape), float))
