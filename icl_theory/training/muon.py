"""Muon for the keys and queries of attention (theory notes, §17)."""

from __future__ import annotations

from typing import Any

import optax
from jaxtyping import Array, Float, PyTree
from optax.contrib import MuonDimensionNumbers
from optax.contrib import muon as optax_muon

from icl_theory.errors import check_number

AXES = {  # rows and columns of the matrices to orthogonalise; other axes hold separate matrices
    "key": MuonDimensionNumbers((0, 1), 2),
    "query": MuonDimensionNumbers((0, 1), 2),
    "merged": MuonDimensionNumbers(1, 2),
}


def muon(
    learning_rate: float | Float[Array, ""], momentum: float | Float[Array, ""] = 0.95
) -> optax.GradientTransformationExtraArgs:
    """Muon for keys, queries and merged matrices, with Adam for values at the same learning rate.

    The keys of all heads form one matrix of H·R rows and D columns, and so do the queries; merged matrices are
    separate. The momentum is Nesterov's. An update is the momentum with its singular values brought close to 1.

    Args:
        learning_rate: Learning rate η ≥ 0.
        momentum: Decay rate of the momentum, at least 0 and below 1.

    Raises:
        InputError: A number is out of range.

    Reference: Jordan et al. 2024, by `optax.contrib.muon`; theory notes, §17.
    """
    check_number("learning_rate", learning_rate, minimum=0.0)
    check_number("momentum", momentum, minimum=0.0, below=1.0)

    def axes(params: PyTree) -> Any:
        return {name: AXES.get(name) for name in params}

    matrices = optax_muon(learning_rate, beta=momentum, muon_weight_dimension_numbers=axes)
    return optax.with_extra_args_support(
        optax.multi_transform({"matrix": matrices, "value": optax.adam(learning_rate)}, _labels)
    )


def _labels(params: PyTree) -> Any:
    return {name: "matrix" if name in AXES else "value" for name in params}
