"""Models with the weights of ZSLS25's code (arXiv 2501.16265), which does not divide by the length of the context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from icl_theory.errors import InputError, as_floats, check_number
from icl_theory.models.attention import MergedAttention, SeparateAttention
from icl_theory.models.cubic_mlp import CubicFeatureMLP
from icl_theory.models.parameters import merge_model, split_model

KINDS = {  # by the names of the weights besides the values: the number of factors in a prediction
    ("key.weight", "query.weight", "value.weight"): 3,
    ("kq.weight", "value.weight"): 2,
    ("fc1.weight", "fc2.weight"): 2,
}


def from_zsls25(
    weights: Mapping[str, Any], learning_rate: float, *, num_context: int | None, scores: str = "linear"
) -> tuple[nnx.Module, float]:
    """Build the model, and the learning rate, whose training is that of ZSLS25's code from the given weights.

    There sums over tokens are not divided by N, so a prediction is N times ours. It is a product of m weights (m = 3
    with separate keys and queries, else 2), so weights `N^(1/m) θ` make it ours, and gradient descent keeps that factor
    at the learning rate `N^(2/m) η`.

    Args:
        weights: The `state_dict()` of the code's model with one output, as arrays. Attention gets `blocks="full"`; the
            rows of the value matrices that reach no output are dropped.
        learning_rate: The rate η there.
        num_context: N, one less than `--seq_len`. None for runs with `--vary_len`, which divide by all N + 1 tokens:
            they are trained on prompts with `count_query`, their weights and rate are ours. None for softmax too,
            which divides by nothing (without `--vary_len`).
        scores: `"softmax"` for runs with `--softmax`.

    Returns:
        `(model, learning_rate)`, for `make_loss` and `train`.

    Raises:
        InputError: Names or shapes fit no model with one output, a weight is not finite, the rate or N is out of
            range, or N is given for softmax. Attention with several outputs is not noticed: its matrices have the
            shapes of a larger dimension with one.

    Examples:
        >>> there = {"fc1.weight": [[1.0, 0.0, 0.0, 1.0]], "fc2.weight": [[0.5]]}
        >>> model, rate = from_zsls25(there, 0.001, num_context=16)
        >>> model.effective_matrix().tolist(), rate
        ([[8.0, 0.0], [0.0, 8.0]], 0.016)
    """
    check_number("learning_rate", learning_rate, minimum=0.0)
    if num_context is not None:
        check_number("num_context", num_context, minimum=1, integer=True)
        if scores == "softmax":
            raise InputError("num_context", num_context, "softmax divides by no number of tokens; give None")
    names = tuple(sorted(weights))
    if names not in KINDS:
        known = "; ".join(", ".join(kind) for kind in KINDS)
        raise InputError("weights", ", ".join(map(str, names)), f"give those of one model: {known}")
    found = {name.removesuffix(".weight"): _matrix(name, weights[name]) for name in names}
    model, params = _mlp(found) if "fc1" in found else _attention(found, scores)
    factor = 1.0 if num_context is None else float(num_context) ** (1.0 / KINDS[names])
    graphdef, _ = split_model(model)
    scaled = {name: jnp.asarray(factor * leaf) for name, leaf in params.items()}
    return merge_model(graphdef, scaled), factor**2 * learning_rate


def _matrix(name: str, value: Any) -> np.ndarray:
    matrix = as_floats(name, value)
    if matrix.ndim != 2 or not matrix.size:
        raise InputError(name, f"shape {matrix.shape}", "give a matrix")
    if not np.all(np.isfinite(matrix)):
        raise InputError(name, "NaN or infinity", "every weight must be finite")
    return matrix


def _attention(found: dict[str, np.ndarray], scores: str) -> tuple[nnx.Module, dict[str, np.ndarray]]:
    """Return a model of full blocks and its parameters, before scaling.

    There the heads lie below each other, and a merged matrix has the query's side first, ours the key's.
    """
    rows, width = shape = found["value"].shape
    heads, dim = rows // width, width - 1
    if not dim or rows % width:
        raise InputError("value.weight", f"shape {shape}", "give shape (H(D+1), D+1)")
    if "kq" in found and found["kq"].shape != shape:
        raise InputError("kq.weight", f"shape {found['kq'].shape}", f"give shape {shape}, as value.weight")
    for name in sorted(found.keys() & {"key", "query"}):
        if found[name].shape != found["key"].shape or found[name].shape[1] != width or len(found[name]) % heads:
            remedy = f"give (HR, {width}) for key and query, with H = {heads}"
            raise InputError(f"{name}.weight", f"shape {found[name].shape}", remedy)
    split = {name: matrix.reshape(heads, -1, width) for name, matrix in found.items()}
    value = {"value": split["value"][:, -1]}
    common: dict[str, Any] = {"blocks": "full", "scores": scores, "rngs": nnx.Rngs(0)}
    if "kq" in split:
        return MergedAttention(dim, heads, **common), value | {"merged": split["kq"].transpose(0, 2, 1)}
    model = SeparateAttention(dim, heads, rank=split["key"].shape[1], **common)
    return model, value | {"key": split["key"], "query": split["query"]}


def _mlp(found: dict[str, np.ndarray]) -> tuple[nnx.Module, dict[str, np.ndarray]]:
    heads, size = found["fc1"].shape
    dim = round(size**0.5)
    if dim**2 != size:
        raise InputError("fc1.weight", f"shape {found['fc1'].shape}", "its rows must have D² entries (--cubic_feat)")
    if found["fc2"].shape != (1, heads):
        raise InputError("fc2.weight", f"shape {found['fc2'].shape}", f"give shape {1, heads}: one output")
    return CubicFeatureMLP(dim, heads, rngs=nnx.Rngs(0)), {"second": found["fc2"][0], "first": found["fc1"]}
