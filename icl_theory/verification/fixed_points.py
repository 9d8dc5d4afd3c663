"""B. Fixed points of linear attention: all 2^D of the separate model, two of the merged one (theory notes, §4)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from icl_theory.attention import MergedAttention, SeparateAttention, aligned_parameters
from icl_theory.features import find_features
from icl_theory.losses import make_loss
from icl_theory.spectra import linear_spectrum, random_basis
from icl_theory.tasks import TaskMixture
from icl_theory.theory.fixed_points import fixed_point_strengths, isotropic_task_gain, plateau_loss, subsets
from icl_theory.verification.claim import Claim, Data
from icl_theory.verification.statement import Statement, agrees, at_least, at_most


@dataclasses.dataclass(frozen=True)
class Settings:
    """Default spectrum in a random basis; once with Γ = I, σ = 0 and once with a task prior and noise.

    Power: nothing is drawn but the basis, so statements are tested to rounding.
    """

    dim: int = 4
    num_context: int = 31
    noise_std: float = 0.5
    seed: int = 0


def measure(settings: Settings, progress) -> Data:
    """Gradient norms and losses at every fixed point."""
    basis = random_basis(jax.random.key(settings.seed), settings.dim)
    spectrum = linear_spectrum(settings.dim)
    cases = {
        "plain": TaskMixture.single(spectrum, num_context=settings.num_context, basis=basis),
        "general": TaskMixture.single(
            spectrum,
            num_context=settings.num_context,
            task_eigenvalues=np.linspace(0.5, 2.0, settings.dim),
            noise_std=settings.noise_std,
            basis=basis,
        ),
    }
    data: Data = {}
    for done, (name, mixture) in enumerate(cases.items(), start=1):
        features = find_features(mixture)
        directions = jnp.asarray(features.directions, float)
        separate = SeparateAttention(settings.dim, settings.dim, rngs=nnx.Rngs(0))
        merged = MergedAttention(settings.dim, 1, rngs=nnx.Rngs(0))
        loss, _ = make_loss(separate, mixture)
        merged_loss, _ = make_loss(merged, mixture)
        gradient, merged_gradient = jax.jit(jax.value_and_grad(loss)), jax.jit(jax.grad(merged_loss))
        rows = []
        for subset in subsets(settings.dim):
            strengths = fixed_point_strengths(features, subset)
            value, grads = gradient(aligned_parameters(jnp.cbrt(strengths), directions))
            matrix = (features.directions * strengths) @ features.directions.T
            merged_norm = optax.tree.norm(merged_gradient(_balanced_merged(matrix)))
            rows.append([plateau_loss(features, subset), value, optax.tree.norm(grads), merged_norm])
        table = np.asarray(rows, dtype=float)
        for column, label in enumerate(("predicted", "loss", "gradient", "merged_gradient")):
            data[f"{name}_{label}"] = table[:, column]
        data[f"{name}_scale"] = np.asarray(optax.tree.norm(gradient(aligned_parameters(jnp.ones(settings.dim)))[1]))
        if name == "plain":
            data["gain"] = features.gain
            data["gain_formula"] = np.sort(isotropic_task_gain(spectrum, settings.num_context))[::-1]
        progress(done, len(cases))
    return data


def _balanced_merged(matrix: np.ndarray) -> dict:
    """One merged head with `v U = W` and `v² = ‖U‖²`."""
    norm = np.linalg.norm(matrix)
    v = np.sqrt(norm)
    unit = matrix / v if norm > 0 else np.zeros_like(matrix)
    return {"value": jnp.full((1,), v), "merged": jnp.asarray(unit, float)[None]}


def statements(data: Data) -> list[Statement]:
    """B1 to B7."""
    code = "icl_theory.theory.fixed_points.fixed_point_strengths"
    table = []
    for index, (name, words) in enumerate((("plain", "Γ = I, σ = 0"), ("general", "task prior and label noise"))):
        count = len(data[f"{name}_gradient"])
        table.append(
            at_most(
                f"B{2 * index + 1}",
                f"The gradient vanishes at all {count} predicted fixed points of rank-one attention ({words}); "
                "largest norm, relative to the gradient at u = 1",
                source="notes §4",
                code=code,
                bound=1e-13,
                measured=float(np.max(data[f"{name}_gradient"]) / data[f"{name}_scale"]),
            )
        )
        table.append(
            agrees(
                f"B{2 * index + 2}",
                f"The loss there is L_S = tr(ΛΓ) − Σ_S a_d²/c_d ({words})",
                source="notes §4",
                code="icl_theory.theory.fixed_points.plateau_loss",
                predicted=data[f"{name}_predicted"],
                measured=data[f"{name}_loss"],
                tolerance=1e-12,
                figure="loss_plateaus",
            )
        )
    table.append(
        agrees(
            "B5",
            "Each feature's gain is λ_d / (1 + (1 + tr Λ/λ_d)/N) when Γ = I and σ = 0",
            source="notes §4; ZSLS25",
            code="icl_theory.theory.fixed_points.isotropic_task_gain",
            predicted=data["gain_formula"],
            measured=data["gain"],
            tolerance=1e-12,
        )
    )
    merged = np.stack([data[f"{name}_merged_gradient"] / data[f"{name}_scale"] for name in ("plain", "general")])
    table.append(
        at_most(
            "B6",
            "Merged attention has a zero gradient at zero and at the optimum (largest norm, relative to rank-one's at u = 1)",
            source="notes §4",
            code=code,
            bound=1e-13,
            measured=float(merged[:, [0, -1]].max()),
            figure="merged_model",
        )
    )
    table.append(
        at_least(
            "B7",
            "Merged attention has a gradient at balanced heads that hold any other subset (smallest norm, relative as in B6)",
            source="notes §4",
            code=code,
            bound=1e-3,
            measured=float(merged[:, 1:-1].min()),
            figure="merged_model",
        )
    )
    return table


CLAIM = Claim(
    "B",
    "fixed_points",
    "Fixed points and plateau losses",
    "Are all 2^D predicted points fixed points of the separate model, and only two of the merged one?",
    Settings(),
    measure,
    statements,
)
