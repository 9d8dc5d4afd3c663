"""Training of aligned heads in batches of groups, for the claim `adaptive_optimizers`."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from icl_theory.analysis.learning_times import learning_times
from icl_theory.models.attention import SeparateAttention
from icl_theory.models.parameters import aligned_parameters
from icl_theory.moments.mixture_moments import MomentsMixture
from icl_theory.tasks.features import Features, GroupFeatures, find_group_features
from icl_theory.tasks.mixture import TaskDistribution, TaskMixture
from icl_theory.theory.adaptive_speeds import batch_speed, group_speed, sign_learning_time
from icl_theory.theory.aligned_adam import AlignedAdam
from icl_theory.theory.aligned_muon import AlignedMuon
from icl_theory.theory.upsampling import upsampled_learning_times
from icl_theory.training.gradient_descent import gd
from icl_theory.training.losses import MomentsLoss
from icl_theory.training.minibatches import GroupCounts, make_minibatch_loss
from icl_theory.training.muon import muon
from icl_theory.training.run import require_sound
from icl_theory.training.tracked import FeatureStrength
from icl_theory.training.train import train_many
from icl_theory.verification.ensembles import stacked
from icl_theory.verification.labels import variable

OPTIMIZERS: dict[str, Any] = {"gd": gd, "sign": optax.sign_sgd, "adam": optax.adam, "muon": muon}


@dataclasses.dataclass(frozen=True)
class Training:
    """How one optimizer is trained in batches of groups: learning rate η, number of steps, and batch sizes."""

    learning_rate: float
    num_steps: int
    batches: tuple[int, ...]


ALL_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
PLANE_ODDS = (0.5, 2.0)  # on either side of a point of the plane of shares and batch sizes


class Arm(NamedTuple):
    """Batch size, factor of the late group, and β_2 of Adam."""

    batch: int
    factor: float
    b2: float = 0.999


@dataclasses.dataclass(frozen=True)
class Settings:
    """λ = (2, 1), N = 31, a head and a group for each feature, the late group's share 0.02 before upsampling.

    Power: 32 seeds give the median ratio of learning times to 2 %, at b = 1 to 5 %.
    """

    num_context: int = 31
    start: float = 0.05
    share: float = 0.02
    factors: tuple[float, ...] = (1.0, 4.0)
    gd: Training = Training(0.02, 26_000, (1, 16, 128))
    sign: Training = Training(2e-3, 6_000, ALL_BATCHES[2:])
    adam: Training = Training(1e-3, 8_000, ALL_BATCHES)
    muon: Training = Training(1e-3, 4_000, ALL_BATCHES)
    short_memory: float = 0.95
    plane: tuple[tuple[float, int], ...] = ((0.005, 16), (0.005, 128), (0.1, 1), (0.1, 8), (0.4, 1), (0.4, 4))
    full_factors: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    rhos: tuple[float, ...] = (0.0, 0.02, 0.06)
    num_rows: int = 4000
    row_share: float = 0.1
    row_batch: int = 32
    row_factors: tuple[float, ...] = (2.0, 8.0)
    num_seeds: int = 32
    num_snapshots: int = 600
    seed: int = 0

    def snapshots(self, num_steps: int) -> np.ndarray:
        """Return the steps at which strengths are seen, as many per decade."""
        return np.append(0, np.unique(np.geomspace(1, num_steps, self.num_snapshots).astype(int)))


@dataclasses.dataclass(frozen=True)
class AlignedHeads:
    """Two aligned heads on a mixture of two groups, one for each feature, and how learning times are measured."""

    settings: Settings
    mixture: TaskMixture
    groups: GroupFeatures
    model: Any

    @classmethod
    def with_share(cls, settings: Settings, share: float) -> AlignedHeads:
        """Return them for a late group of this share."""
        spectra = np.array([[2.0, 0.0], [0.0, 1.0]])
        parts = [TaskDistribution.create(each, num_context=settings.num_context) for each in spectra]
        mixture = TaskMixture.create(parts, np.array([1.0 - share, share]))
        return cls(settings, mixture, find_group_features(mixture), SeparateAttention(2, 2, rngs=nnx.Rngs(0)))

    @property
    def start(self) -> np.ndarray:
        """u_d(0), (D,)."""
        return np.full(2, self.settings.start)

    def shares(self, factor: float) -> np.ndarray:
        """Return the shares of the groups when the late one is upsampled."""
        return np.asarray(self.mixture.upsampled(np.array([1.0, factor])).shares, float)

    def upsampled(self, factor: float) -> GroupFeatures:
        """Return the groups' features under these shares."""
        return self.groups._replace(shares=self.shares(factor))

    def times(self, loss: Any, graphdef: Any, runs: int, axes: Any, optimum: np.ndarray, **training: Any) -> np.ndarray:
        """Train aligned heads and return when each feature is learned, (runs, D)."""
        starts = stacked([aligned_parameters(self.start, self.groups.directions)] * runs)
        track = FeatureStrength(graphdef, np.asarray(self.groups.directions))
        run = require_sound(train_many(loss, starts, loss_axes=axes, track=track, **training))
        time = run.step * training["hyperparameters"]["learning_rate"]
        return learning_times(time, run.tracked / optimum)

    def slow(self, speed: np.ndarray) -> np.ndarray:
        """Return the learning times at a constant speed of each feature, (D,)."""
        return sign_learning_time(0.5, optimum=self.groups.upsampled().optimum, start=self.start, speed=speed)


