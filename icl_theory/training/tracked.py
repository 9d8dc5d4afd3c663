"""Quantities that `train` can track at every snapshot."""

from __future__ import annotations

from typing import Any, NamedTuple

from flax import nnx
from jaxtyping import Array, Float, PyTree

from icl_theory.models.parameters import merge_model
from icl_theory.numerics.contraction import contract


class EffectiveMatrix(NamedTuple):
    """The effective matrix `W(θ)`, tracked by `train` so that features in any basis can be read off afterwards."""

    graphdef: nnx.GraphDef[Any]

    def __call__(self, params: PyTree) -> Float[Array, "D D"]:
        return merge_model(self.graphdef, params).effective_matrix()


class FeatureStrength(NamedTuple):
    """The strengths `w_d = e_dᵀ W(θ) e_d`, (D,), along directions given as columns; smaller than the matrix."""

    graphdef: Any
    directions: Float[Any, "D D"]

    def __call__(self, params: PyTree) -> Float[Array, " D"]:
        turned = contract("de,ef->df", merge_model(self.graphdef, params).effective_matrix(), self.directions)
        return contract("df,df->f", self.directions, turned)


class EffectiveTensor(NamedTuple):
    """The coefficients `T(θ)`, tracked so that `CompressedPrompts.losses` can give the loss of every example."""

    graphdef: nnx.GraphDef[Any]

    def __call__(self, params: PyTree) -> Float[Array, " F"]:
        return merge_model(self.graphdef, params).effective_tensor()
