"""Fixed points of linear attention: all 2^D of the separate model, two of the merged one (theory notes, §4)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from flax import nnx

from icl_theory.models.attention import MergedAttention, SeparateAttention
from icl_theory.models.parameters import aligned_parameters
from icl_theory.tasks.features import find_features
from icl_theory.tasks.mixture import TaskMixture
from icl_theory.tasks.spectra import linear_spectrum, random_basis
from icl_theory.theory.fixed_points import fixed_point_strengths, isotropic_task_gain, plateau_loss, subsets
from icl_theory.training.losses import make_loss
from icl_theory.verification.claim import Claim, Progress
from icl_theory.verification.labels import dataset, variable
from icl_theory.verification.statements import Statements

TASKS = {"plain": "Γ = I, σ = 0", "general": "task prior and label noise"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Default spectrum in a random basis; once with Γ = I, σ = 0 and once with a task prior and noise.

    Power: nothing is drawn but the basis, so statements are tested to rounding.
    """

    dim: int = 4
    num_context: int = 31
    noise_std: float = 0.5
    seed: int = 0


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure gradient norms and losses at every fixed point, (task, subset of features)."""
    basis = random_basis(jax.random.key(settings.seed), settings.dim)
    spectrum = linear_spectrum(settings.dim)
    mixtures = {
        "plain": TaskMixture.single(spectrum, num_context=settings.num_context, basis=basis),
        "general": TaskMixture.single(
            spectrum,
            num_context=settings.num_context,
            basis=basis,
            task_eigenvalues=np.linspace(0.5, 2.0, settings.dim),
            noise_std=settings.noise_std,
        ),
    }
    tables = []
    for done, mixture in enumerate(mixtures.values(), start=1):
        tables.append(_at_fixed_points(settings, mixture))
        progress(done, len(mixtures))
    columns = ("predicted_loss", "loss", "gradient", "merged_gradient")
    meanings = (
        "loss at the fixed point by theory",
        "loss there",
        "norm of the gradient there, over that at u = 1",
        "norm of the merged model's gradient at balanced heads that hold the same, over that at u = 1",
    )
    variables = {
        name: variable("task subset", np.asarray(tables)[..., column], meaning)
        for column, (name, meaning) in enumerate(zip(columns, meanings, strict=True))
    }
    plain = find_features(mixtures["plain"])
    formula = np.sort(isotropic_task_gain(spectrum, settings.num_context))[::-1]
    variables["gain"] = variable("feature", plain.gain, "by how much a feature lowers the loss, a_d²/c_d")
    variables["predicted_gain"] = variable("feature", formula, "the same for Γ = I, σ = 0, by the short formula")
    return dataset(variables, task=list(mixtures))


def _at_fixed_points(settings: Settings, mixture: TaskMixture) -> np.ndarray:
    """Return predicted loss, loss, gradient norm and merged gradient norm at every subset of features."""
    features = find_features(mixture)
    directions = jnp.asarray(features.directions, float)
    loss, _ = make_loss(SeparateAttention(settings.dim, settings.dim, rngs=nnx.Rngs(0)), mixture)
    merged_loss, _ = make_loss(MergedAttention(settings.dim, 1, rngs=nnx.Rngs(0)), mixture)
    gradient, merged_gradient = jax.jit(jax.value_and_grad(loss)), jax.jit(jax.grad(merged_loss))
    scale = float(optax.tree.norm(gradient(aligned_parameters(jnp.ones(settings.dim)))[1]))
    rows = []
    for subset in subsets(settings.dim):
        strengths = fixed_point_strengths(features, subset)
        value, grads = gradient(aligned_parameters(jnp.cbrt(strengths), directions))
        matrix = (features.directions * strengths) @ features.directions.T
        norms = [float(optax.tree.norm(found)) / scale for found in (grads, merged_gradient(_balanced_merged(matrix)))]
        rows.append([plateau_loss(features, subset), float(value), *norms])
    return np.asarray(rows)


def _balanced_merged(matrix: np.ndarray) -> dict[str, jax.Array]:
    """Return one merged head with `v U = W` and `v² = ‖U‖²`."""
    norm = np.linalg.norm(matrix)
    v = np.sqrt(norm)
    unit = matrix / v if norm > 0 else np.zeros_like(matrix)
    return {"value": jnp.full((1,), v), "merged": jnp.asarray(unit, float)[None]}


table = Statements("fixed_points", source="notes §4")


@table.at_most(
    "The gradient vanishes at all {subset} predicted fixed points of rank-one attention ({case}); largest norm, "
    "relative to the gradient at u = 1",
    bound=1e-13,
    predictor=fixed_point_strengths,
    cases=TASKS,
)
def gradient_vanishes(data: xr.Dataset, task: str) -> xr.DataArray:
    return data.gradient.sel(task=task)


@table.agrees(
    "The loss at every predicted fixed point is L_S = tr(ΛΓ) − Σ_S a_d²/c_d ({case})",
    rtol_of_largest=1e-12,
    predictor=plateau_loss,
    figure="loss_plateaus",
    cases=TASKS,
)
def loss_is_that_of_the_plateau(data: xr.Dataset, task: str) -> tuple[xr.DataArray, xr.DataArray]:
    return data.predicted_loss.sel(task=task), data.loss.sel(task=task)


@table.agrees(
    "Each feature's gain is λ_d / (1 + (1 + tr Λ/λ_d)/N) when Γ = I and σ = 0",
    rtol_of_largest=1e-12,
    source="notes §4; ZSLS25",
    predictor=isotropic_task_gain,
)
def gain_has_a_short_formula(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return data.predicted_gain, data.gain


@table.at_most(
    "Merged attention has a zero gradient at zero and at the optimum (largest norm, relative to rank-one's at u = 1)",
    bound=1e-13,
    predictor=fixed_point_strengths,
    figure="merged_model",
)
def merged_gradient_vanishes_at_both_ends(data: xr.Dataset) -> xr.DataArray:
    return data.merged_gradient.isel(subset=[0, -1])


@table.at_least(
    "Merged attention has a gradient at balanced heads that hold any other subset of features (smallest norm, "
    "relative to rank-one's at u = 1)",
    bound=1e-3,
    predictor=fixed_point_strengths,
    figure="merged_model",
)
def merged_gradient_vanishes_nowhere_else(data: xr.Dataset) -> xr.DataArray:
    return data.merged_gradient.isel(subset=slice(1, -1))


CLAIM = Claim(
    "fixed_points",
    "Are all 2^D predicted points fixed points of the separate model, and only two of the merged one?",
    Settings(),
    measure,
    table,
    single=True,
    seconds=4.0,
)
