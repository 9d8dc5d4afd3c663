"""Closed forms of the population loss, compared with Monte Carlo and automatic differentiation (theory notes, §3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

from icl_theory.models.attention import MergedAttention, SeparateAttention
from icl_theory.models.cubic_features import cubic_features
from icl_theory.models.parameters import merge_model
from icl_theory.moments.empirical import prompt_moments
from icl_theory.moments.population import population_force, population_loss, population_moments
from icl_theory.moments.population_full import full_population_moments
from icl_theory.tasks.mixture import TaskDistribution, TaskMixture, beta_second_moment
from icl_theory.tasks.prompts import Prompts
from icl_theory.tasks.sampling import sample_prompts
from icl_theory.tasks.spectra import linear_spectrum, power_law_spectrum, random_basis
from icl_theory.training.gradient_descent import gd
from icl_theory.training.losses import make_loss, quadratic_loss
from icl_theory.training.sam import sam
from icl_theory.training.train import train
from icl_theory.verification.claim import Claim, Progress
from icl_theory.verification.labels import LOSS, dataset, variable
from icl_theory.verification.statements import Statements

MIXTURES = {
    "plain": "for one group of prompts without noise",
    "noise_and_prior": "with label noise and an anisotropic task prior",
    "two_groups": "for two groups that differ in spectrum and context length",
    "fixed_task": "when 40 % of the prompts share one fixed task",
}
Variables = dict[str, tuple[Any, ...]]
ENGINES = ("moments", "prompts")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Monte Carlo over `num_prompts` prompts a setting, drawn in `num_chunks` pieces; `num_tensors` random T of full
    blocks; `compressed_steps` of training on `compressed_prompts` prompts and on their moments.

    N is small, so that the terms in 1/N are large and a wrong one is seen. Power: four standard errors are 2 to 6 % of
    what is measured.
    """

    dim: int = 4
    num_context: int = 3
    num_prompts: int = 200_000
    num_chunks: int = 10
    noise_std: float = 0.5
    num_tensors: int = 30
    compressed_prompts: int = 200
    compressed_steps: int = 2000
    seed: int = 0


