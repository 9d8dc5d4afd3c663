"""H. Generalisation: SAM, upsampling, augmentation and their controls on held-out distributions (theory notes, §8)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from icl_theory.analysis import simplicity_bias
from icl_theory.attention import split_model
from icl_theory.examples import Examples, compress
from icl_theory.features import find_features
from icl_theory.moments import Moments
from icl_theory.prompts import sample_prompts
from icl_theory.sharpness import sam
from icl_theory.spectra import linear_spectrum, white_spectrum
from icl_theory.tasks import TaskMixture
from icl_theory.trajectory import Trajectory
from icl_theory.verification.arms import fresh_arms, judge, weighted_arms
from icl_theory.verification.claim import Claim, Data
from icl_theory.verification.ensembles import random_starts, reduced_population, separate_model, train_on
from icl_theory.verification.generalisation_statements import ARMS, MIXTURES, TESTS, statements
from icl_theory.verification.upsampling import sharing_groups

TINY = 1e-12
SMALLEST_POOL = 400


@dataclasses.dataclass(frozen=True)
class Settings:
    """D = 4, H = 5, N = 31. Each seed has its own data and start, the same under every arm.

    Power: 40 paired seeds see a change of the held-out loss by 2 to 4 % in one of the 16 settings, by 0.1 to 0.5 % in several
    together (99 % intervals of the median change).
    """

    num_prompts: tuple[int, ...] = (100, 300, 1000, 5000)
    noise_stds: tuple[float, ...] = (0.0, 0.5)
    num_seeds: int = 40
    num_context: int = 31
    short_context: int = 8
    long_context: int = 127
    minority_share: float = 0.2
    num_heads: int = 5
    init_scale: float = 0.1
    rho: float = 0.05
    quantile: float = 0.5
    switch: float = 0.5
    learning_rate: float = 0.02
    duration: float = 1500.0
    num_snapshots: int = 301
    judged_every: int = 3
    matched: tuple[float, ...] = (0.5, 0.05)
    seed: int = 11


class Case(NamedTuple):
    """One setting: what is drawn, how much of it, with how much label noise."""

    mixture: str
    noise_std: float
    num_prompts: int


def cases(settings: Settings) -> list[Case]:
    """All settings, in the order in which results are stored."""
    return [Case(m, s, p) for m in MIXTURES for s in settings.noise_stds for p in settings.num_prompts]


def training_mixture(case: Case, settings: Settings) -> TaskMixture:
    """One Gaussian group, or a majority and a minority that share all features."""
    if case.mixture == "one group":
        return TaskMixture.single(linear_spectrum(4), num_context=settings.num_context, noise_std=case.noise_std)
    return sharing_groups(settings.minority_share, settings.num_context, case.noise_std)


def test_mixtures(case: Case, settings: Settings) -> dict[str, TaskMixture]:
    """The training distribution itself, two shifted spectra, and the training spectrum at two other context lengths."""
    own = training_mixture(case, settings)
    about: Any = {"num_context": settings.num_context, "noise_std": case.noise_std}
    return {
        "training": own,
        "white": TaskMixture.single(white_spectrum(4), **about),
        "reversed": TaskMixture.single(linear_spectrum(4)[::-1].copy(), **about),
        "short": _at_context(own, settings.short_context),
        "long": _at_context(own, settings.long_context),
    }


def _at_context(mixture: TaskMixture, num_context: int) -> TaskMixture:
    return mixture._replace(groups=tuple(group._replace(num_context=num_context) for group in mixture.groups))


class _Sets(NamedTuple):
    """Every run's own data, and a pool of fresh prompts of the same distribution."""

    examples: list[Examples]
    pools: list[Examples]


def measure(settings: Settings, progress) -> Data:
    """Held-out losses, in closed form from W, of every arm against gradient descent on the same data and start."""
    steps = 4 + len(ARMS)
    report = iter(range(1, steps + 1))
    sets = _draw(settings)
    progress(next(report), steps)
    total = len(sets.examples)
    model, starts = random_starts(separate_model(4, settings.num_heads, settings.init_scale), total, settings.seed)
    graphdef, _ = split_model(model)
    how: dict[str, Any] = {
        "learning_rate": settings.learning_rate,
        "duration": settings.duration,
        "num_snapshots": settings.num_snapshots,
    }
    plain = [examples.moments() for examples in sets.examples]
    # Twice as long, for the comparison at equal gradient evaluations; the first half is the pilot.
    longer = how | {"duration": 2 * settings.duration, "num_snapshots": 2 * settings.num_snapshots - 1}
    gradient_descent = train_on(plain, graphdef, starts, **longer)
    progress(next(report), steps)
    time = gradient_descent.time[: settings.num_snapshots]
    pilot = gradient_descent.tracked[:, : settings.num_snapshots]
    arms, data = _upsample(sets, plain, time[:: settings.judged_every], pilot[:, :: settings.judged_every], settings)
    progress(next(report), steps)
    matrices = {"sam": train_on(plain, graphdef, starts, optimizer=sam, rho=settings.rho, **how).tracked}
    progress(next(report), steps)
    for arm, moments in arms.items():
        matrices[arm] = train_on(moments, graphdef, starts, **how).tracked
        progress(next(report), steps)
    matrices["two-phase"] = _two_phase(arms["late"], plain, graphdef, starts, settings)
    progress(next(report), steps)
    data |= _compare(gradient_descent.tracked, matrices, plain, time, settings)
    progress(steps, steps)
    return data


