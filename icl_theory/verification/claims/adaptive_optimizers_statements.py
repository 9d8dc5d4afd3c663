"""Statements on what upsampling does under adaptive optimizers."""

from __future__ import annotations

import numpy as np
import xarray as xr

from icl_theory.theory.adaptive_speeds import batch_speed, group_speed, sign_learning_time, upsampling_exponent
from icl_theory.theory.aligned_adam import AlignedAdam, example_moments
from icl_theory.theory.aligned_muon import AlignedMuon
from icl_theory.theory.upsampling import upsampled_learning_times
from icl_theory.verification.changes import Change, absolute, log_change, median_change
from icl_theory.verification.statements import Statements

DENSE = 0.3  # from πb = 0.3 on the late group is in most batches

table = Statements("adaptive_optimizers", source="notes §17")


def ratio(times: xr.DataArray) -> xr.DataArray:
    """Return t_2/t_1."""
    return times.sel(feature=2) / times.sel(feature=1)


def exponent(times: xr.DataArray, odds: xr.DataArray) -> xr.DataArray:
    """Return `−ln(R(κ)/R(1)) / ln(odds(κ)/odds(1))` between the first and the last factor."""
    logs: xr.DataArray = xr.apply_ufunc(np.log, ratio(times))
    (factor,) = odds.dims
    ends = {factor: [0, -1]}
    return -logs.isel(ends).diff(factor).squeeze(factor) / float(np.diff(np.log(odds.isel(ends).values))[0])