def mixtures(settings: Settings) -> dict[str, TaskMixture]:
    """Return the four task mixtures, all in the same random basis."""
    dim = settings.dim
    basis_key, task_key = jax.random.split(jax.random.key(settings.seed))
    basis = random_basis(basis_key, dim)
    linear = linear_spectrum(dim)
    plain = TaskDistribution.create(linear, num_context=settings.num_context, basis=basis)
    prior = np.linspace(2.0, 0.5, dim)
    noisy = TaskDistribution.create(
        linear, num_context=settings.num_context, task_eigenvalues=prior, noise_std=settings.noise_std, basis=basis
    )
    short = TaskDistribution.create(
        power_law_spectrum(dim, 1.0)[::-1], num_context=max(settings.num_context // 3, 1), basis=basis
    )
    single = TaskMixture.create([plain], [1.0])
    return {
        "plain": single,
        "noise_and_prior": TaskMixture.create([noisy], [1.0]),
        "two_groups": TaskMixture.create([noisy, short], [0.7, 0.3]),
        "fixed_task": single.with_fixed_task(0.4, jax.random.normal(task_key, (dim,))),
    }


def full_mixture(settings: Settings) -> TaskMixture:
    """Return two groups with noise, priors, different context lengths and a fixed task, to test every term at once."""
    return mixtures(settings)["two_groups"].with_fixed_task(0.4, np.linspace(1.0, -0.5, settings.dim))


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure losses at a random W, second moments of β, gradients by automatic differentiation, and loss curves."""
    key = jax.random.key(settings.seed + 1)
    total = len(MIXTURES) + 3
    losses: list[Any] = []
    variables: Variables = {}
    for index, (name, mixture) in enumerate(mixtures(settings).items()):
        draw_key, matrix_key = jax.random.split(jax.random.fold_in(key, index))
        matrix = jnp.eye(settings.dim) + jax.random.normal(matrix_key, (settings.dim, settings.dim))
        predicted = float(population_loss(matrix, population_moments(mixture)))
        observed = [_observe(prompts, matrix) for prompts in _chunks(settings, mixture, draw_key)]
        losses.append((predicted, *_mean_and_error(errors for errors, _ in observed)))
        if name == "noise_and_prior":
            found = (beta_second_moment(mixture.groups[0]), *_mean_and_error(products for _, products in observed))
            upper = [np.asarray(values)[np.triu_indices(settings.dim)] for values in found]
            variables |= _expectation("second_moment", "entry", upper, "entry of E[ββᵀ] on or above the diagonal")
        progress(index + 1, total)
    variables |= _expectation("loss", "mixture", zip(*losses, strict=True), "population loss at a random W", LOSS)
    mixture = mixtures(settings)["two_groups"]
    moments = population_moments(mixture)
    flow, gradient = _parameter_flow(settings, mixture)
    half_gradient = -0.5 * jax.grad(population_loss)(matrix, moments)
    variables |= {
        "force": variable("row column", population_force(matrix, moments), "Ψ(W), closed form"),
        "half_gradient": variable("row column", half_gradient, "−½ ∂L/∂W by automatic differentiation"),
        "flow": variable("parameter", flow, "k̇, q̇ and v̇ of rank-one attention, written with Ψ"),
        "gradient": variable("parameter", gradient, "−∇L of the model by automatic differentiation"),
    }
    progress(total - 2, total)
    variables |= _full_blocks(settings, key)
    progress(total - 1, total)
    curves = _compressed_training(settings, key)
    variables["curve_loss"] = variable("optimizer engine snapshot", curves, "training loss, full blocks")
    progress(total, total)
    return dataset(variables, mixture=list(MIXTURES), optimizer=["gd", "sam"], engine=list(ENGINES))


def _expectation(name: str, dims: str, values: Any, meaning: str, units: str = "") -> Variables:
    """Make the variables of an expectation: closed form, Monte Carlo mean, and standard error of the mean."""
    names = (f"predicted_{name}", name, f"{name}_error")
    words = (f"{meaning}, closed form", f"{meaning}, Monte Carlo mean", f"standard error of {name}")
    return {key: variable(dims, each, about, units) for key, each, about in zip(names, values, words, strict=True)}


def _chunks(settings: Settings, mixture: TaskMixture, key: Any) -> Iterator[Prompts]:
    for chunk in range(settings.num_chunks):
        count = settings.num_prompts // settings.num_chunks
        yield sample_prompts(mixture, count, key=jax.random.fold_in(key, chunk))


def _mean_and_error(draws: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error of draws that come in chunks, accumulated in float64 whatever their dtype."""
    count, total, square = 0, np.zeros(()), np.zeros(())
    for chunk in draws:
        values = np.asarray(chunk, dtype=np.float64)
        count, total, square = count + len(values), total + values.sum(0), square + np.square(values).sum(0)
    mean = total / count
    return mean, np.sqrt((square / count - mean**2) / (count - 1))


@jax.jit
def _observe(prompts: Prompts, matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    beta = prompts.beta
    errors = jnp.square(prompts.y_query - jnp.einsum("pd,de,pe->p", beta, matrix, prompts.x_query))
    return errors, jnp.einsum("pd,pe->pde", beta, beta)


def _parameter_flow(settings: Settings, mixture: TaskMixture) -> tuple[np.ndarray, np.ndarray]:
    """Return `v̇_i = 2 k_iᵀΨq_i`, `k̇_i = 2 v_i Ψq_i`, `q̇_i = 2 v_i Ψᵀk_i` as one vector, and −∇L to compare with."""
    model = SeparateAttention(settings.dim, 3, init_scale=1.0, rngs=nnx.Rngs(params=settings.seed))
    loss, params = make_loss(model, mixture)
    force = population_force(merge_model(loss.graphdef, params).effective_matrix(), loss.moments)
    value, key, query = params["value"], params["key"][:, 0], params["query"][:, 0]
    flow = {
        "key": 2.0 * value[:, None] * (query @ force.T),
        "query": 2.0 * value[:, None] * (key @ force),
        "value": 2.0 * jnp.einsum("hd,de,he->h", key, force, query),
    }
    gradient = jax.grad(loss)(params)
    return (
        np.concatenate([np.ravel(part) for part in flow.values()]),
        np.concatenate([-np.ravel(gradient[name]) for name in flow]),
    )


def _full_blocks(settings: Settings, key: Any) -> Variables:
    """Measure the loss at random coefficients T of the full features, in closed form and by Monte Carlo."""
    mixture = full_mixture(settings)
    moments = full_population_moments(mixture)
    tensor_key, draw_key = jax.random.split(jax.random.fold_in(key, len(MIXTURES)))
    tensors = jax.random.normal(tensor_key, (settings.num_tensors, moments.num_features))
    found = _mean_and_error(_tensor_errors(prompts, tensors) for prompts in _chunks(settings, mixture, draw_key))
    predicted = jax.vmap(quadratic_loss, in_axes=(0, None))(tensors, moments)
    return _expectation("full_loss", "tensor", (predicted, *found), "loss at random coefficients, full blocks", LOSS)


@jax.jit
def _tensor_errors(prompts: Prompts, tensors: jax.Array) -> jax.Array:
    return jnp.square(prompts.y_query[:, None] - cubic_features(prompts, blocks="full") @ tensors.T)


def _compressed_training(settings: Settings, key: Any) -> np.ndarray:
    """Return loss curves (optimizer, engine, snapshot) on weighted prompts and on their moments, with full blocks."""
    prompts = sample_prompts(full_mixture(settings), settings.compressed_prompts, key=jax.random.fold_in(key, 99))
    prompts = prompts._replace(weight=jnp.linspace(0.5, 2.0, settings.compressed_prompts))
    model = MergedAttention(settings.dim, 4, init_scale=0.3, blocks="full", rngs=nnx.Rngs(params=settings.seed))

    def curve(optimizer: Any, engine: str, **extra: float) -> np.ndarray:
        loss, params = make_loss(model, prompts, engine=engine)
        return train(
            loss,
            params,
            optimizer=optimizer,
            hyperparameters={"learning_rate": 0.002, **extra},
            num_steps=settings.compressed_steps,
            num_snapshots=21,
        ).loss

    return np.stack([[curve(gd, engine) for engine in ENGINES], [curve(sam, engine, rho=0.002) for engine in ENGINES]])


table = Statements("closed_forms", source="notes §3")


@table.agrees(
    "The population loss at a random W equals its Monte Carlo mean {case}",
    standard_errors=4.0,
    predictor=population_loss,
    cases=MIXTURES,
)
def loss_equals_its_monte_carlo_mean(data: xr.Dataset, mixture: str) -> tuple[xr.DataArray, ...]:
    chosen = data.sel(mixture=mixture)
    return chosen.predicted_loss, chosen.loss, chosen.loss_error


@table.agrees(
    "B = E[ββᵀ], every entry, equals its Monte Carlo mean (noise, task prior)",
    standard_errors=4.0,
    predictor=beta_second_moment,
)
def second_moment_equals_its_monte_carlo_mean(data: xr.Dataset) -> tuple[xr.DataArray, ...]:
    return data.predicted_second_moment, data.second_moment, data.second_moment_error


@table.agrees(
    "Ψ(W) equals −½ ∂L/∂W by automatic differentiation (two groups)", rtol_of_largest=1e-12, predictor=population_force
)
def force_is_minus_half_the_gradient(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return data.force, data.half_gradient


@table.agrees(
    "v̇, k̇ and q̇ of rank-one attention, written with Ψ, equal −∇L of the model",
    rtol_of_largest=1e-12,
    source="notes §5",
    predictor=population_force,
)
def parameter_flow_is_minus_the_gradient(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return data.flow, data.gradient


@table.agrees(
    "The loss of full blocks at random coefficients equals its Monte Carlo mean (two groups, noise, priors, fixed "
    "task)",
    standard_errors=4.0,
    source="notes §9",
    predictor=full_population_moments,
)
def full_loss_equals_its_monte_carlo_mean(data: xr.Dataset) -> tuple[xr.DataArray, ...]:
    return data.predicted_full_loss, data.full_loss, data.full_loss_error


@table.agrees(
    "Training on the moments of weighted prompts follows training on the prompts, GD and SAM, full blocks",
    rtol_of_largest=1e-10,
    source="notes §9",
    predictor=prompt_moments,
)
def moments_train_like_their_prompts(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return data.curve_loss.sel(engine="prompts"), data.curve_loss.sel(engine="moments")


CLAIM = Claim(
    "closed_forms",
    "Do the closed forms of the population loss, its gradient and E[ββᵀ] agree with Monte Carlo and autodiff?",
    Settings(),
    measure,
    table,
    single=True,
    seconds=18.0,
)