def _draw(settings: Settings) -> _Sets:
    """One large set and one pool for each mixture, noise and seed; smaller sets are its first examples, shuffled."""
    examples, pools = [], []
    key, largest = jax.random.key(settings.seed), max(settings.num_prompts)
    drawn: dict[tuple, tuple[Examples, Examples]] = {}
    for case in cases(settings):
        for seed in range(settings.num_seeds):
            name = (case.mixture, case.noise_std, seed)
            if name not in drawn:
                mixture = training_mixture(case, settings)
                keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, len(drawn)), seed))
                own, pool = (
                    _shuffled(compress(sample_prompts(mixture, largest, key=k), blocks="reduced"), seed) for k in keys
                )
                drawn[name] = own, pool
            own, pool = drawn[name]
            examples.append(_first(own, case.num_prompts))
            pools.append(_first(pool, max(case.num_prompts, SMALLEST_POOL)))
    return _Sets(examples, pools)


def _shuffled(examples: Examples, seed: int) -> Examples:
    order = np.random.default_rng(seed).permutation(len(examples.target))  # prompts come in the order of their groups
    return jax.tree.map(lambda leaf: np.asarray(leaf)[order], examples)


def _first(examples: Examples, count: int) -> Examples:
    return jax.tree.map(lambda leaf: leaf[:count], examples)


def _upsample(
    sets: _Sets, plain: list[Moments], time: np.ndarray, pilot: np.ndarray, settings: Settings
) -> tuple[dict[str, list[Moments]], Data]:
    """The data of every arm, and κ of each run."""
    arms: dict[str, list[Moments]] = {name: [] for name in ARMS if name not in ("sam", "two-phase")}
    factors = []
    for number, (examples, pool, own, matrices) in enumerate(zip(sets.examples, sets.pools, plain, pilot, strict=True)):
        found = judge(examples, time, matrices, quantile=settings.quantile)
        naive = judge(examples, time, matrices, quantile=settings.quantile, own_floor=False)
        made = {name: examples.moments(weight) for name, weight in weighted_arms(found, seed=number).items()}
        residual = naive._replace(factor=found.factor)  # the same factor, so that only the choice differs
        made["residual"] = examples.moments(weighted_arms(residual, seed=number)["late"])
        made |= fresh_arms(found, own, pool, seed=number)
        for name, moments in made.items():
            arms[name].append(moments)
        factors.append(found.factor)
    return arms, {"factor": np.reshape(factors, (len(cases(settings)), settings.num_seeds))}


def _two_phase(late: list[Moments], plain: list[Moments], graphdef, starts, settings: Settings) -> np.ndarray:
    """Upsampled up to the switch, then the data as they are."""
    looks = settings.num_snapshots - 1
    first = round(settings.switch * looks)
    runs, start = [], starts
    for moments, part in ((late, first), (plain, looks - first)):
        run = train_on(
            moments,
            graphdef,
            start,
            learning_rate=settings.learning_rate,
            duration=settings.duration * part / looks,
            num_snapshots=part + 1,
        )
        runs.append(run.tracked)
        start = run.params
    return np.concatenate([runs[0], runs[1][:, 1:]], axis=1)