def median_ratio(data: xr.Dataset, optimizer: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the predicted ratios and the measured medians of the batch sizes that were run, (batch, factor)."""
    chosen = data.sel(optimizer=optimizer)
    measured = ratio(chosen.learning_time).median("seed").dropna("batch")
    return ratio(chosen.predicted_learning_time).sel(batch=measured.batch), measured


def largest_change(times: xr.DataArray) -> xr.DataArray:
    """Return the largest of `|R(κ)/R(1) − 1|` over the factors of a full batch."""
    ratios = ratio(times)
    return abs(ratios / ratios.isel(full_factor=0) - 1.0).max()


def dense(data: xr.Dataset) -> xr.DataArray:
    return data.share * data.batch >= DENSE


@table.agrees(
    "Full batch: sign descent learns every feature at the closed form, whatever the factor and SAM's ρ before it",
    rtol=0.01,
    predictor=sign_learning_time,
)
def sign_descent_learns_at_the_closed_form(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return data.predicted_sign_time, data.sign_time


@table.agrees(
    "Full batch: Adam, with and without SAM before it, learns every feature when the reduced map says so",
    rtol=1e-6,
    predictor=AlignedAdam,
)
def adam_follows_the_reduced_map(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return data.predicted_adam_time, data.adam_time


@table.agrees(
    "Full batch: Muon on keys and queries learns every feature when the reduced map says so",
    rtol=1e-6,
    predictor=AlignedMuon,
)
def muon_follows_the_reduced_map(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return data.predicted_muon_time, data.muon_time


@table.at_most(
    "Full batch: upsampling by 16 does nothing under {case} (|exponent of the odds| in t_2/t_1)",
    bound=0.05,
    predictor=upsampling_exponent,
    figure="adaptive_optimizers",
    cases={"adam": "Adam", "sign": "sign descent"},
)
def upsampling_does_nothing_in_full_batches(data: xr.Dataset, optimizer: str) -> np.ndarray:
    return np.abs(exponent(data[f"{optimizer}_time"].isel(rho=0), data.full_odds).values)


@table.agrees(
    "Full batch: upsampling by 2 to 16 changes t_2/t_1 under Muon as much as the reduced map says (largest change)",
    rtol=1e-6,
    predictor=AlignedMuon,
    figure="adaptive_optimizers",
)
def muon_changes_the_ratio_in_full_batches_as_the_map_says(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return largest_change(data.predicted_muon_time), largest_change(data.muon_time)


@table.agrees(
    "Gradient descent: upsampling divides t_2/t_1 by the change of the odds at every batch size ({seed} seeds)",
    rtol=0.05,
    predictor=upsampled_learning_times,
    figure="adaptive_optimizers",
)
def gradient_descent_has_one_law_at_all_batch_sizes(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return median_ratio(data, "gd")


@table.agrees(
    "Sign descent: t_2/t_1 is that of the speeds 1 − (1−π)^b (medians of {seed} seeds)",
    rtol=0.05,
    predictor=group_speed,
    figure="adaptive_optimizers",
)
def sign_descent_moves_when_a_batch_has_an_example(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return median_ratio(data, "sign")


@table.agrees(
    "Adam, batches that have late examples, {case}: t_2/t_1 is the reduced map's (medians of {seed} seeds)",
    rtol=0.1,
    predictor=AlignedAdam,
    figure="adaptive_optimizers",
    cases={"often": "πb ≥ 0.3", "seldom": "πb < 0.3"},
)
def adam_in_batches_follows_the_map(data: xr.Dataset, case: str) -> tuple[np.ndarray, np.ndarray]:
    predicted, measured = median_ratio(data, "adam")
    chosen = dense(data) == (case == "often")
    chosen, predicted = xr.broadcast(chosen.transpose(*predicted.dims), predicted)
    return predicted.values[chosen.values], measured.transpose(*predicted.dims).values[chosen.values]


@table.agrees(
    "Adam: the exponent of the odds in t_2/t_1 depends on the batch size as the reduced map says ({seed} seeds)",
    atol=0.07,
    predictor=AlignedAdam,
    figure="adaptive_optimizers",
)
def adam_has_the_exponent_of_the_map(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    chosen = data.sel(optimizer="adam")
    return exponent(chosen.predicted_learning_time, data.odds), exponent(chosen.learning_time, data.odds).median("seed")


@table.agrees(
    "Adam: so it does at {point} other points of share and batch size, from πb = 0.08 to 1.6 ({seed} seeds)",
    atol=0.07,
    predictor=AlignedAdam,
    figure="adaptive_optimizers",
)
def adam_has_the_exponent_of_the_map_at_other_shares(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    measured = exponent(data.plane_time, data.plane_odds).median("seed")
    return exponent(data.predicted_plane_time, data.plane_odds), measured


@table.agrees(
    "Adam, b = 1, β_2 = 0.95: events rarer than the memory; t_2/t_1 by the law with memory (medians of {seed} seeds)",
    rtol=0.15,
    predictor=batch_speed,
)
def adam_with_a_short_memory_follows_its_law(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return ratio(data.memory_learning_time), ratio(data.short_learning_time).median("seed")


@table.at_least(
    "There the law without memory is too low (log of measured over predicted t_2/t_1, before upsampling)",
    bound=0.2,
    predictor=group_speed,
)
def law_without_memory_is_too_low(data: xr.Dataset) -> Change:
    first = {"factor": 0}
    return log_change(ratio(data.short_learning_time).isel(first), ratio(data.root_learning_time).isel(first))


@table.agrees(
    "Muon: t_2/t_1 in batches is the reduced map's, with the counts that the momentum holds (medians of {seed} seeds)",
    rtol=0.12,
    predictor=AlignedMuon,
    figure="adaptive_optimizers",
    after_measurement="the map was derived last, when these ratios were known; a prototype was 8 % off at most",
)
def muon_in_batches_follows_the_map(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return median_ratio(data, "muon")


@table.at_least(
    "Muon, values by Adam: in batches of one upsampling acts (exponent of the odds in t_2/t_1)",
    bound=0.2,
    source="found here",
    predictor=AlignedMuon,
    figure="adaptive_optimizers",
    after_measurement="a prototype with other seeds gave 0.36",
)
def muon_feels_upsampling_in_small_batches(data: xr.Dataset) -> Change:
    chosen = data.learning_time.sel(optimizer="muon", batch=1)
    return median_change(exponent(chosen, data.odds).values)


@table.agrees(
    "Adam on rows of a finite set: t_2/t_1 by signal and noise of its examples (medians of {seed} seeds)",
    rtol=0.1,
    predictor=example_moments,
)
def signal_and_noise_of_examples_predict_adam(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return ratio(data.predicted_row_time), ratio(data.row_time).median("seed")


@table.at_most(
    "Adam: weights in the loss do nothing (|log change of t_2/t_1| from κ = 2 to 8)",
    bound=0.01,
    predictor=example_moments,
)
def weights_in_the_loss_do_nothing(data: xr.Dataset) -> Change:
    few, many = ratio(data.row_time.sel(weighting="loss")).transpose("row_factor", "seed").values
    return absolute(log_change(many, few))


@table.at_least(
    "Adam: the same weights in sampling lower t_2/t_1 (−log change from κ = 2 to 8)",
    bound=0.1,
    predictor=example_moments,
)
def weights_in_sampling_act(data: xr.Dataset) -> Change:
    few, many = ratio(data.row_time.sel(weighting="sampling")).transpose("row_factor", "seed").values
    return log_change(few, many)
