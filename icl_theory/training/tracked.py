"""Quantities that `train` can track at every snapshot."""

from __future__ import annotations

from typing import Any, NamedTuple

from flax import nnx
from jaxtyping import Array, Float, PyTree

from icl_theory.models.parameters import merge_model
from icl_theory.numerics.contraction import contract


class EffectiveMatrix(NamedTuple):
    """`W(θ)`, what `train` tracks to read features of any basis off it afterwards."""

    graphdef: nnx.GraphDef[Any]

    def __call__(self, params: PyTree) -> Float[Array, "D D"]:
        return merge_model(self.graphdef, params).effective_matrix()


class FeatureStrength(NamedTuple):
    """`w_d = e_dᵀ W(θ) e_d`, (D,), what `train_many` tracks where only features matter; directions as columns."""

    graphdef: Any
    directions: Float[Any, "D D"]

    def __call__(self, params: PyTree) -> Float[Array, " D"]:
        turned = contract("de,ef->df", merge_model(self.graphdef, params).effective_matrix(), self.directions)
        return contract("df,df->f", self.directions, turned)


class EffectiveTensor(NamedTuple):
    """`T(θ)`, what `train` tracks to read the loss of every example off it afterwards (`CompressedPrompts.losses`)."""

    graphdef: nnx.GraphDef[Any]

    def __call__(self, params: PyTree) -> Float[Array, " F"]:
        return merge_model(self.graphdef, params).effective_tensor()