def _compare(
    gradient_descent: np.ndarray,
    arms: dict[str, np.ndarray],
    plain: list[Moments],
    time: np.ndarray,
    settings: Settings,
) -> Data:
    """Log ratios of held-out losses to gradient descent's, (arm, case, seed, test), and simplicity bias."""
    snapshots, shape = settings.num_snapshots, (len(cases(settings)), settings.num_seeds)
    tests = [list(map(reduced_population, test_mixtures(case, settings).values())) for case in cases(settings)]
    base = _held_out(gradient_descent, tests)  # (run, T, test)
    base_training = _training(gradient_descent[:, :snapshots], plain)
    lowest = _lowest(plain)
    levels = [lowest + share * (base_training[:, 0] - lowest) for share in settings.matched]
    half = (snapshots + 1) // 2
    shown = [TESTS.index("training"), TESTS.index("reversed")]
    results: dict[str, list[np.ndarray]] = {name: [] for name in ("mean", "end", "budget_end", "matched")}
    data: Data = {
        "time": time,
        "case_mixture": np.asarray([MIXTURES.index(case.mixture) for case in cases(settings)]),
        "case_noise_std": np.asarray([case.noise_std for case in cases(settings)]),
        "case_num_prompts": np.asarray([case.num_prompts for case in cases(settings)]),
    }
    biases: dict[str, list[np.ndarray]] = {name: [] for name in ("times", "ratios", "progress")}
    for arm in ("gd", *ARMS):
        matrices = gradient_descent[:, :snapshots] if arm == "gd" else arms[arm]
        held = base[:, :snapshots] if arm == "gd" else _held_out(matrices, tests)
        for name, values in _bias(matrices, time, settings).items():
            biases[name].append(values)
        data[f"curve {arm}"] = held[..., shown].reshape(*shape, snapshots, 2).astype(np.float32)
        if arm == "gd":
            continue
        training = _training(matrices, plain)
        results["mean"].append(np.log(held.mean(axis=1) / base[:, :snapshots].mean(axis=1)))
        results["end"].append(np.log(held[:, -1] / base[:, snapshots - 1]))
        if arm == "sam":  # two gradients a step: at t/2 when gradient descent is at t
            slower = np.log(held[:, :half].mean(axis=1) / base[:, : 2 * half - 1 : 2].mean(axis=1))
            data["evaluations_mean"] = slower.reshape(*shape, len(TESTS))
        results["budget_end"].append(np.log(held[:, -1] / base[:, -1]))
        reached = [
            (_at_level(training, held, level), _at_level(base_training, base[:, :snapshots], level)) for level in levels
        ]
        with np.errstate(invalid="ignore"):  # NaN where neither gets there
            results["matched"].append(np.stack([np.log(ours) - np.log(theirs) for ours, theirs in reached], axis=-1))
    for name, rows in results.items():
        stacked = np.stack(rows)
        data[name] = stacked.reshape(len(ARMS), *shape, *stacked.shape[2:])
    for name, rows in biases.items():
        data[f"bias_{name}"] = np.stack(rows).reshape(len(ARMS) + 1, *shape, 4)
    return data


def _held_out(matrices: np.ndarray, tests: list[list[Moments]]) -> np.ndarray:
    """Population losses of W (run, T, D, D) on every test distribution of its case: (run, T, test)."""
    per_case = matrices.reshape(len(tests), -1, 16)
    losses = [
        np.stack([_quadratic(rows, moments) for moments in each], axis=-1)
        for each, rows in zip(tests, per_case, strict=True)
    ]
    return np.stack(losses).reshape(*matrices.shape[:2], -1)


def _training(matrices: np.ndarray, plain: list[Moments]) -> np.ndarray:
    """Losses on each run's own data as drawn, (run, T)."""
    rows = matrices.reshape(*matrices.shape[:2], 16)
    return np.stack([_quadratic(each, moments) for each, moments in zip(rows, plain, strict=True)])


def _quadratic(tensors: np.ndarray, moments: Moments) -> np.ndarray:
    mean = moments.mean()
    gram, cross = np.asarray(mean.gram, float), np.asarray(mean.cross, float)
    return np.sum(tensors * (tensors @ gram - 2.0 * cross), axis=-1) + float(mean.energy)


def _lowest(plain: list[Moments]) -> np.ndarray:
    """The least loss any W has on each run's data, (run,)."""
    best = []
    for moments in plain:
        tensor = np.linalg.lstsq(np.asarray(moments.gram, float), np.asarray(moments.cross, float), rcond=None)[0]
        best.append(float(_quadratic(tensor, moments)))
    return np.asarray(best)


def _at_level(training: np.ndarray, held: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Held-out losses when the training loss first falls to `level`, linear in it; infinite where it never does."""
    reached = training <= level[:, None]
    after = np.argmax(reached, axis=1)
    before = np.maximum(after - 1, 0)
    runs = np.arange(len(training))
    high, low = training[runs, before], training[runs, after]
    share = np.clip((high - level) / np.maximum(high - low, TINY), 0.0, 1.0)[:, None]
    values = (1.0 - share) * held[runs, before] + share * held[runs, after]
    return np.where(np.any(reached, axis=1, keepdims=True), values, np.inf)


def _bias(matrices: np.ndarray, time: np.ndarray, settings: Settings) -> dict[str, np.ndarray]:
    """Learning times, ratios and progress of each run against the features of its training distribution."""
    per_case = matrices.reshape(len(cases(settings)), -1, *matrices.shape[1:])
    found: dict[str, list[np.ndarray]] = {"times": [], "ratios": [], "progress": []}
    for case, rows in zip(cases(settings), per_case, strict=True):
        features = find_features(training_mixture(case, settings))
        bias = simplicity_bias(Trajectory(time, np.zeros(()), features.strength(rows)), features)
        for name, values in found.items():
            values.append(getattr(bias, name))
    return {name: np.concatenate(values) for name, values in found.items()}


CLAIM = Claim(
    "H",
    "generalisation",
    "Generalisation",
    "Do SAM, upsampling and augmentation generalise better (claims B and C): where, by how much, and where not?",
    Settings(),
    measure,
    statements,
    single=False,
)
