"""What upsampling does under gradient descent, sign descent, Adam and Muon, against batch size (notes, §17)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr

from icl_theory.moments.compressed_prompts import compress
from icl_theory.tasks.sampling import sample_prompts
from icl_theory.theory.adaptive_speeds import upsampling_exponent
from icl_theory.theory.aligned_adam import AlignedAdam, example_moments
from icl_theory.theory.aligned_dynamics import Ascent
from icl_theory.theory.aligned_muon import AlignedMuon
from icl_theory.training.minibatches import make_minibatch_loss
from icl_theory.training.muon import muon
from icl_theory.training.sam import sam
from icl_theory.verification.claim import Claim, Progress
from icl_theory.verification.claims.adaptive_optimizers_batches import (
    ALL_BATCHES,
    OPTIMIZERS,
    SHARES,
    AlignedHeads,
    Settings,
    in_batches,
    times_of,
    with_shares,
)
from icl_theory.verification.claims.adaptive_optimizers_statements import table
from icl_theory.verification.labels import dataset, variable

WEIGHTINGS = ("sampling", "loss")
FULL_BATCH = {"adam": partial(sam, base=optax.adam), "sign": partial(sam, base=optax.sign_sgd), "muon": muon}


def measure(settings: Settings, progress: Progress) -> xr.Dataset:
    """Measure learning times in batches of groups, in full batches and in batches of rows, and predict them."""
    heads = AlignedHeads.with_share(settings, settings.share)
    variables: dict[str, Any] = {}
    parts = (in_batches, _full_batch, _rows, _exponent_map)
    for done, part in enumerate(parts, start=1):
        variables |= part(settings, heads)
        progress(done, len(parts))
    return dataset(
        variables,
        optimizer=list(OPTIMIZERS),
        batch=list(ALL_BATCHES),
        factor=list(settings.factors),
        full_factor=list(settings.full_factors),
        rho=list(settings.rhos),
        row_factor=list(settings.row_factors),
        weighting=list(WEIGHTINGS),
    )


def _full_batch(settings: Settings, heads: AlignedHeads) -> dict[str, Any]:
    """SAM at every ρ before Adam and sign descent, and Muon, for every factor."""
    arms = [(factor, rho) for factor in settings.full_factors for rho in settings.rhos]
    shape = (len(settings.full_factors), len(settings.rhos), 2)
    minibatches, _ = make_minibatch_loss(heads.model, heads.mixture, batch_size=1, draw="groups")
    loss = with_shares(minibatches.loss, np.array([heads.shares(factor) for factor, _ in arms]))
    optimum, variables = heads.groups.upsampled().optimum, {}
    for name, optimizer in FULL_BATCH.items():
        rate = getattr(settings, name).learning_rate
        steps = round(1.5 / rate)
        hyper = {"learning_rate": rate} | ({} if name == "muon" else {"rho": np.array([rho for _, rho in arms])})
        training = {"optimizer": optimizer, "hyperparameters": hyper, "num_steps": steps}
        snapshots = np.arange(0, steps + 1)
        found = heads.times(loss, loss.graphdef, len(arms), SHARES, optimum, snapshots=snapshots, **training)
        expected = [_full_prediction(heads, name, rate, snapshots * rate, *arm) for arm in arms]
        for prefix, values in (("", found), ("predicted_", np.array(expected))):
            words = f"full batch, {name}{', theory' if prefix else ''}: time at which a feature is half learned"
            values = values.reshape(shape)
            dims = "full_factor rho feature"
            if name == "muon":  # SAM is not put before it
                values, dims = values[:, 0], "full_factor feature"
            variables[f"{prefix}{name}_time"] = variable(dims, values, words)
    odds = [np.divide(*heads.shares(factor)[::-1]) for factor in settings.full_factors]
    return variables | {"full_odds": variable("full_factor", odds, "late : early")}


def _full_prediction(
    heads: AlignedHeads, name: str, rate: float, time: np.ndarray, factor: float, rho: float
) -> np.ndarray:
    groups = heads.upsampled(factor)
    features = groups.upsampled()
    if name == "sign":
        return heads.slow(np.ones(2))
    if name == "muon":
        return times_of(AlignedMuon(groups, heads.start, rate), time, features)
    return times_of(AlignedAdam(groups, heads.start, rate, ascent=Ascent(rho)), time, features)


def _rows(settings: Settings, base: AlignedHeads) -> dict[str, Any]:
    """Adam on rows of a finite set, weighted by sampling or in the loss."""
    heads = AlignedHeads.with_share(settings, settings.row_share)
    prompts = sample_prompts(heads.mixture, settings.num_rows, key=jax.random.key(settings.seed + 1))
    rows, late = compress(prompts, blocks="reduced"), np.asarray(prompts.group) == 1
    rate, steps = settings.adam.learning_rate, 4000
    found, expected = [], []
    for weighting in WEIGHTINGS:
        for factor in settings.row_factors:
            weight = np.where(late, factor, 1.0)
            loss, _ = make_minibatch_loss(
                heads.model, rows, batch_size=settings.row_batch, weight=weight, weighting=weighting
            )
            own, axes = loss.own_batches(settings.num_seeds)
            seen = rows.replace(weight=weight) if weighting == "sampling" else rows  # type: ignore[attr-defined]
            groups, examples = example_moments(seen, heads.groups.directions)
            features, snapshots = groups.upsampled(), settings.snapshots(steps)
            training = {"optimizer": optax.adam, "hyperparameters": {"learning_rate": rate}, "num_steps": steps}
            graphdef, seeds = own.loss.graphdef, settings.num_seeds
            found.append(heads.times(own, graphdef, seeds, axes, features.optimum, snapshots=snapshots, **training))
            theory = AlignedAdam(groups, heads.start, rate, settings.row_batch, examples=examples)
            expected.append(times_of(theory, snapshots * rate, features))
    shape = (len(WEIGHTINGS), len(settings.row_factors))
    measured = np.reshape(found, (*shape, settings.num_seeds, 2))
    return {
        "row_time": variable("weighting row_factor seed feature", measured, "Adam on rows: half learned"),
        "predicted_row_time": variable("weighting row_factor feature", np.reshape(expected, (*shape, 2)), "theory"),
    }


def _exponent_map(settings: Settings, heads: AlignedHeads) -> dict[str, Any]:
    share, batch = np.geomspace(1e-3, 0.5, 60), np.geomspace(1.0, 1024.0, 61)
    exponent = upsampling_exponent(share[:, None], batch)
    return {
        "map_share": variable("map_share", share, "share of the late group"),
        "map_batch": variable("map_batch", batch, "batch size"),
        "map_exponent": variable("map_share map_batch", exponent, "theory: −d ln(t_2/t_1) / d ln(odds), Adam"),
    }


CLAIM = Claim(
    "adaptive_optimizers",
    "What does upsampling do to the ratio of learning times under Adam, sign descent and Muon, at every batch size?",
    Settings(),
    measure,
    table,
    seconds=30.0,
)
