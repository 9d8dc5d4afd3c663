"""Parameters of a model: drawing them, aligning them with features, and splitting them off as plain arrays."""

from __future__ import annotations

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
