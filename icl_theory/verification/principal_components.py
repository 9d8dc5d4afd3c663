"""P. On a plateau attention does regression on the first principal components, in context (theory notes, §4)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from icl_theory.analysis import simplicity_bias
from icl_theory.features import Features, find_features
from icl_theory.prompts import Prompts, sample_prompt_chunks
from icl_theory.spectra import linear_spectrum, random_basis
from icl_theory.tasks import TaskMixture
from icl_theory.theory.components import component_regression, plateau_predictions, regression_gap
from icl_theory.verification.claim import Claim, Data, part_of
from icl_theory.verification.ensembles import clear_plateaus, random_starts, separate_model, train_starts
from icl_theory.verification.paired import known_median
from icl_theory.verification.statement import Statement, agrees_each, at_most


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rank one, H = 5, D = 4, default spectrum in a random basis, small random starts; contexts of growing length.

    Power: one seed's difference from least squares spreads by 4 to 14 % on the first plateau, by less on the later ones.
    """

    dim: int = 4
    num_heads: int = 5
    num_contexts: tuple[int, ...] = (31, 127, 511)
    num_prompts: int = 40_000
    chunk_size: int = 4000
    num_seeds: int = 16
    init_scale: float = 0.02
    learning_rate: float = 0.2
    duration: float = 15_000.0
    num_snapshots: int = 3000
    seed: int = 2


def measure(settings: Settings, progress) -> Data:
    """Relative mean square differences on fresh prompts, (N, seeds, m); NaN where a seed has no such plateau."""
    basis = random_basis(jax.random.key(settings.seed), settings.dim)
    shape = (len(settings.num_contexts), settings.num_seeds, settings.dim)
    shrunk, plain = np.full(shape, np.nan), np.full(shape, np.nan)
    data: Data = {}
    for place, length in enumerate(settings.num_contexts):
        mixture = TaskMixture.single(linear_spectrum(settings.dim), num_context=length, basis=basis)
        features = find_features(mixture)
        model, starts = random_starts(
            separate_model(settings.dim, settings.num_heads, settings.init_scale), settings.num_seeds, settings.seed
        )
        run = train_starts(
            model,
            starts,
            mixture,
            learning_rate=settings.learning_rate,
            duration=settings.duration,
            num_snapshots=settings.num_snapshots,
            progress=part_of(progress, place, len(settings.num_contexts)),
        )
        times = simplicity_bias(run.trajectory(features), features).times
        looks = plateau_looks(run.time, run.loss, times)
        key = jax.random.fold_in(jax.random.key(settings.seed), place)
        chunks = sample_prompt_chunks(mixture, settings.num_prompts, key=key, chunk_size=settings.chunk_size)
        sums = np.zeros((4, settings.num_seeds, settings.dim))
        for chunk, prompts in enumerate(chunks):
            sums += _squares(prompts, features, run.tracked, looks)
            if place == chunk == 0:
                data |= _shown(prompts, features, run.tracked, looks)
        shrunk[place], plain[place] = np.where(looks >= 0, sums[:2] / sums[2:], np.nan)
    return data | {
        "num_contexts": np.asarray(settings.num_contexts),
        "shrunk": shrunk,
        "plain": plain,
        "gap": np.asarray([[regression_gap(m, n) for m in range(1, settings.dim + 1)] for n in settings.num_contexts]),
    }


def plateau_looks(time: np.ndarray, losses: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The snapshot at which the loss is flattest against log-time with m features learned, (seeds, D); −1 for none.

    None where there is no clear plateau. The last is the end.
    """
    looks = np.full(times.shape, -1)
    slopes = np.abs(np.gradient(losses[:, 1:], np.log(time[1:]), axis=1))
    for seed, learned in enumerate(times):
        for m, before, after in clear_plateaus(learned):
            inside = 1 + np.flatnonzero((time[1:] > before) & (time[1:] < after))
            looks[seed, m - 1] = inside[np.argmin(slopes[seed, inside - 1])]
        if np.isfinite(learned).all():
            looks[seed, -1] = len(time) - 1
    return looks


def _predictions(prompts: Prompts, matrix: np.ndarray) -> jax.Array:
    return jnp.einsum("pd,de,pe->p", prompts.beta, jnp.asarray(matrix), prompts.x_query)


def _squares(prompts: Prompts, features: Features, matrices: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """Sums of squared differences from both regressions, and of their squares; (4, seeds, m)."""
    sums = np.zeros((4, *looks.shape))
    for m in range(1, looks.shape[1] + 1):
        others = [kind(prompts, features, m) for kind in (plateau_predictions, component_regression)]
        chosen = matrices[np.arange(len(looks)), looks[:, m - 1]]
        predicted = jnp.einsum("pd,sde,pe->sp", prompts.beta, jnp.asarray(chosen), prompts.x_query)
        sums[:2, :, m - 1] = [jnp.sum((predicted - other) ** 2, axis=1) for other in others]
        sums[2:, :, m - 1] = np.asarray([jnp.sum(other**2) for other in others])[:, None]
    return sums


def _shown(prompts: Prompts, features: Features, matrices: np.ndarray, looks: np.ndarray) -> Data:
    """Predictions of one seed (the first with every plateau) on some prompts, beside both regressions; (D, 3, 400)."""
    complete = np.flatnonzero((looks >= 0).all(axis=1))
    if not complete.size:
        return {"shown": np.full((looks.shape[1], 3, 400), np.nan)}
    few = jax.tree.map(lambda leaf: leaf[:400], prompts)
    shown = [
        [
            _predictions(few, matrices[complete[0], looks[complete[0], m - 1]]),
            plateau_predictions(few, features, m),
            component_regression(few, features, m),
        ]
        for m in range(1, looks.shape[1] + 1)
    ]
    return {"shown": np.asarray(shown, float)}


def statements(data: Data) -> list[Statement]:
    """P1 and P2."""
    code = "icl_theory.theory.components."
    first, last = (known_median(data[name], axis=1) for name in ("shrunk", "plain"))
    fewest = int(np.isfinite(data["shrunk"]).sum(axis=1).min())
    return [
        at_most(
            "P1",
            "On fresh prompts, the predictions at plateau m are those of regression on the first m components, shrunk as the "
            "fixed point says (mean square difference over mean square; medians of at least "
            f"{fewest} of {data['shrunk'].shape[1]} seeds, m = 1 to 4, N = 31 to 511)",
            source="notes §4; ZSLS25",
            code=code + "plateau_predictions",
            bound=1e-3,
            measured=float(np.max(first)),
            count=first.size,
            figure="principal_components",
        ),
        agrees_each(
            "P2",
            "From least squares on the first m components they differ by (m + 1)/N, here N = 511, as theory has it to leading order",
            source="notes §4",
            code=code + "regression_gap",
            predicted=data["gap"][-1],
            measured=last[-1],
            tolerance=0.1,
            figure="principal_components",
        ),
    ]


CLAIM = Claim(
    "P",
    "principal_components",
    "Regression on principal components",
    "On plateau m, does attention predict as regression on the first m principal components does?",
    Settings(),
    measure,
    statements,
    single=False,
)