def in_batches(settings: Settings, heads: AlignedHeads) -> dict[str, Any]:
    """Measure and predict learning times of every optimizer, batch size and factor, in batches of groups."""
    shape = (len(OPTIMIZERS), len(ALL_BATCHES), len(settings.factors))
    measured = np.full((*shape, settings.num_seeds, 2), np.nan)
    predicted, law = np.full((*shape, 2), np.nan), np.full((*shape, 2), np.nan)
    plane = [
        Arm(batch, odds * share / (1.0 - share) * (1.0 - settings.share) / settings.share)
        for share, batch in settings.plane
        for odds in PLANE_ODDS
    ]
    for place, name in enumerate(OPTIMIZERS):
        arms = [Arm(b, factor) for b in getattr(settings, name).batches for factor in settings.factors]
        short = [Arm(1, factor, settings.short_memory) for factor in settings.factors]
        found = _trained(settings, heads, name, [*arms, *short, *plane] if name == "adam" else arms)
        if name == "adam":
            found, short_times, plane_times = np.split(found, [len(arms), len(arms) + len(short)])
        for times, arm in zip(found, arms, strict=True):
            at = (place, ALL_BATCHES.index(arm.batch), settings.factors.index(arm.factor))
            measured[at], (predicted[at], law[at]) = times, _predictions(settings, heads, name, arm)
    expected = np.reshape([_predictions(settings, heads, "adam", arm)[0] for arm in plane], (-1, 2, 2))
    shares = [heads.shares(factor) for factor in settings.factors]
    memory = [
        heads.slow(np.array([batch_speed(each, 1, b2=settings.short_memory) for each in pair])) for pair in shares
    ]
    root = [heads.slow(group_speed(pair, 1)) for pair in shares]
    dims = "optimizer batch factor"
    return {
        "learning_time": variable(f"{dims} seed feature", measured, "time at which a feature is half learned"),
        "predicted_learning_time": variable(f"{dims} feature", predicted, "theory: reduced map or closed form"),
        "law_learning_time": variable(f"{dims} feature", law, "theory: (z u* − u_0) / speed"),
        "share": variable("factor", [late for _, late in shares], "share of the late group"),
        "odds": variable("factor", [late / early for early, late in shares], "late : early"),
        "short_learning_time": variable("factor seed feature", short_times, "Adam, b = 1, short memory: half learned"),
        "memory_learning_time": variable("factor feature", memory, "theory with the memory of β_2, b = 1"),
        "root_learning_time": variable("factor feature", root, "theory without that memory, b = 1"),
        "plane_time": variable(
            "point end seed feature", plane_times.reshape(-1, 2, *plane_times.shape[1:]), "Adam: half learned"
        ),
        "predicted_plane_time": variable("point end feature", expected, "theory: reduced map"),
        "plane_odds": variable("end", PLANE_ODDS, "late : early, relative to the middle"),
        "plane_share": variable("point", [share for share, _ in settings.plane], "share of the late group, middle"),
        "plane_batch": variable("point", [batch for _, batch in settings.plane], "batch size"),
    }


def _trained(settings: Settings, heads: AlignedHeads, name: str, arms: list[Arm]) -> np.ndarray:
    """Return the learning times of all arms, trained as one program, (arms, seeds, D)."""
    seeds = settings.num_seeds
    loss, _ = make_minibatch_loss(
        heads.model, heads.mixture, batch_size=max(ALL_BATCHES), draw="groups", seed=settings.seed
    )
    sizes = np.repeat([arm.batch for arm in arms], seeds)
    shares = np.repeat([heads.shares(arm.factor) for arm in arms], seeds, axis=0)
    own, _ = loss.own_batches(len(sizes))
    own = own.replace(loss=with_shares(own.loss, shares)).with_batch_sizes(sizes)  # type: ignore[attr-defined]
    axes = loss.axes(loss=SHARES, source=GroupCounts(0), key=0)
    training = getattr(settings, name)
    hyper: dict[str, Any] = {"learning_rate": training.learning_rate}
    if name == "adam":
        hyper["b2"] = np.repeat([arm.b2 for arm in arms], seeds)
    found = heads.times(
        own,
        loss.loss.graphdef,
        len(sizes),
        axes,
        heads.groups.upsampled().optimum,
        optimizer=OPTIMIZERS[name],
        hyperparameters=hyper,
        num_steps=training.num_steps,
        snapshots=settings.snapshots(training.num_steps),
    )
    return found.reshape(len(arms), seeds, 2)


SHARES = MomentsLoss(None, MomentsMixture(None, None, None, 0))  # type: ignore[arg-type]


def with_shares(loss: MomentsLoss, shares: np.ndarray) -> MomentsLoss:
    """Give each run shares of its own, (runs, G); the axes of the result are `SHARES`."""
    return loss._replace(moments=loss.moments._replace(shares=jnp.asarray(shares)))


def _predictions(settings: Settings, heads: AlignedHeads, name: str, arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """Return what theory predicts, and what the closed form alone says; NaN where there is none."""
    if name == "gd":
        exact = upsampled_learning_times(heads.groups, np.array([1.0, arm.factor]), start=heads.start)
        return exact, exact
    if name == "sign":
        law = heads.slow(group_speed(heads.shares(arm.factor), arm.batch, optimizer=name))
        return law, law
    training, groups = getattr(settings, name), heads.upsampled(arm.factor)
    rate = training.learning_rate
    time, features = settings.snapshots(training.num_steps) * rate, groups.upsampled()
    if name == "muon":
        return times_of(AlignedMuon(groups, heads.start, rate, batch_size=arm.batch), time, features), np.full(
            2, np.nan
        )
    law = heads.slow(group_speed(heads.shares(arm.factor), arm.batch))
    return times_of(AlignedAdam(groups, heads.start, rate, arm.batch), time, features), law


def times_of(dynamics: Any, time: np.ndarray, features: Features) -> np.ndarray:
    """Return when a reduced map learns each feature, (D,)."""
    return learning_times(time, dynamics.predict(time).strength / features.optimum)
